# SPDX-License-Identifier: MIT
"""The inodes that a crash left to be deleted or truncated: in a list through their i_dtime, or in the orphan file."""

from __future__ import annotations

from collections.abc import Iterator

from pydiskimg.crc32c import crc32c
from pydiskimg.fs.ext4 import layout
from pydiskimg.fs.ext4.features import Compat, RoCompat
from pydiskimg.fs.ext4.file_system import FileSystem, NotBelievedError
from pydiskimg.fs.ext4.inodes import StoredInode, read_inode
from pydiskimg.fs.ext4.map_reader import file_pieces, pointers_in

_MAX_ORPHANS = 1 << 16


def orphans(fs: FileSystem) -> frozenset[int]:
    """Return the inodes that a crash left to be deleted or truncated.

    Raises NotBelievedError for an endless list, and as reading does.
    """
    found = set(listed_orphans(fs))
    if RoCompat.ORPHAN_PRESENT in fs.geometry.features:
        for _, block in orphan_blocks(fs):
            found.update(pointers_in(block[: -layout.ORPHAN_TAIL.size]))
    return frozenset(found - {0})


def listed_orphans(fs: FileSystem) -> list[int]:
    """Return those in the list, in its order. Errors as for orphans()."""
    found: dict[int, None] = {}
    number = fs.superblock.number("s_last_orphan")
    while number:
        if number in found or len(found) >= _MAX_ORPHANS:
            raise fs.not_believed(f"its list of orphans returns to inode {number}, or is longer than {_MAX_ORPHANS}")
        found[number] = None
        number = int(read_inode(fs, number).fields["i_dtime"])
    return list(found)


def orphan_inode(fs: FileSystem) -> StoredInode:
    """Return the inode of the orphan file. Raises as read_inode() does."""
    return read_inode(fs, fs.superblock.number("s_orphan_file_inum"))


def orphan_blocks(fs: FileSystem) -> Iterator[tuple[int, bytes]]:
    """Yield (location, contents) of the blocks of the orphan file; errors as for reading its map."""
    size = fs.geometry.block_size
    for _, at, count in file_pieces(fs, orphan_inode(fs), _MAX_ORPHANS * 4 // size + 1):
        for block in range(at, at + count):
            yield block, fs.read(block)


def orphan_file_problem(fs: FileSystem) -> str | None:
    """Return the damage of the orphan file as a clause, or None; errors as for reading."""
    if Compat.ORPHAN_FILE not in fs.geometry.features:
        return None
    try:
        seed = orphan_inode(fs).seed
        for number, block in orphan_blocks(fs):
            tail = layout.ORPHAN_TAIL.unpack(block, len(block) - layout.ORPHAN_TAIL.size)
            if tail["ob_magic"] != layout.ORPHAN_MAGIC:
                return f"block {number} of its orphan file has no magic"
            if fs.checksums.active and tail["ob_checksum"] != orphan_checksum(seed, number, block):
                return f"the checksum of block {number} of its orphan file is wrong"
            is_empty = not any(block[: -layout.ORPHAN_TAIL.size])
            if not is_empty and RoCompat.ORPHAN_PRESENT not in fs.geometry.features:
                return "its orphan file has entries, although its superblock says that it has none"
    except NotBelievedError as error:
        return error.reason
    return None


def orphan_checksum(seed: int, number: int, block: bytes) -> int:
    """Return the correct ob_checksum of a block of the orphan file; seed is that file's."""
    return crc32c(block[: -layout.ORPHAN_TAIL.size], crc32c(number.to_bytes(8, "little"), seed))
