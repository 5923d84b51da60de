# SPDX-License-Identifier: MIT
"""A disk cut into columns of equal length: how much of each is stored, and how much its file systems use."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from pydiskimg.errors import FileSystemError
from pydiskimg.extents import Extent, Kind
from pydiskimg.protocols import Source
from pydiskimg.volumes.find import Volume, find_volumes
from pydiskimg.volumes.space import FileSystemSpace, file_system_space
from pydiskimg.volumes.used import used_source


@dataclass(frozen=True, slots=True)
class PicturedVolume:
    """A volume, and the space of its file system; None if that is not counted."""

    volume: Volume
    space: FileSystemSpace | None


@dataclass(frozen=True, slots=True)
class DiskPicture:
    """The data for a drawing of a disk. size is bytes.

    stored and used have a number from 0 to 1 for each column: the share of its bytes that is stored as data, and the
    share in use according to the file systems (all bytes that are not certainly free). notes are sentences on unclear
    contents.
    """

    name: str
    size: int
    volumes: tuple[PicturedVolume, ...]
    stored: tuple[float, ...]
    used: tuple[float, ...]
    stored_bytes: int
    notes: tuple[str, ...]


def disk_picture(source: Source, columns: int) -> DiskPicture:
    """Return the picture of a disk, or of an image of one, in that many columns.

    Raises PartitionError for a table that cannot be read with any sector size, and as reading does.
    """
    notes: list[str] = []
    volumes = tuple(_pictured(source, volume, notes) for volume in find_volumes(source, notes.append))
    used = used_source(source)
    total, stored = _shares(source.extents(), source.size, columns)
    _, in_use = _shares(used.extents(), source.size, columns)
    return DiskPicture(source.name, source.size, volumes, stored, in_use, total, tuple(dict.fromkeys(notes)))


def _pictured(source: Source, volume: Volume, notes: list[str]) -> PicturedVolume:
    try:
        space = file_system_space(volume.region(source), volume.content.type) if volume.content else None
    except FileSystemError as error:
        notes.append(str(error))
        space = None
    return PicturedVolume(volume, space)


def _shares(extents: Iterable[Extent], size: int, columns: int) -> tuple[int, tuple[float, ...]]:
    """Return how many bytes of extents are DATA, and the share of these bytes in each column."""
    edges = [size * column // columns for column in range(columns + 1)]
    counts = [0] * columns
    for start, end in _data(extents):
        column = bisect_right(edges, start) - 1
        while column < columns and edges[column] < end:
            counts[column] += min(end, edges[column + 1]) - max(start, edges[column])
            column += 1
    return sum(counts), tuple(count / max(1, edges[at + 1] - edges[at]) for at, count in enumerate(counts))


def _data(extents: Iterable[Extent]) -> Iterator[tuple[int, int]]:
    for extent in extents:
        if extent.kind is Kind.DATA:
            yield extent.start, extent.end
