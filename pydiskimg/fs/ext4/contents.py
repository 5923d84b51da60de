# SPDX-License-Identifier: MIT
"""The contents of a file as a Source: sparse if the file is, readable at any offset."""

from __future__ import annotations

from _bisect import bisect_right  # bisect.py only re-exports it, and takes 0.1 ms

from pydiskimg.fs.ext4 import layout
from pydiskimg.fs.ext4.file_system import FileSystem
from pydiskimg.fs.ext4.inodes import StoredInode, inode_name
from pydiskimg.fs.ext4.map_reader import file_pieces
from pydiskimg.protocols import FileRange, Source, WritableBuffer, check_buffer
from pydiskimg.startup import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator, MutableSequence
    from typing import TypeAlias

    from pydiskimg.extents import Extent

_FEW_PIECES = 1 << 7  # which may take more memory
_MAX_PIECES = 1 << 22  # 24 bytes of memory each
_MAX_RANGES = 1 << 12
_MAX_SIZE = 1 << 63

_Numbers: TypeAlias = "MutableSequence[int]"


class FileSource(Source):
    """The bytes of a file in blocks of its file system. Raises NotBelievedError when its map is damaged."""

    name: str
    size: int

    def __init__(self, fs: FileSystem, inode: StoredInode, *, name: str) -> None:
        self.name = name
        self.size = file_size(fs, inode)
        self._fs = fs
        self._inode = inode
        self._map: tuple[_Numbers, _Numbers, _Numbers] | None = None

    def runs(self) -> Iterator[tuple[int, int, int]]:
        """Yield (offset in the file, offset in the file system's source, length) of the stored parts, in bytes."""
        size = self._fs.geometry.block_size
        for first, at, count in file_pieces(self._fs, self._inode, -(-self.size // size)):
            start = first * size
            yield start, at * size, min(count * size, self.size - start)

    def stored_pieces(self, buffer: memoryview) -> Iterator[tuple[int, memoryview]]:
        """Yield (offset, bytes) of the stored parts, ascending, each in the buffer and valid until the next one."""
        most, read_into = len(buffer), self._fs.source.read_into
        for start, at, length in self.runs():
            for done in range(0, length, most):
                chunk = buffer[: min(most, length - done)]
                read_into(at + done, chunk)
                yield start + done, chunk

    def file_ranges(self, offset: int, length: int) -> list[FileRange] | None:
        found: list[FileRange] = []
        due, end = offset, offset + length
        for start, at, stored in self.runs():
            if due == end or start > due:
                break
            if start + stored <= due:
                continue
            taken = min(start + stored, end) - due
            ranges = self._fs.source.file_ranges(at + due - start, taken)
            if ranges is None or len(found) >= _MAX_RANGES:
                return None
            found += ranges
            due += taken
        return found if due == end else None

    def extents(self) -> Iterator[Extent]:
        from pydiskimg.extents import Extent, Kind  # imported here: a file that is read as a whole does not need it

        end, pending = 0, 0  # the end of the bytes yielded so far, and the end of the stored part
        for start, _, length in zip(*self._read_map(), strict=True):
            if start > pending:
                if pending > end:
                    yield Extent(end, pending - end, Kind.DATA)
                yield Extent(pending, start - pending, Kind.HOLE)
                end = start
            pending = start + length
        if pending > end:
            yield Extent(end, pending - end, Kind.DATA)
        if self.size > pending:
            yield Extent(pending, self.size - pending, Kind.HOLE)

    def read_into(self, offset: int, buffer: WritableBuffer) -> None:
        check_buffer(self, offset, buffer)
        end = offset + len(buffer)
        starts, stored, lengths = self._read_map()
        beginning = bisect_right(starts, offset) - 1
        if beginning >= 0 and end <= starts[beginning] + lengths[beginning]:  # most files have one piece
            self._fs.source.read_into(stored[beginning] + offset - starts[beginning], buffer)
            return
        view, done = memoryview(buffer), offset
        for index in range(max(0, beginning), len(starts)):
            first, last = max(starts[index], offset), min(starts[index] + lengths[index], end)
            if first >= end:
                break
            if first >= last:
                continue
            view[done - offset : first - offset] = bytes(first - done)
            self._fs.source.read_into(stored[index] + first - starts[index], view[first - offset : last - offset])
            done = last
        view[done - offset :] = bytes(end - done)

    def _read_map(self) -> tuple[_Numbers, _Numbers, _Numbers]:
        if self._map is None:
            starts: _Numbers
            stored: _Numbers
            lengths: _Numbers
            starts, stored, lengths = [], [], []
            for start, at, length in self.runs():
                starts.append(start)
                stored.append(at)
                lengths.append(length)
                if len(starts) == _FEW_PIECES:
                    from array import array  # imported here: it imports collections.abc, which takes 2 ms

                    starts, stored, lengths = (array("Q", numbers) for numbers in (starts, stored, lengths))
                elif len(starts) > _MAX_PIECES:
                    name = inode_name(self._inode.number)
                    raise self._fs.not_believed(f"{name}: it is in more than {_MAX_PIECES} pieces")
            self._map = starts, stored, lengths
        return self._map


class InlineSource(Source):
    """The bytes of a file that are in its inode."""

    name: str
    size: int

    def __init__(self, data: bytes, *, name: str) -> None:
        self.name = name
        self.size = len(data)
        self._data = data

    def extents(self) -> Iterator[Extent]:
        from pydiskimg.extents import Extent, Kind

        if self.size:
            yield Extent(0, self.size, Kind.DATA)

    def stored_pieces(self, buffer: memoryview) -> Iterator[tuple[int, memoryview]]:
        """As FileSource.stored_pieces(); the buffer is not used, because the bytes are in memory."""
        del buffer
        if self.size:
            yield 0, memoryview(self._data)

    def read_into(self, offset: int, buffer: WritableBuffer) -> None:
        check_buffer(self, offset, buffer)
        memoryview(buffer)[:] = self._data[offset : offset + len(buffer)]


def file_size(fs: FileSystem, inode: StoredInode) -> int:
    """Return a file's size in bytes. Raises NotBelievedError for an impossible size."""
    if inode.size >= _MAX_SIZE:
        raise fs.not_believed(f"{inode_name(inode.number)}: it has {inode.size} bytes, more than a file can have")
    return inode.size


def file_contents(fs: FileSystem, inode: StoredInode, inline_data: bytes, *, name: str) -> FileSource | InlineSource:
    """Return the contents of a file; inline_data is the part in its inode after i_block.

    Raises NotBelievedError for an impossible size; reading the contents raises it if the map is damaged.
    """
    if not inode.flags & layout.INLINE_DATA_FLAG:
        return FileSource(fs, inode, name=name)
    size = file_size(fs, inode)
    if size > fs.geometry.block_size:
        raise fs.not_believed(f"{inode_name(inode.number)}: it has {size} bytes inside the inode")
    return InlineSource((inode.i_block + inline_data)[:size].ljust(size, b"\0"), name=name)
