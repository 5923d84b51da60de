# SPDX-License-Identifier: MIT
"""The entries of a directory in the order in which they are stored (directory.rst).

The tree of hashes is not followed: its leaves are blocks of entries as in any directory, and its other blocks look like
one unused entry. Names that are compared without case are stored as they were given.
"""

from __future__ import annotations

from pydiskimg.fs.ext4 import layout
from pydiskimg.fs.ext4.features import Compat, Incompat
from pydiskimg.fs.ext4.file_system import FileSystem, NotBelievedError
from pydiskimg.fs.ext4.inodes import StoredInode, inode_name
from pydiskimg.fs.ext4.map_reader import file_pieces
from pydiskimg.startup import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

NamedInode = tuple[bytes, int, int]
"""The name of an entry, its inode's number, and the file type in the entry (0: not stored)."""

_ENTRY = layout.DIRECTORY_ENTRY
_SMALLEST = 12
_OWN_NAMES = (b".", b"..")
_INLINE_PARENT = 4  # bytes: the inode of the parent directory
_LARGE_BLOCK = 1 << 16


def directory_entries(fs: FileSystem, inode: StoredInode, inline_data: bytes = b"") -> Iterator[NamedInode]:
    """Yield the entries of a directory except "." and "..", one block at a time; errors as for directory_blocks()."""
    for block in directory_blocks(fs, inode, inline_data):
        yield from block_entries(fs, inode, block)


def block_entries(
    fs: FileSystem, inode: StoredInode, block: bytes, wanted: bytes | None = None
) -> Iterator[NamedInode]:
    """Yield the entries in the blocks of directory_blocks(); only those named wanted, if given.

    Raises NotBelievedError.
    """
    if wanted is not None and wanted not in block:
        return
    has_types = Incompat.FILETYPE in fs.geometry.features
    is_large = len(block) == _LARGE_BLOCK
    position, size = 0, len(block)
    while position < size:
        if size - position < _ENTRY.size:
            raise _damaged(fs, inode, "its last entry does not end at the end of its block")
        number, length, name_length, kind = _ENTRY.values(block, position)
        if is_large:
            length = _LARGE_BLOCK if length in (0, 0xFFFF) else length & 0xFFFC | (length & 3) << 16
        end = position + length
        if length < _SMALLEST or length % 4 or end > size or (number and name_length + _ENTRY.size > length):
            raise _damaged(fs, inode, f"it has an entry of {length} bytes with a name of {name_length}")
        if number:
            name = block[position + _ENTRY.size : position + _ENTRY.size + name_length]
            if name not in _OWN_NAMES and (wanted is None or name == wanted):
                _check_name(fs, inode, name)
                yield name, number, kind if has_types else 0
        position = end


def directory_blocks(fs: FileSystem, inode: StoredInode, inline_data: bytes = b"") -> Iterator[bytes]:
    """Yield the areas with a directory's entries: its blocks, whose checksums are checked, or the two parts in the
    inode.

    inline_data is the part of an inline directory after i_block. Raises NotBelievedError if the directory is damaged,
    and as reading does.
    """
    if inode.flags & layout.INLINE_DATA_FLAG:
        if inode.size > len(inode.i_block) + len(inline_data):
            raise _damaged(fs, inode, f"it has {inode.size} bytes, more than the inode holds")
        yield inode.i_block[_INLINE_PARENT : min(inode.size, len(inode.i_block))]
        yield inline_data[: max(0, inode.size - len(inode.i_block))]
        return
    size, due = fs.geometry.block_size, 0
    count, rest = divmod(inode.size, size)
    if rest or not count:
        raise _damaged(fs, inode, f"it is a directory of {inode.size} bytes, with blocks of {size}")
    for first, at, length in file_pieces(fs, inode, count):
        for number in range(length):
            if first + number != due:
                raise _damaged(fs, inode, f"block {due} of the directory is missing")
            yield checked_block(fs, inode, due, at + number)
            due += 1
    if due != count:
        raise _damaged(fs, inode, f"it has {due} of the {count} blocks of its directory")


def checked_block(fs: FileSystem, inode: StoredInode, number: int, at: int) -> bytes:
    """Return block number of a directory, which is block at of the file system.

    Raises NotBelievedError if its checksum is wrong.
    """
    block = fs.read(at)
    table = hash_table(fs, inode, number, block)
    checksums = fs.checksums
    holds = (
        checksums.directory_block_holds(inode.seed, block)
        if table is None
        else checksums.index_block_holds(inode.seed, block, table)
    )
    if not holds:
        raise _damaged(fs, inode, f"the checksum of block {number} of the directory is wrong")
    return block


def hash_table(fs: FileSystem, inode: StoredInode, number: int, block: bytes) -> int | None:
    """Return the byte of a directory's block where the table of hashes begins; None for a block of entries."""
    if not inode.flags & layout.INDEX_FLAG or Compat.DIR_INDEX not in fs.geometry.features:
        return None
    if not number:
        return layout.DX_ROOT.offsets["reserved_zero"] + int(layout.DX_ROOT.unpack(block)["info_length"])
    first, length, *_ = _ENTRY.values(block)
    return layout.DX_NODE.size if not first and length in (len(block), 0xFFFF, 0) else None


def _check_name(fs: FileSystem, inode: StoredInode, name: bytes) -> None:
    if not name or b"/" in name or b"\0" in name:
        from pydiskimg.text import quoted  # imported here: nearly all directories are intact

        raise _damaged(
            fs, inode, f"it has an entry with the name {quoted(name, limit=64)}, which is not a valid file name"
        )


def _damaged(fs: FileSystem, inode: StoredInode, what: str) -> NotBelievedError:
    return fs.not_believed(f"{inode_name(inode.number)}: {what}")
