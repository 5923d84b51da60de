# SPDX-License-Identifier: MIT
"""Release the unused space of a disk's file systems to the storage, in place.

stored   |      DATA      |HOLE|        DATA         |
in use   | DATA |   HOLE       |DATA|     HOLE         |   by the file systems' bitmaps, if they are believed
zeroed          |/////////|         |////////////////|
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass

from pydiskimg.errors import InvalidImageError
from pydiskimg.extents import Extent, Kind
from pydiskimg.images.open_disk import open_image_disk
from pydiskimg.images.qcow2.check import check_qcow2
from pydiskimg.images.qcow2.write.disk import Qcow2Disk
from pydiskimg.images.raw import open_image_file
from pydiskimg.images.references import AllowedDirectory
from pydiskimg.protocols import Disk, ImageBytes, Progress
from pydiskimg.units import GIB
from pydiskimg.volumes.used import used_source

_PAGE = 4096
_STEP = GIB  # zeroed by one call; small enough for progress to move and signals to be answered


@dataclass(frozen=True, slots=True)
class Sparsified:
    """The result of sparsify(): bytes zeroed, and the file's allocated bytes before and after (None: a device).

    notes are sentences on space that was left alone.
    """

    zeroed: int
    stored_before: int | None
    stored_after: int | None
    notes: list[str]


def sparsify(
    path: str | os.PathLike[str],
    *,
    format: str | None = None,  # noqa: A002  qemu-img's word
    references: AllowedDirectory | None = None,
    progress: Progress | None = None,
) -> Sparsified:
    """Release what an image or disk stores and no file system on it uses.

    Holes are made if the storage supports them: a file takes less space, a device discards blocks. used_source()
    determines what is free; swap areas count as free, hibernated ones do not. format and references are as for
    open_image(). An interruption does no harm, because used space is never changed. Raises InvalidImageError for an
    inconsistent qcow2 image, UnsupportedImageError for a format that cannot be written, and as open_disk(), reading and
    writing do.
    """
    name = os.fspath(path)
    with open_image_disk(name, format=format, references=references) as disk, open_image_file(name) as file:
        before = _allocated(file)
        if isinstance(disk, Qcow2Disk):
            _require_consistent(file)  # now that other writers are locked out
        zeroed, notes = zero_unused(disk, progress=progress)
        if isinstance(disk, Qcow2Disk):
            disk.give_back()
        disk.flush()
        return Sparsified(zeroed, before, _allocated(file), notes)


def _allocated(file: ImageBytes) -> int | None:
    """Return the bytes allocated for a file; None for a device, of which stat() reports 0."""
    return None if file.is_block_device else file.stored()


def _require_consistent(file: ImageBytes) -> None:
    """A cluster that is in use and counted as free would be lost."""
    found = check_qcow2(file)
    if errors := found.corruptions + found.check_errors:
        raise InvalidImageError(
            f"{file.name}: is not consistent ({errors} errors), so free clusters cannot be determined; repair it "
            "first with: pydiskimg check -r all"
        )


def zero_unused(disk: Disk, *, progress: Progress | None = None) -> tuple[int, list[str]]:
    """Zero all bytes that disk stores and no file system on it uses; return how many, and notes on the rest.

    No other program may use the disk meanwhile. Raises as used_source() and Disk.zero() do.
    """
    used, unit = used_source(disk), disk.unit or _PAGE
    free = list(_whole_units(_stored_and_free(used.extents(), disk.stored_extents()), unit))  # zeroing changes both
    total, done = sum(end - start for start, end in free), 0
    for start, end in free:
        for at in range(start, end, _STEP):
            length = min(_STEP, end - at)
            disk.zero(at, length)
            done += length
            if progress is not None:
                progress(done, total)
    return total, used.notes


def _whole_units(ranges: Iterator[tuple[int, int]], unit: int) -> Iterator[tuple[int, int]]:
    """Yield the ranges without partial units (bytes) at their ends, which cannot become holes."""
    for start, end in ranges:
        first, last = start + -start % unit, end - end % unit
        if first < last:
            yield first, last


def _stored_and_free(used: Iterator[Extent], stored: Iterator[Extent]) -> Iterator[tuple[int, int]]:
    """Yield (start, end) of the bytes that are DATA in stored and not in used, ascending; both cover the same bytes."""
    holds = next(stored, None)
    for extent in used:
        while holds is not None and holds.start < extent.end:
            if extent.kind is not Kind.DATA and holds.kind is Kind.DATA:
                start, end = max(extent.start, holds.start), min(extent.end, holds.end)
                if start < end:
                    yield start, end
            if holds.end > extent.end:
                break
            holds = next(stored, None)
