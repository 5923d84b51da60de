# SPDX-License-Identifier: MIT
"""Check that an image reaches as far as its file systems: a copy of it that was interrupted must not become a disk."""

from __future__ import annotations

import logging
from collections.abc import Iterator

from pydiskimg.errors import InvalidImageError
from pydiskimg.extents import Extent, Kind
from pydiskimg.fs.probe.size import stated_size
from pydiskimg.partitions.partition import SECTOR_SIZES
from pydiskimg.protocols import Source, WritableBuffer, check_buffer, read_bytes
from pydiskimg.units import format_bytes
from pydiskimg.volumes.described_end import LOOK_AT, described_end
from pydiskimg.volumes.find import Volume, volume_readings

log = logging.getLogger(__name__)

_LARGEST = 1 << 60  # of a disk, in bytes
_ADVICE = "the image is truncated; replace it by the whole one"


def check_complete(image: Source, size: int, name: str) -> None:
    """Raise InvalidImageError if an image, the first size bytes of a source, ends before a file system in it.

    Of a partition without a known file system the end may be missing: there are images whose last bytes are left out.
    That is logged as a warning. name is the image's, for messages.
    """
    described = described_end(read_bytes(image, 0, min(LOOK_AT, size)))
    disk = _Described(image, size, max(size, min(described, _LARGEST)))
    volumes = _volumes(disk)
    for volume in volumes:
        start = volume.partition.start
        end = start + _size_of_contents(disk, volume)
        if end > size and start < size:
            raise InvalidImageError(
                f"{name}: ends at byte {size}, but the file system of {volume} reaches to byte {end}; {_ADVICE}"
            )
    if volumes and all(volume.partition.start >= size for volume in volumes):
        raise InvalidImageError(f"{name}: ends at byte {size}, before its first partition; {_ADVICE}")
    if described > size:
        log.warning(
            "%s: has %s, but its partition table describes a disk of %s; if it is truncated, replace it",
            *(name, format_bytes(size), format_bytes(described)),
        )


def _volumes(disk: Source) -> list[Volume]:
    """Return the volumes as find_volumes() does, none for a damaged table."""
    first: list[Volume] = []
    for found in volume_readings(disk, SECTOR_SIZES, [], tell=lambda _text: None):
        if any(volume.content is not None for volume in found):
            return found
        first = first or found
    return first


def _size_of_contents(disk: Source, volume: Volume) -> int:
    """Return how many bytes of the volume an ext, xfs or btrfs covers; 0 for other contents."""
    if not volume.is_mountable:
        return 0
    region = volume.region(disk)
    return stated_size(read_bytes(region, 0, min(LOOK_AT, region.size)))


class _Described(Source):
    """The first bytes of a source, with zeros up to the size of the disk that they describe."""

    name: str
    size: int

    def __init__(self, source: Source, length: int, size: int) -> None:
        self.name = source.name
        self.size = size
        self._source = source
        self._length = length

    def extents(self) -> Iterator[Extent]:
        yield Extent(0, self.size, Kind.DATA)

    def read_into(self, offset: int, buffer: WritableBuffer) -> None:
        check_buffer(self, offset, buffer)
        view = memoryview(buffer)
        known = max(0, min(len(view), self._length - offset))
        if known:
            self._source.read_into(offset, view[:known])
        view[known:] = bytes(len(view) - known)
