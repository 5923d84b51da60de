# SPDX-License-Identifier: MIT
"""The blocks of files: contents, their maps and attributes are written, read again, and freed."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice

from pydiskimg.files.attributes import ACLS
from pydiskimg.files.entry import Contents, Entry
from pydiskimg.fs.ext4 import layout
from pydiskimg.fs.ext4.features import Incompat
from pydiskimg.fs.ext4.file_system import FileSystem
from pydiskimg.fs.ext4.inodes import StoredInode, stored_inode
from pydiskimg.fs.ext4.map_reader import MapReader, file_pieces
from pydiskimg.fs.ext4.map_writer import MapPiece, extent_tree, pointer_tree
from pydiskimg.fs.ext4.new_file_system import NewFileSystem
from pydiskimg.fs.ext4.populate.contents import write_contents
from pydiskimg.fs.ext4.populate.inode_record import Stored
from pydiskimg.fs.ext4.populate.sequential import SequentialWriter
from pydiskimg.fs.ext4.populate.space import Space
from pydiskimg.fs.ext4.superblock import Superblock
from pydiskimg.fs.ext4.tree.entries import entry_of
from pydiskimg.fs.ext4.tree.files import ExtFiles
from pydiskimg.fs.ext4.xattr_writer import seal_block
from pydiskimg.fs.ext4.xattrs import Xattrs, attribute_name
from pydiskimg.protocols import Buffer


class FileBlocks:
    """Writes the blocks of files of one new file system into free space, one after the other.

    Raises FullError if it is full, and as writing does.
    """

    def __init__(self, new: NewFileSystem) -> None:
        self.space = Space(new.placement, new.disk.name)
        self.block_size = new.geometry.block_size
        self._checksums = new.checksums
        self._output = SequentialWriter(new.writer, self.block_size)
        self._has_extents = Incompat.EXTENTS in new.geometry.features
        self._tree = extent_tree if self._has_extents else pointer_tree
        self._map_flag = layout.EXTENTS_FLAG if self._has_extents else 0
        self.fs = FileSystem(new.disk, Superblock({}), new.geometry, new.checksums)
        self.files = ExtFiles(self.fs)

    def flush(self) -> None:
        """Write the data that is still in memory."""
        self._output.flush()

    def write_file(self, number: int, contents: Contents, size: int) -> Stored:
        """Write the contents of the file with this inode, up to size."""
        pieces = write_contents(contents, size, self.space, self._output, self.block_size)
        return self._mapped(number, pieces, size)

    def write_blocks(self, number: int, blocks: Iterator[Buffer], count: int) -> Stored:
        """Write count whole blocks as the contents of the file with this inode."""
        pieces: list[MapPiece] = []
        done = 0
        while done < count:
            start, end = self.space.allocate(0, count - done)
            self._output.seek(start)
            for block in islice(blocks, end - start):
                self._output.write(block)
            pieces.append((done, start, end - start, True))
            done += end - start
        return self._mapped(number, pieces, count * self.block_size)

    def write_attributes(self, block: bytearray) -> int:
        """Write a block of extended attributes and return its location."""
        at = self._next_block()
        seal_block(block, at, self._checksums)
        self._write(at, block)
        return at

    def stored(self, number: int, inode: bytes) -> StoredInode:
        """Return an inode to be read, after all writes."""
        self._output.flush()
        return stored_inode(self.fs, number, (0, 0), inode)

    def read(self, number: int, inode: bytes, limit: int) -> bytes:
        """Return the contents of a file from its inode, at most limit bytes."""
        stored = self.stored(number, inode)
        size = min(stored.size, limit)
        found = bytearray(size)
        for first, at, count in file_pieces(self.fs, stored, -(-size // self.block_size)):
            start = first * self.block_size
            data = self.fs.read(at, count)[: size - start]
            found[start : start + len(data)] = data
        return bytes(found)

    def attributes(self, number: int, inode: bytes) -> dict[bytes, bytes]:
        """Return a file's extended attributes, without its ACLs."""
        found = Xattrs(self.fs, lambda _inode, _size: b"").of(self.stored(number, inode))
        named = {attribute_name(stored): value for stored, value in found.items()}
        return {name: value for name, value in named.items() if name is not None and name not in ACLS}

    def entry(self, number: int, inode: bytes, path: bytes) -> Entry:
        """Return a file that is not a directory as an entry of this path, from its inode."""
        return entry_of(self.files, self.stored(number, inode), path, self.fs.name)

    def give_back(self, number: int, inode: bytes, *, is_mapped: bool) -> None:
        """Free the blocks of a file: those of its contents (is_mapped), of its map and of its attributes."""
        stored = self.stored(number, inode)
        if is_mapped:
            reader = MapReader(self.fs, stored)
            for _, at, count, _ in reader.pieces():
                self.space.give_back(at, at + count)
            for node in reader.nodes:
                self.space.give_back(node, node + 1)
        self.give_back_attributes(stored.xattr_block)

    def give_back_attributes(self, block: int) -> None:
        """Free a block of attributes; 0: there is none."""
        if block:
            self.space.give_back(block, block + 1)

    def _mapped(self, number: int, pieces: list[MapPiece], size: int) -> Stored:
        encoded = self._tree(pieces, self.block_size, self._next_block)
        blocks = pieces[0][2] if len(pieces) == 1 else sum([count for _, _, count, _ in pieces])
        if encoded.nodes:
            blocks += len(encoded.nodes)
            self._write_nodes(number, encoded.nodes)
        return Stored(encoded.i_block, size, blocks, self._map_flag)

    def _write_nodes(self, number: int, nodes: dict[int, bytearray]) -> None:
        """Write the blocks of the map of the file with this inode."""
        seed = self._checksums.for_inode(number)
        for block, content in nodes.items():
            if self._has_extents:
                self._checksums.extent_block(seed, content)
            self._write(block, content)

    def _next_block(self) -> int:
        return self.space.allocate(0, 1)[0]

    def _write(self, block: int, content: Buffer) -> None:
        self._output.seek(block)
        self._output.write(content)
