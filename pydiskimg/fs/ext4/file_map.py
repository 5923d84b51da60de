# SPDX-License-Identifier: MIT
"""Where the blocks of an existing file lie: by extent tree or by block map (ifork.rst); for the journal and /."""

from __future__ import annotations

import sys
from array import array
from collections.abc import Iterator

from pydiskimg.crc32c import crc32c
from pydiskimg.fs.ext4 import layout
from pydiskimg.fs.ext4.checksums import Checksums
from pydiskimg.fs.ext4.descriptors import location_problem, read_descriptor
from pydiskimg.fs.ext4.errors import NotBelievedError
from pydiskimg.fs.ext4.existing import Division
from pydiskimg.protocols import Source, read_bytes

_MAX_DEPTH = 5
_MAX_NODES = 1 << 16  # a file of 2^22 blocks, each an extent of its own, has a quarter of that in blocks of 1 KiB

Run = tuple[int, int, int]
"""Number within the file of the first block, where that is, and the number of blocks."""


def file_runs(source: Source, volume: Division, inode: int, most: int) -> Iterator[Run]:
    """Yield the runs of blocks that make up a file, ascending; of a block map at most the first most blocks.

    inode is the number of an inode in the first group. Raises NotBelievedError when the inode or the map is damaged,
    and as reading does.
    """
    raw, seed = read_inode(source, volume, inode)
    fields = layout.INODE.unpack(raw.ljust(layout.INODE.size, b"\0"))
    i_block, flags = fields["i_block"], fields["i_flags"]
    assert isinstance(i_block, bytes)
    assert isinstance(flags, int)
    reader = _MapReader(source, volume, inode, seed, most)
    yield from reader.extents(i_block) if flags & layout.EXTENTS_FLAG else reader.pointers(i_block)


def read_inode(source: Source, volume: Division, number: int) -> tuple[bytes, int]:
    """Return an inode of the first group, and the start value of the checksums of what belongs to it.

    Raises NotBelievedError when its place or its checksum is wrong, and as reading does.
    """
    descriptor = read_descriptor(source, volume, 0)
    problem = location_problem(volume, descriptor)
    if problem is not None:
        raise NotBelievedError(volume.name, f"group 0, which has inode {number}{_named(number)}: {problem}")
    at = descriptor.inode_table * volume.block_size + (number - 1) * volume.inode_size
    raw = read_bytes(source, at, volume.inode_size)
    checksums = Checksums(volume.checksum_seed, active=volume.has_checksums)
    sealed = bytearray(raw)
    checksums.inode(number, sealed)
    if sealed != raw:
        raise NotBelievedError(volume.name, f"the checksum of inode {number}{_named(number)} does not hold")
    generation = layout.INODE.offsets["i_generation"]
    return raw, checksums.for_inode(number, raw[generation : generation + 4])


def _named(number: int) -> str:
    names = {layout.ROOT_INODE: "root directory", layout.RESIZE_INODE: "resize inode", layout.JOURNAL_INODE: "journal"}
    return f" (the {names[number]})" if number in names else ""


class _MapReader:
    """The map of one file; every block of it that is read is counted, so that a circle ends."""

    def __init__(self, source: Source, volume: Division, inode: int, seed: int, most: int) -> None:
        self._source = source
        self._volume = volume
        self._inode = inode
        self._seed = seed
        self._most = most
        self._nodes = 0

    def extents(self, node: bytes, depth: int | None = None) -> Iterator[Run]:
        """Yield the runs of an extent tree below node, whose depth is known but for the root's."""
        header = layout.EXTENT_HEADER.unpack(node)
        entries, found = int(header["eh_entries"]), int(header["eh_depth"])
        fitting = (len(node) - layout.EXTENT_HEADER.size) // layout.EXTENT.size
        sound = header["eh_magic"] == layout.EXTENT_MAGIC and entries <= fitting
        if not sound or (found != depth if depth is not None else found > _MAX_DEPTH):
            raise self._damaged("its extent tree has no sound header")
        for index in range(entries):
            at = layout.EXTENT_HEADER.size + index * layout.EXTENT.size
            if found:
                entry = layout.EXTENT_INDEX.unpack(node, at)
                block = int(entry["ei_leaf_lo"]) | int(entry["ei_leaf_hi"]) << 32
                yield from self.extents(self._node(block), found - 1)
                continue
            entry = layout.EXTENT.unpack(node, at)
            start, length = int(entry["ee_start_lo"]) | int(entry["ee_start_hi"]) << 32, int(entry["ee_len"])
            if not 0 < length <= layout.EXTENT_MAX_LENGTH:
                raise self._damaged(f"it has an extent of length {length}")
            yield int(entry["ee_block"]), self._checked(start, length), length

    def pointers(self, i_block: bytes) -> Iterator[Run]:
        """Yield the blocks of a block map up to the first hole, neighbours as one run."""
        numbers = _numbers(i_block)
        first = at = count = 0
        for index, block in enumerate(self._mapped(numbers)):
            if not block or index >= self._most:
                break
            if count and block == at + count:
                count += 1
                continue
            if count:
                yield first, self._checked(at, count), count
            first, at, count = index, block, 1
        if count:
            yield first, self._checked(at, count), count

    def _mapped(self, numbers: array[int]) -> Iterator[int]:
        yield from numbers[: layout.DIRECT_BLOCKS]
        for depth in range(3):
            yield from self._indirect(numbers[layout.DIRECT_BLOCKS + depth], depth)

    def _indirect(self, block: int, depth: int) -> Iterator[int]:
        if not block:
            yield 0
            return
        numbers = _numbers(self._node(block, is_extents=False))
        if not depth:
            yield from numbers
            return
        for number in numbers:
            yield from self._indirect(number, depth - 1)

    def _node(self, block: int, *, is_extents: bool = True) -> bytes:
        self._nodes += 1
        if self._nodes > _MAX_NODES:
            raise self._damaged(f"its map has more than {_MAX_NODES} blocks")
        size = self._volume.block_size
        data = read_bytes(self._source, self._checked(block, 1) * size, size)
        if is_extents and self._volume.has_checksums:
            maximum = int(layout.EXTENT_HEADER.unpack(data)["eh_max"])
            tail = layout.EXTENT_HEADER.size + maximum * layout.EXTENT.size
            if tail > size - layout.EXTENT_TAIL.size or crc32c(data[:tail], self._seed) != int(
                layout.EXTENT_TAIL.unpack(data, tail)["et_checksum"]
            ):
                raise self._damaged(f"the checksum of block {block} of its extent tree does not hold")
        return data

    def _checked(self, block: int, count: int) -> int:
        if not self._volume.first_data_block <= block <= self._volume.blocks - count:
            raise self._damaged(f"it names block {block} of {self._volume.blocks}")
        return block

    def _damaged(self, what: str) -> NotBelievedError:
        return NotBelievedError(self._volume.name, f"inode {self._inode}{_named(self._inode)}: {what}")


def _numbers(data: bytes) -> array[int]:
    """Return little-endian numbers of four bytes."""
    numbers = array("I", data)
    assert numbers.itemsize == 4
    if sys.byteorder == "big":
        numbers.byteswap()
    return numbers
