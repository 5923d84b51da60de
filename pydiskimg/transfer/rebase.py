# SPDX-License-Identifier: MIT
"""rebase(): an image stands on another backing file, and shows what it did.

    top      |  A  |     |     |     |          |  A  |     |  g  |     |    g differs: it is written into top
    old      |  e  |  f  |  g  |  h  |    ->
    new      |  x  |  f  |  y  |  h  |          |  x  |  f  |  y  |  h  |

What the image does not hold is compared, cluster by cluster; the header names the new file when all that differs is
durable.
"""

from __future__ import annotations

import os
from contextlib import ExitStack

from pydiskimg.disks.open import enter_raw_disk
from pydiskimg.disks.store import store_of
from pydiskimg.errors import InUseError, UnsupportedImageError
from pydiskimg.extents import Extent, Kind
from pydiskimg.images.chain import backing_sources, file_of, open_chain, open_chain_disk
from pydiskimg.images.map import IS_PRESENT, map_rows
from pydiskimg.images.open import open_image
from pydiskimg.images.qcow2.host_offsets import IS_ZERO
from pydiskimg.images.qcow2.reader import Qcow2Source
from pydiskimg.images.qcow2.switch.backing import name_backing_file
from pydiskimg.images.raw import describe
from pydiskimg.startup import TYPE_CHECKING
from pydiskimg.transfer.pieces import CHUNK_SIZE, cut
from pydiskimg.transfer.workers import Meter, work_on, worker_count

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from pydiskimg.images.qcow2.write.disk import Qcow2Disk
    from pydiskimg.images.references import AllowedDirectory
    from pydiskimg.protocols import ImageSource, Progress, Source


def rebase(
    path: str | os.PathLike[str],
    backing: str,
    *,
    backing_format: str | None,
    references: AllowedDirectory | None,
    progress: Progress | None = None,
) -> None:
    """Let the qcow2 image at path stand on another backing file, and show the same bytes as before; durable on return.

    backing is the name that the image gets, relative to its own directory; "" lets it stand on none, and it then holds
    everything itself. The caller names that file, so it is opened; backing_format is its format, raw or qcow2, which
    the image records (None: by the contents). references are the files that the old chain, and the new one below
    backing, may name, as for open_image(). progress counts the bytes of the disk.

    The image is locked and refused as open_disk() does. After an interruption it stands on the old file and shows the
    same; rebase() may be called again. Raises what opening, reading and writing raise.
    """
    with ExitStack() as stack:
        disk = enter_raw_disk(stack, os.fspath(path), writable=True)
        opened = stack.enter_context(ExitStack())
        old = open_chain(describe(disk.fd, name=disk.name), opened, references=references, snapshot=None)
        new = _open_new(stack, disk.name, backing, backing_format, references)
        _refuse_itself(new, disk.name)
        top = open_chain_disk(stack, disk, references=references, compress=False, writable=True)
        meter = Meter(progress, 0 if progress is None else sum(piece.length for piece in _shown(old, new)))
        keeping = _Keeping(old, new, top)
        work_on(_shown(old, new), keeping.piece, meter=meter, workers=worker_count(None))
        top.flush()
        form = "" if new is None else backing_format or new.format
        name_backing_file(store_of(disk), os.fsencode(backing), form.encode())


def rename_backing(path: str | os.PathLike[str], backing: str, *, backing_format: str) -> None:
    """Let the qcow2 image at path name another backing file, or none (""), and compare nothing: `rebase -u`.

    The image shows the same only when the files hold the same, which is the caller's word.
    """
    with ExitStack() as stack:
        disk = enter_raw_disk(stack, os.fspath(path), writable=True)
        name_backing_file(store_of(disk), os.fsencode(backing), backing_format.encode())


class _Keeping:
    """Writes what a piece shows into the image, where the new backing file shows something else."""

    def __init__(self, old: Source, new: Source | None, top: Qcow2Disk) -> None:
        self._old = old
        self._new = new
        self._top = top
        self._unit = top.unit

    def piece(self, piece: Extent, buffer: memoryview) -> None:
        half = len(buffer) // 2
        for at in range(piece.start, piece.end, half):
            length = min(half, piece.end - at)
            self._keep(at, buffer[:length], buffer[half : half + length])

    def _keep(self, at: int, wanted: memoryview, found: memoryview) -> None:
        self._old.read_into(at, wanted)
        _read_or_zero(self._new, at, found)
        if wanted == found:
            return
        start = None
        for offset in range(0, len(wanted), self._unit):
            stop = min(offset + self._unit, len(wanted))
            if wanted[offset:stop] != found[offset:stop]:
                start = offset if start is None else start
            elif start is not None:
                self._top.write(at + start, wanted[start:offset])
                start = None
        if start is not None:
            self._top.write(at + start, wanted[start:])


def _read_or_zero(source: Source | None, at: int, buffer: memoryview) -> None:
    """Fill buffer; what lies beyond the end of source, or without one, is zero."""
    known = 0 if source is None else max(0, min(len(buffer), source.size - at))
    if source is not None and known:
        source.read_into(at, buffer[:known])
    if known < len(buffer):
        buffer[known:] = bytes(len(buffer) - known)


def _open_new(
    stack: ExitStack, image: str, backing: str, form: str | None, references: AllowedDirectory | None
) -> ImageSource | None:
    if not backing:
        return None
    if ":" in backing.partition("/")[0]:
        raise UnsupportedImageError(
            f"{backing}: is the name of a protocol to QEMU, and only files are opened; write it unseen with -u"
        )
    path = os.path.join(os.path.dirname(image), backing)
    return stack.enter_context(open_image(path, format=form, references=references))


def _refuse_itself(new: ImageSource | None, name: str) -> None:
    for path in () if new is None else new.files():
        if os.path.exists(path) and os.path.samefile(path, name):
            raise InUseError(f"{name}: cannot stand on itself, and {path} is the same file", errno=None, filename=name)


def _shown(old: Qcow2Source, new: Source | None) -> Iterator[Extent]:
    """Yield the pieces of the disk that the image does not hold, and that the new backing file may show otherwise.

    Pieces begin and end at clusters of the image, or at the disk's end.
    """
    unit, start, end = old.cluster_size, 0, 0
    for first, stop in _ranges(old, new):
        if first // unit * unit > end:
            yield from cut(start, end, CHUNK_SIZE, Kind.DATA)
            start = first // unit * unit
        end = min(old.size, -(-stop // unit) * unit)
    yield from cut(start, end, CHUNK_SIZE, Kind.DATA)


def _ranges(old: Qcow2Source, new: Source | None) -> Iterator[tuple[int, int]]:
    """Yield [start, end) of them, ascending: what is zero in both is left out, and what one file shows in both."""
    common = _depth_of(new, old)
    data = _Data(new)
    for start, length, depth, flags, _ in map_rows(old, 0, old.size)[1]:
        is_held = depth == 0 and flags & IS_PRESENT
        if is_held or (common is not None and depth >= common):
            continue
        if flags & IS_ZERO:
            yield from data.within(start, start + length)
        else:
            yield start, start + length


class _Data:
    """Where a source has data, asked for in ascending order; None has none."""

    def __init__(self, source: Source | None) -> None:
        extents: Iterable[Extent] = () if source is None else source.extents()
        self._extents = (extent for extent in extents if extent.kind is Kind.DATA)
        self._next = next(self._extents, None)

    def within(self, start: int, end: int) -> Iterator[tuple[int, int]]:
        """Yield [start, end) of the data there."""
        while self._next is not None and self._next.start < end:
            if self._next.end > start:
                yield max(start, self._next.start), min(end, self._next.end)
            if self._next.end > end:
                return
            self._next = next(self._extents, None)


def _depth_of(new: Source | None, old: Qcow2Source) -> int | None:
    """How deep in the old chain the new backing file is, which then shows what it did; None when it is not there."""
    if new is None:
        return None
    own = file_of(new).identity
    return next((depth for depth, layer in enumerate(backing_sources(old), 1) if file_of(layer).identity == own), None)
