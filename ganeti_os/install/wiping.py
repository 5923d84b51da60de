# SPDX-License-Identifier: MIT
"""What a former instance wrote to the disk, and the new one would find: zeroed as the setting WIPE says."""

from __future__ import annotations

import logging
import threading
import time
from dataclasses import dataclass

from ganeti_os.log import Messages
from pydiskimg.disks.deferred_head import DeferredHead
from pydiskimg.disks.descriptor import DescriptorDisk
from pydiskimg.protocols import Buffer
from pydiskimg.units import GIB, MIB, format_size

log = logging.getLogger(__name__)

# So long is one call of the kernel's, which no signal ends: seconds at most.
_FREED_AT_ONCE = GIB
_WRITTEN_AT_ONCE = 64 * MIB


@dataclass(frozen=True, slots=True)
class Wiping:
    """mode is the setting WIPE: auto, yes or no."""

    mode: str
    messages: Messages

    def wipe(self, disk: DescriptorDisk, start: int = 0) -> None:
        """Zero the disk from the byte start on. With auto it stays as it is where zeros would have to be written."""
        if self.mode == "no" or start >= disk.size:
            return
        started = time.monotonic()
        progress = self.messages.progress("zeroed")
        done = start
        while done < disk.size and disk.free(done, min(_FREED_AT_ONCE, disk.size - done)):
            done = min(done + _FREED_AT_ONCE, disk.size)
            self.messages.check()
        if done < disk.size and self.mode == "auto":
            log.info(
                "the last %s of %s keep what they held before: zeros would have to be written, which WIPE=yes does, or "
                "Ganeti's prealloc_wipe_disks",
                format_size(disk.size - done),
                disk.name,
            )
            return
        while done < disk.size:
            length = min(_WRITTEN_AT_ONCE, disk.size - done)
            disk.zero(done, length)
            done += length
            progress(done - start, disk.size - start)
        seconds = time.monotonic() - started
        log.info("the last %s of %s are zeroed (%.1f s)", format_size(disk.size - start), disk.name, seconds)


class WholeDisk(DeferredHead):
    """A disk that is written from its beginning: wipe_rest(), or commit(), wipes what follows the last byte written."""

    def __init__(self, disk: DescriptorDisk, wiping: Wiping) -> None:
        super().__init__(disk)
        self._whole = disk
        self._wiping: Wiping | None = wiping
        self._end = len(self.head)
        self._lock = threading.Lock()

    def write(self, offset: int, data: Buffer) -> None:
        super().write(offset, data)
        self._reached(offset + len(data))

    def zero(self, offset: int, length: int) -> None:
        super().zero(offset, length)
        self._reached(offset + length)

    def file_location(self, offset: int, length: int) -> tuple[int, int] | None:
        location = super().file_location(offset, length)
        if location is not None:
            self._reached(offset + length)
        return location

    @property
    def shown(self) -> DescriptorDisk:
        """The disk as it is, its beginning included."""
        return self._whole

    @property
    def fd(self) -> int:
        """The descriptor of the disk, whose first MiB is not what is read here."""
        return self._whole.fd

    def wipe_rest(self) -> None:
        """Wipe what lies after the last byte written, once: what is written there afterwards stays."""
        wiping, self._wiping = self._wiping, None
        if wiping is not None:
            wiping.wipe(self._whole, self._end)

    def commit(self) -> None:
        self.wipe_rest()
        super().commit()

    def _reached(self, end: int) -> None:
        with self._lock:
            self._end = max(self._end, end)
