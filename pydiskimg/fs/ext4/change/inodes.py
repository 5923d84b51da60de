# SPDX-License-Identifier: MIT
"""Inodes changed and made: their fields, times and checksums (inodes.rst)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from pydiskimg.fs.ext4 import layout
from pydiskimg.fs.ext4.change.transaction import Transaction
from pydiskimg.fs.ext4.features import RoCompat
from pydiskimg.fs.ext4.inodes import StoredInode, group_of_inode, inode_table
from pydiskimg.protocols import read_bytes
from pydiskimg.records import Value

_SET_GROUP = 0o2000
# i_flags that a new file has from its directory: a directory all of them, other files not all (EXT4_FL_INHERITED).
_FOR_DIRECTORIES = 0x2001C4CF
_FOR_FILES = 0x0000C4CF
_FOR_OTHERS = 0x000000C0


def changed(inode: StoredInode, values: Mapping[str, Value]) -> StoredInode:
    """Return an inode with other fields; those that it has no room for are left out."""
    raw = bytearray(inode.raw)
    end = layout.GOOD_OLD_INODE_SIZE
    if len(raw) > end:
        end += int(values.get("i_extra_isize", inode.extra_size))
    for name, value in values.items():
        # The size of what is used beyond the first 128 bytes is itself the first thing there.
        if layout.INODE.slice_of(name).stop <= end or (name == "i_extra_isize" and len(raw) > end):
            layout.INODE.put(raw, {name: value})
    fields = layout.INODE.unpack(bytes(raw).ljust(layout.INODE.size, b"\0"))
    return replace(inode, raw=bytes(raw), fields=fields)


def store(transaction: Transaction, inode: StoredInode, *, is_last: bool = False) -> None:
    """Put an inode into its table; is_last as for Transaction.put()."""
    raw = bytearray(inode.raw)
    transaction.fs.checksums.inode(inode.seed, raw)
    transaction.patch(inode.block, inode.offset, raw, is_last=is_last)


def times(at: int, *names: str) -> dict[str, Value]:
    """Return the fields of times (i_mtime, ...) that say at, in nanoseconds since 1970."""
    seconds, nanoseconds = divmod(at, 1_000_000_000)
    # The low half is read as a signed number; the epoch bits say how often 2^32 seconds are to be added to that.
    epoch = (seconds + (1 << 31) >> 32) & 3
    fields: dict[str, Value] = {}
    for name in names:
        fields |= {name: seconds & 0xFFFFFFFF, f"{name}_extra": nanoseconds << 2 | epoch}
    return fields


def owners(uid: int, gid: int) -> dict[str, Value]:
    return {"i_uid": uid & 0xFFFF, "i_uid_high": uid >> 16, "i_gid": gid & 0xFFFF, "i_gid_high": gid >> 16}


def size_fields(size: int) -> dict[str, Value]:
    return {"i_size_lo": size & 0xFFFFFFFF, "i_size_high": size >> 32}


def new_inode(transaction: Transaction, parent: StoredInode, mode: int, now: int) -> StoredInode:
    """Take an inode for a new file in the directory parent, which decides on group, project and flags; not stored yet.

    mode has the type, and is the file's as it is: set-group-id of the directory hands on the group alone. The inode has
    one link, a directory's two. Raises as ChangedInodes.allocate() does.
    """
    fs, kind = transaction.fs, mode & layout.FILE_TYPE_MASK
    number = transaction.inodes.allocate(parent.number, is_directory=kind == layout.DIRECTORY)
    group, index = group_of_inode(fs, number)
    skipped, offset = divmod(index * fs.geometry.inode_size, fs.geometry.block_size)
    block = inode_table(fs, group) + skipped
    at = block * fs.geometry.block_size + offset + layout.INODE.offsets["i_generation"]
    # Another one than that of the file that had the inode before, by which NFS tells them apart.
    generation = int.from_bytes(read_bytes(fs.source, at, 4), "little") + 1 & 0xFFFFFFFF
    seed = fs.checksums.for_inode(number, generation.to_bytes(4, "little"))
    inode = StoredInode(number, block, offset, bytes(fs.geometry.inode_size), {}, seed)
    values: dict[str, Value] = {
        "i_extra_isize": _extra_size(transaction),
        "i_mode": mode,
        "i_links_count": 2 if kind == layout.DIRECTORY else 1,
        "i_generation": generation,
        "i_flags": _inherited_flags(kind, parent),
        **owners(0, parent.gid if parent.mode & _SET_GROUP else 0),
        **times(now, "i_atime", "i_ctime", "i_mtime", "i_crtime"),
    }
    if RoCompat.PROJECT in fs.geometry.features and parent.flags & layout.PROJECT_INHERIT_FLAG:
        values["i_projid"] = parent.project
    return changed(replace(inode, fields=layout.INODE.unpack(bytes(layout.INODE.size))), values)


def _inherited_flags(kind: int, parent: StoredInode) -> int:
    masks = {layout.DIRECTORY: _FOR_DIRECTORIES, layout.REGULAR_FILE: _FOR_FILES}
    return parent.flags & masks.get(kind, _FOR_OTHERS)


def _extra_size(transaction: Transaction) -> int:
    """Return the bytes beyond the first 128 that fields take: those that the superblock wants, if they make sense."""
    room = transaction.fs.geometry.inode_size - layout.GOOD_OLD_INODE_SIZE
    wanted = transaction.fs.superblock.number("s_want_extra_isize")
    if wanted % 4 or not 4 <= wanted <= room:
        wanted = layout.INODE_EXTRA_SIZE
    return min(wanted, room)
