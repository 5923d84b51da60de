# SPDX-License-Identifier: MIT
"""commit(): write the contents of an image into its backing file.

    disk.qcow2    |  A  |     |  B  |     |            |     |     |     |     |
    middle.qcow2  |     |  C  |  D  |     |     ->     |     |  C  |  D  |     |  stays as it is
    base.qcow2    |  e  |  f  |  g  |  h  |            |  A  |  C  |  B  |  h  |

The disk shows the same bytes at every moment: until it is emptied, as the last step, it covers the bytes being written.
"""

from __future__ import annotations

import os
from contextlib import ExitStack

from pydiskimg.disks.open import open_raw_disk
from pydiskimg.disks.store import cut_file, store_of
from pydiskimg.errors import InUseError, UnsupportedImageError
from pydiskimg.extents import Extent, Kind
from pydiskimg.images import FORMATS
from pydiskimg.images.chain import backing_sources, file_of, lock_files, open_chain
from pydiskimg.images.map import IS_PRESENT, map_rows
from pydiskimg.images.qcow2.host_offsets import IS_ZERO
from pydiskimg.images.qcow2.reader import Qcow2Source
from pydiskimg.images.qcow2.switch.empty import empty_qcow2
from pydiskimg.images.raw import describe
from pydiskimg.images.resize import resize_image
from pydiskimg.startup import TYPE_CHECKING
from pydiskimg.transfer.meter import Meter
from pydiskimg.transfer.pieces import CHUNK_SIZE, ZERO_CHUNK_SIZE, cut
from pydiskimg.transfer.share import Sharing
from pydiskimg.transfer.workers import work_on, worker_count

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pydiskimg.disks.descriptor import DescriptorDisk
    from pydiskimg.images.references import AllowedDirectory
    from pydiskimg.protocols import Disk, Progress, Source


def commit(
    path: str | os.PathLike[str],
    *,
    references: AllowedDirectory | None,
    base: str | os.PathLike[str] | None = None,
    empty: bool = True,
    rate: int | None = None,
    progress: Progress | None = None,
) -> None:
    """Write the contents of the qcow2 image at path into its backing file, and empty the image; durable on return.

    references is the result of allow_references(). base names the file of the backing chain that gets the contents of
    all images above it, relative to the directory of the image that names it; None means the next one. Images between
    path and base then have other contents than before and must not be used. empty=False leaves the image as it is, as
    does a base that is not the next file. A smaller base grows to the size of the image. rate limits the bytes that are
    written per second. progress is called with the bytes that are done and their total.

    Both files are locked and refused as by open_disk(), and other files of the chain are refused if another program
    writes them. After an interruption the image has the contents that it had, and commit() may be called again.

    Raises UnsupportedImageError if there is no backing file or base is not in the chain, and what opening, reading
    and writing raise.

    >>> from pydiskimg import allow_references, commit, new_overlay, open_image_disk
    >>> new_overlay("top.qcow2", 64 << 20, backing_file=b"disk.raw", backing_format=b"raw")
    >>> with allow_references(".") as references:
    ...     with open_image_disk("top.qcow2", references=references) as disk:
    ...         disk.write(512, b"changed")
    ...     commit("top.qcow2", references=references)
    >>> with open("disk.raw", "rb") as file:
    ...     file.read(519)[512:]
    b'changed'
    """
    with ExitStack() as stack:
        disk = stack.enter_context(open_raw_disk(os.fspath(path), writable=True))
        opened = stack.enter_context(ExitStack())
        top, depth, below = _open_top(opened, disk, base, references)
        if below.size < top.size:
            resize_image(file_of(below).name, lambda _: top.size, format=below.format, references=references)
            opened.close()  # its tables have moved, and the old ones may be overwritten
            top, depth, below = _open_top(opened, disk, base, references)
        target = _open_base(stack, below, references)
        meter = Meter(progress)
        meter.begin(_changes(top, depth), counts_zeros=not target.frees_zeros)
        committing = _Committing(top, _paced(target, rate))
        work_on(_changes(top, depth), committing.piece, meter=meter, workers=worker_count(None))
        target.flush()
        if empty and depth == 1:
            cut_file(disk, empty_qcow2(store_of(disk)))


class _Committing:
    def __init__(self, source: Source, disk: Disk) -> None:
        self._source = source
        self._disk = disk
        self._shared = Sharing(source, disk)

    def piece(self, piece: Extent, buffer: memoryview) -> None:
        if piece.kind is not Kind.DATA:
            self._disk.zero(piece.start, piece.length)
            return
        if self._shared.copy(piece):
            return
        view = buffer[: piece.length]
        self._source.read_into(piece.start, view)
        self._disk.write(piece.start, view)


def _open_top(
    opened: ExitStack, disk: DescriptorDisk, base: str | os.PathLike[str] | None, references: AllowedDirectory | None
) -> tuple[Qcow2Source, int, Source]:
    """The image in disk, and depth in the chain and source of the target; files in between are locked."""
    top = open_chain(describe(disk.fd, name=disk.name), opened, references=references, snapshot=None)
    depth, below = _base(top, base)
    lock_files([*backing_sources(top)][: depth - 1])
    return top, depth, below


def _base(top: Qcow2Source, base: str | os.PathLike[str] | None) -> tuple[int, Source]:
    """The depth of the target in the chain, and its source."""
    if top.backing is None:
        raise UnsupportedImageError(f"{top.name}: has no backing file to commit to")
    above = top.name
    for depth, below in enumerate(backing_sources(top), 1):
        # As in QEMU: a name is relative to the directory of the image above the file.
        if base is None or _is_same_file(os.path.join(os.path.dirname(above), base), below.name):
            return depth, below
        above = below.name
    raise UnsupportedImageError(f"{top.name}: {os.fspath(base or '')} is not a file of its backing chain")


def _is_same_file(one: str | os.PathLike[str], other: str) -> bool:
    try:
        return os.path.samefile(one, other)
    except OSError:
        return False


def _open_base(stack: ExitStack, below: Source, references: AllowedDirectory | None) -> Disk:
    """Open a file of the chain, which is open for reading, for writing."""
    file = file_of(below)
    disk = stack.enter_context(open_raw_disk(file.name, writable=True))
    status = os.fstat(disk.fd)
    if (status.st_dev, status.st_ino) != file.identity:
        raise InUseError(
            f"{file.name}: was replaced by another file while it was opened", errno=None, filename=file.name
        )
    return FORMATS[below.format].open_disk(stack, disk, references=references, compress=False, writable=True)


def _paced(disk: Disk, rate: int | None) -> Disk:
    if not rate:
        return disk
    from pydiskimg.transfer.paced import PacedDisk

    return PacedDisk(disk, rate)


def _changes(top: Qcow2Source, depth: int) -> Iterator[Extent]:
    """Yield the contents of the images above depth, as DATA of at most 2 MiB in one L2 table's range, and ZERO."""
    start = end = 0
    kind = Kind.DATA
    for row_start, length, row_depth, flags, _ in map_rows(top, 0, top.size)[1]:
        if row_depth >= depth or not flags & IS_PRESENT:
            continue
        row_kind = Kind.ZERO if flags & IS_ZERO else Kind.DATA
        if row_start != end or row_kind is not kind:
            yield from _cut(start, end, kind)
            start, kind = row_start, row_kind
        end = row_start + length
    yield from _cut(start, end, kind)


def _cut(start: int, end: int, kind: Kind) -> Iterator[Extent]:
    return cut(start, end, CHUNK_SIZE if kind is Kind.DATA else ZERO_CHUNK_SIZE, kind)
