# SPDX-License-Identifier: MIT
"""The inodes of a file system that is filled: recently used ones are in memory, the others on the disk."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping

from pydiskimg.fs.ext4 import layout
from pydiskimg.fs.ext4.blocks import BlockWriter
from pydiskimg.fs.ext4.checksums import Checksums
from pydiskimg.fs.ext4.geometry import Geometry
from pydiskimg.fs.ext4.groups import InodeUse
from pydiskimg.fs.ext4.placement import Placement
from pydiskimg.fs.ext4.populate.space import FullError
from pydiskimg.protocols import Disk, read_bytes
from pydiskimg.records import Value

_AT_ONCE = 1024  # inodes; 256 KiB
_KEPT = 32  # pieces of as many inodes: 8 MiB

_Piece = tuple[int, int]


class NewInodeTable:
    """Allocates inodes in order and keeps their contents; save() writes those that are not yet on the disk."""

    def __init__(self, disk: Disk, placement: Placement, checksums: Checksums, writer: BlockWriter) -> None:
        self._disk = disk
        self._geometry: Geometry = placement.geometry
        self._placement = placement
        self._checksums = checksums
        self._writer = writer
        self._size = self._geometry.inode_size
        self._next = layout.FIRST_INODE + 1
        self._returned: list[int] = []
        self._directories: dict[int, int] = {}
        self._pieces: OrderedDict[_Piece, bytearray] = OrderedDict()
        self._saved: set[_Piece] = set()
        self._first = self._end = 0
        self._piece = bytearray()

    @property
    def used(self) -> int:
        """The number of inodes in use, including those of the file system itself."""
        return self._next - 1 - len(self._returned)

    def new(self, *, is_directory: bool) -> int:
        """Allocate an inode and return its number. Raises FullError."""
        number = self._returned.pop() if self._returned else self._next
        if number > self._geometry.inodes:
            raise FullError(f"none of the file system's {self._geometry.inodes} inodes is free", self._disk.name)
        self._next = max(self._next, number + 1)
        if is_directory:
            self.count_directory(number, 1)
        return number

    def count_directory(self, number: int, more: int) -> None:
        group = (number - 1) // self._geometry.inodes_per_group
        self._directories[group] = self._directories.get(group, 0) + more

    def give_back(self, number: int, *, is_directory: bool) -> None:
        """Free an inode."""
        self.put(number, bytes(self._size))
        self._returned.append(number)
        if is_directory:
            self.count_directory(number, -1)

    def get(self, number: int) -> bytes:
        piece, at = self._found(number)
        return bytes(piece[at : at + self._size])

    def put(self, number: int, inode: bytes | bytearray) -> None:
        """Replace an inode; its checksum is set when it is written."""
        piece, at = self._found(number)
        piece[at : at + self._size] = inode

    def patch(self, number: int, values: Mapping[str, Value]) -> None:
        """Change single fields of an inode."""
        piece, at = self._found(number)
        layout.INODE.put(piece, values, at)

    def save(self) -> None:
        """Write all inodes that are in memory. Raises as writing does."""
        while self._pieces:
            self._save_oldest()

    def use(self) -> dict[int, InodeUse]:
        """Return the use of the inodes of each group that has one in use."""
        per_group, end = self._geometry.inodes_per_group, self._next - 1
        free: dict[int, list[int]] = {}
        for number in sorted(self._returned):
            free.setdefault((number - 1) // per_group, []).append((number - 1) % per_group)
        found = {}
        for group in range(-(-end // per_group)):
            runs, start = [], 0
            last = min(end - group * per_group, per_group)
            for index in [*free.get(group, ()), last]:
                if index > start:
                    runs.append((start, index))
                start = index + 1
            if runs:
                found[group] = InodeUse(runs, self._directories.get(group, 0))
        return found

    def _found(self, number: int) -> tuple[bytearray, int]:
        """Return the piece that contains an inode, and the offset in it."""
        if self._first <= number < self._end:  # in the piece of the last call, as most inodes are
            return self._piece, (number - self._first) * self._size
        group, index = divmod(number - 1, self._geometry.inodes_per_group)
        part, within = divmod(index, _AT_ONCE)
        key = group, part
        piece = self._pieces.get(key)
        if piece is None:
            piece = self._loaded(key)
        elif len(self._pieces) > 1:
            self._pieces.move_to_end(key)
        self._first, self._piece = number - within, piece
        self._end = self._first + len(piece) // self._size
        return piece, within * self._size

    def _loaded(self, key: _Piece) -> bytearray:
        while len(self._pieces) >= _KEPT:
            self._save_oldest()
        length = min(_AT_ONCE, self._geometry.inodes_per_group - key[1] * _AT_ONCE) * self._size
        piece = bytearray(read_bytes(self._disk, self._offset(key), length) if key in self._saved else length)
        self._pieces[key] = piece
        return piece

    def _save_oldest(self) -> None:
        key, piece = self._pieces.popitem(last=False)
        self._first = self._end = 0
        group, part = key
        first = group * self._geometry.inodes_per_group + part * _AT_ONCE + 1
        self._checksums.new_inodes(piece, self._size, first)
        self._writer.write_at(self._offset(key), piece)
        self._saved.add(key)

    def _offset(self, key: _Piece) -> int:
        """Return the byte offset of a piece on the disk."""
        group, part = key
        flex, index = divmod(group, self._geometry.flex_size)
        table = self._placement.flex_start(flex) + self._placement.pattern(flex).inode_tables[index]
        return table * self._geometry.block_size + part * _AT_ONCE * self._size
