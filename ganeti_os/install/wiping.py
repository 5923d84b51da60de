# SPDX-License-Identifier: MIT
"""Zero the data of a former instance that the new one would find on the disk, according to the setting WIPE."""

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

# The limit of one system call, which no signal ends: a few seconds at most.
_FREED_AT_ONCE = GIB
_WRITTEN_AT_ONCE = 64 * MIB


@dataclass(frozen=True, slots=True)
class Wiping:
    """mode is the setting WIPE: auto, yes or no."""

    mode: str
    messages: Messages

    def wipe(self, disk: DescriptorDisk, start: int = 0) -> None:
        """Zero the disk from the byte start on. With auto it is not changed if zeros would have to be written."""
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
                "the last %s of %s are not wiped: zeros would have to be written, which WIPE=yes does, or "
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
    """A disk that is written from its beginning: wipe_rest() or commit() zeroes all after the last written byte."""

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
        if location is not None and length:
            self._reached(offset + length)
        return location

    @property
    def shown(self) -> DescriptorDisk:
        """The disk itself, including its beginning."""
        return self._whole

    @property
    def fd(self) -> int:
        """The descriptor of the disk, whose first MiB differs from the data read here."""
        return self._whole.fd

    def wipe_rest(self) -> None:
        """Zero the disk after the last written byte, once: later writes there stay."""
        wiping, self._wiping = self._wiping, None
        if wiping is not None:
            wiping.wipe(self._whole, self._end)

    def commit(self) -> None:
        self.wipe_rest()
        super().commit()

    def _reached(self, end: int) -> None:
        with self._lock:
            self._end = max(self._end, end)
