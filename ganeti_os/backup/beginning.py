# SPDX-License-Identifier: MIT
"""What the beginning of a backup on a pipe tells before anything is written: that its system has to be mounted."""

from __future__ import annotations

from itertools import takewhile

from ganeti_os.backup.kind import LOOK_AT, BackupKind
from ganeti_os.guest.root import MOUNTABLE, is_ext
from pydiskimg.errors import DiskImageError
from pydiskimg.extents import Kind
from pydiskimg.images.open import open_image
from pydiskimg.images.qcow2.layout import HEADER
from pydiskimg.linux.fileio import pwrite_all
from pydiskimg.linux.memfd import sparse_memfd
from pydiskimg.partitions.partition import SECTOR_SIZES
from pydiskimg.protocols import Source, read_bytes
from pydiskimg.transfer.pipe import PipeReader
from pydiskimg.units import MIB
from pydiskimg.volumes.find import Volume, volume_readings

# The tables of a qcow2 of 16 GiB, which come first, and where the first partition begins.
_PEEKED = 6 * MIB
_LARGEST = 1 << 60
_SIZE = HEADER.slice_of("size")


def has_to_be_mounted(pipe: PipeReader, kind: BackupKind) -> bool:
    """Tell whether all file systems of the disk begin where that is seen already, and none is one that is read here.

    kind is a disk as a whole. What has come stays to be read from the pipe.
    """
    beginning = pipe.peek(_PEEKED)
    size = len(beginning)
    if kind is BackupKind.QCOW2 and size >= HEADER.size:  # more than the file has: what has not come reads as zero
        size += min(2 * int.from_bytes(beginning[_SIZE], "big"), _LARGEST)
    try:
        with sparse_memfd("beginning", size) as fd:
            pwrite_all(fd, 0, beginning, name=pipe.name)
            with open_image(f"/proc/self/fd/{fd}", format=kind.value, name=pipe.name) as source:
                return _is_all_mounted(source, len(beginning))
    except DiskImageError:  # restoring says what is wrong, or more has to come
        return False


def _is_all_mounted(source: Source, came: int) -> bool:
    volumes: list[Volume] = []
    for found in volume_readings(source, SECTOR_SIZES, [], tell=lambda _text: None):
        volumes += found
    types = {volume.content.type for volume in volumes if volume.content is not None}
    if not types & MOUNTABLE or any(map(is_ext, volumes)):
        return False
    return all(_has_come(source, volume.partition.start, came) for volume in volumes)


def _has_come(source: Source, start: int, came: int) -> bool:
    """Tell whether what says which file system begins at start is among the bytes that came.

    Something was found on the disk, so that the tables of a qcow2 have come, and what they say is zero is so.
    """
    end = min(start + LOOK_AT, source.size)
    for extent in takewhile(lambda extent: extent.start < end, source.extents()):
        first, last = max(extent.start, start), min(extent.end, end)
        if first < last and extent.kind is Kind.DATA:
            ranges = source.file_ranges(first, last - first)
            if ranges is None:
                read_bytes(source, first, last - first)  # compressed: an error where not all of it has come
            elif any(offset + length > came for _, offset, length in ranges):
                return False
    return start < end
