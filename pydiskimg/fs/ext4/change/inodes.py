# SPDX-License-Identifier: MIT
"""Change and make inodes: their fields, times and checksums (inodes.rst)."""

from __future__ import annotations

import errno
from collections.abc import Mapping

from pydiskimg.fs.ext4 import layout
from pydiskimg.fs.ext4.change.transaction import Transaction, WriteOrder
from pydiskimg.fs.ext4.features import Incompat, RoCompat
from pydiskimg.fs.ext4.file_system import FileSystem
from pydiskimg.fs.ext4.inode_fields import owner_fields, time_fields
from pydiskimg.fs.ext4.inodes import StoredInode, group_of_inode, inode_name, inode_table, intact_inode, read_inode
from pydiskimg.fs.ext4.tree.files import RefusedError
from pydiskimg.fs.ext4.xattrs import StoredName, Xattrs, points_back
from pydiskimg.records import Value

_SET_GROUP = 0o2000
_KNOWN = 1 << 10  # inodes; 2 MB
# i_flags that a new file inherits: a directory all of them, other files not all (EXT4_FL_INHERITED).
_FOR_DIRECTORIES = 0x2001C4CF
_FOR_FILES = 0x0000C4CF
_FOR_OTHERS = 0x000000C0
_GENERATION = layout.INODE.slice_of("i_generation")
_ENDS = {name: layout.INODE.slice_of(name).stop for name in layout.INODE.names}


def changed(inode: StoredInode, values: Mapping[str, Value]) -> StoredInode:
    """Return an inode with other fields; fields for which it has no room are left out."""
    raw = bytearray(inode.raw)
    end, more = layout.GOOD_OLD_INODE_SIZE, 0
    if len(raw) > end:  # the first of the larger fields is the size of the area in use
        more = _ENDS["i_extra_isize"]
        end += int(values.get("i_extra_isize", inode.extra_size))
    if end < layout.INODE.size:
        values = {name: value for name, value in values.items() if _ENDS[name] <= end or _ENDS[name] == more}
    layout.INODE.put(raw, values)
    return inode.with_raw(bytes(raw))


def store(transaction: Transaction, inode: StoredInode, *, order: WriteOrder = WriteOrder.OTHERS) -> None:
    """Put an inode into its table; order as for Transaction.put()."""
    raw = bytearray(inode.raw)
    transaction.usage.stored(lambda: read_inode(transaction.fs, inode.number), inode)
    transaction.fs.checksums.inode(inode.seed, raw)
    transaction.patch(inode.block, inode.offset, raw, order=order)
    _remember(transaction, inode)


def load(transaction: Transaction, number: int) -> StoredInode:
    """Return the current inode; raises as read_inode() does."""
    inode = transaction.known_inodes.get(number)
    if inode is None:
        fs = transaction.fs
        block, offset = _position(transaction, number)
        # A changed block is in memory, and removing a directory changes all inodes of a block.
        raw = transaction.read(block)[offset : offset + fs.geometry.inode_size]
        inode = intact_inode(fs, number, (block, offset), raw)
        _remember(transaction, inode)
    return inode


def _position(transaction: Transaction, number: int) -> tuple[int, int]:
    """Return the block of an inode and the offset there. Raises as read_inode() does."""
    fs = transaction.fs
    group, index = group_of_inode(fs, number)
    skipped, offset = divmod(index * fs.geometry.inode_size, fs.geometry.block_size)
    if group not in transaction.inode_tables:
        transaction.inode_tables[group] = inode_table(fs, group)
    return transaction.inode_tables[group] + skipped, offset


def _remember(transaction: Transaction, inode: StoredInode) -> None:
    if len(transaction.known_inodes) >= _KNOWN:
        transaction.known_inodes.clear()
    transaction.known_inodes[inode.number] = inode


def new_inode(
    transaction: Transaction, parent: StoredInode, mode: int, now: int, *, number: int | None = None
) -> StoredInode:
    """Allocate an inode for a new file in the directory parent, which determines group, project and flags; not stored
    yet.

    mode includes the type, and is used unchanged: set-group-id of the directory only passes on the group. The inode has
    one link, a directory's two. number is an inode that was already allocated. Raises as ChangedInodes.allocate() does.
    """
    fs, kind = transaction.fs, mode & layout.FILE_TYPE_MASK
    if number is None:
        number = transaction.inodes.allocate(parent.number, is_directory=kind == layout.DIRECTORY)
    transaction.usage.made(number)
    block, offset = _position(transaction, number)
    stored = transaction.read(block)[offset:]
    # It must differ from that of the previous file with the inode: NFS distinguishes them by it.
    generation = int.from_bytes(stored[_GENERATION], "little") + 1 & 0xFFFFFFFF
    seed = fs.checksums.for_inode(number, generation.to_bytes(4, "little"))
    inode = StoredInode(number, block, offset, bytes(fs.geometry.inode_size), seed)
    values: dict[str, Value] = {
        "i_extra_isize": _extra_size(transaction),
        "i_mode": mode,
        "i_links_count": 2 if kind == layout.DIRECTORY else 1,
        "i_generation": generation,
        "i_flags": _inherited_flags(kind, parent),
        **owner_fields(0, parent.gid if parent.mode & _SET_GROUP else 0),
        **time_fields(now, "i_atime", "i_ctime", "i_mtime", "i_crtime"),
    }
    if RoCompat.PROJECT in fs.geometry.features and parent.flags & layout.PROJECT_INHERIT_FLAG:
        values["i_projid"] = parent.project
    return changed(inode, values)


def _inherited_flags(kind: int, parent: StoredInode) -> int:
    masks = {layout.DIRECTORY: _FOR_DIRECTORIES, layout.REGULAR_FILE: _FOR_FILES}
    return parent.flags & masks.get(kind, _FOR_OTHERS)


def _extra_size(transaction: Transaction) -> int:
    """Return the bytes beyond the first 128 for fields: as many as the superblock wants, if that is valid."""
    room = transaction.fs.geometry.inode_size - layout.GOOD_OLD_INODE_SIZE
    wanted = transaction.fs.superblock.number("s_want_extra_isize")
    if wanted % 4 or not 4 <= wanted <= room:
        wanted = layout.INODE_EXTRA_SIZE
    return min(wanted, room)


def named_values(fs: FileSystem, inode: StoredInode) -> list[tuple[StoredName, int, int, bool]]:
    """Return the attributes of an inode with values in other inodes, as Xattrs.references(); those are not read."""
    if Incompat.EA_INODE not in fs.geometry.features:
        return []

    def refuse(_number: int, _size: int) -> bytes:
        raise AssertionError("values are not read")

    return Xattrs(fs, refuse).references(inode)


def value_references(fs: FileSystem, inode: StoredInode) -> list[tuple[StoredName, int, int, bool]]:
    """Return the result of named_values(), whose inodes are read.

    Raises RefusedError for a value of Lustre's kind: it counts for no file, and refers to its file by the number.
    """
    found = named_values(fs, inode)
    for number in {number for _, number, _, _ in found}:
        if points_back(read_inode(fs, number), inode):
            raise RefusedError(
                f"cannot be changed: {inode_name(inode.number)} has an extended attribute with its value in inode "
                f"{number} as Lustre wrote it, which is read here and not written",
                errno.EOPNOTSUPP,
            )
    return found


def value_blocks(transaction: Transaction, inode: StoredInode) -> int:
    """Return the blocks that values in other inodes add to an inode's count."""
    return sum(size_in_blocks(transaction, size) for _, _, size, _ in value_references(transaction.fs, inode))


def size_in_blocks(transaction: Transaction, size: int) -> int:
    """Return the blocks for that many bytes, in whole clusters."""
    geometry = transaction.fs.geometry
    return -(-size // (geometry.block_size * geometry.cluster_blocks)) * geometry.cluster_blocks
