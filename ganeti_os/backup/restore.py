# SPDX-License-Identifier: MIT
"""Write a backup that is a whole disk, a qcow2 or raw bytes, to the disk as it arrives."""

from __future__ import annotations

import logging

from ganeti_os.backup.kind import BackupKind
from ganeti_os.install.held_disk import HeldDisk
from ganeti_os.install.wiping import Wiping
from pydiskimg.disks.descriptor import DescriptorDisk
from pydiskimg.disks.fits import check_size_fits
from pydiskimg.errors import InvalidImageError
from pydiskimg.transfer.receive import Incoming, stream_of
from pydiskimg.units import format_size
from pydiskimg.volumes.described_end import LOOK_AT, described_end

log = logging.getLogger(__name__)

# A qcow2 has whole sectors: if the exported disk ends within one, the backup has zeros after it.
_SECTOR_SIZE = 512
_PADDING = {BackupKind.QCOW2: _SECTOR_SIZE - 1, BackupKind.RAW: 0}


def restore_disk(pipe: Incoming, kind: BackupKind, disk: DescriptorDisk, wiping: Wiping) -> HeldDisk:
    """Write the backup to the disk except its first MiB, which the caller releases.

    Raises DoesNotFitError before the first write; InvalidImageError when the backup ends early or is corrupt; the disk
    then begins with zeros.
    """
    messages = wiping.messages
    described = described_end(pipe.peek(LOOK_AT)) if kind is BackupKind.RAW else 0
    with stream_of(pipe, format=kind.value) as stream:
        size = described if stream.size is None else stream.size
        if stream.size == 0:
            raise InvalidImageError(f"{pipe.name}: is the image of a disk of 0 bytes; nothing was written")
        if size:
            log.info("%s: %s, %s", pipe.name, kind.value, format_size(size))
        else:
            log.warning("%s: it does not state its size, so an early end would not be noticed", pipe.name)
        check_size_fits(pipe.name, size, disk, padding=_PADDING[kind])
        target = HeldDisk(disk, wiping)  # a smaller backup would leave an old GPT's backup intact
        done = stream.copy_to(
            target, at_least=described, padding=_PADDING[kind], progress=messages.progress("restored")
        )
    if done < _SECTOR_SIZE:
        raise InvalidImageError(
            f"{pipe.name}: has {done} bytes; a disk has at least one sector, {_SECTOR_SIZE} bytes; its sender has "
            "failed or was interrupted"
        )
    log.info("%s of the disk arrived, in %s", format_size(done), format_size(pipe.position))
    return target
