# SPDX-License-Identifier: MIT
"""Attribute values in inodes of their own (ea_inode): made, counted, and freed with the last reference.

Such an inode stores how many attributes refer to it: the high half in i_ctime, the low one in i_version; and the
value's hash in i_atime. Its space counts for each file that has the attribute.

Without a journal both inodes are written and removed by one write if they are in one block. Otherwise that is not
possible: for a value without an attribute, e2fsck -p demands a manual run; for an attribute without its value it clears
all attributes in the inode or the block; and for an attribute whose value inode is removed but still has the flag and
the hash, it reports nothing.
"""

from __future__ import annotations

import time

from pydiskimg.fs.ext4 import layout
from pydiskimg.fs.ext4.change.contents import Contents, with_blocks
from pydiskimg.fs.ext4.change.inodes import changed, new_inode, store
from pydiskimg.fs.ext4.change.transaction import Transaction
from pydiskimg.fs.ext4.contents import FileSource
from pydiskimg.fs.ext4.inode_fields import owner_fields, size_fields
from pydiskimg.fs.ext4.inodes import StoredInode, read_inode
from pydiskimg.fs.ext4.xattr_writer import ValueInode
from pydiskimg.protocols import read_bytes
from pydiskimg.records import Value

_MODE = layout.REGULAR_FILE | 0o600


def read_value(transaction: Transaction, number: int, size: int) -> bytes:
    """Return a value. Raises NotBelievedError for an inode that does not have a value of this size."""
    inode = _value_inode(transaction, number)
    if inode.size != size:
        raise transaction.fs.not_believed(f"inode {number} does not hold an extended attribute of {size} bytes")
    return read_bytes(FileSource(transaction.fs, inode, name=transaction.fs.name), 0, size)


def new_value(transaction: Transaction, owner: StoredInode, value: bytes) -> ValueInode:
    """Put a value into a new inode, for an attribute of owner; it has one reference."""
    inode = new_inode(transaction, owner, _MODE, 0, number=transaction.inodes.beside(owner.number))
    value_hash = transaction.fs.checksums.value(value)
    fields: dict[str, Value] = {
        "i_flags": layout.EA_INODE_FLAG,
        "i_atime": value_hash,
        "i_atime_extra": 0,
        "i_projid": 0,
        **owner_fields(owner.uid, owner.gid),
        **_counted(1),
    }
    contents = Contents(transaction, changed(inode, fields))
    contents.add([(0, value)], len(value))
    store(transaction, contents.finished(len(value)))
    return ValueInode(inode.number, len(value), value_hash)


def known_value(transaction: Transaction, number: int, size: int) -> ValueInode:
    """Return a value that is already in an inode."""
    return ValueInode(number, size, int(_value_inode(transaction, number).fields["i_atime"]))


def count_references(transaction: Transaction, number: int, more: int) -> None:
    """Increase the number of references to an inode's value (decrease, if negative); without any it is freed.

    Raises NotBelievedError for an inode that is not a value, or has fewer references.
    """
    inode = _value_inode(transaction, number)
    count = (int(inode.fields["i_ctime"]) << 32 | int(inode.fields["i_version"])) + more
    if count < 0:
        raise transaction.fs.not_believed(f"inode {number} is the value of more attributes than its count says")
    if count:
        store(transaction, changed(inode, _counted(count)))
        return
    contents = Contents(transaction, inode)
    contents.cut(0)
    gone = with_blocks(transaction, contents.finished(0), 0)
    removed: dict[str, Value] = {"i_links_count": 0, "i_dtime": int(time.time()) & 0xFFFFFFFF, **size_fields(0)}
    # Without these fields e2fsck sees that it is not the value of an attribute that an interruption has left.
    gone = changed(gone, {**removed, "i_flags": 0, "i_atime": 0})
    store(transaction, gone)
    transaction.usage.released(gone)
    transaction.inodes.free(number, is_directory=False)


def _value_inode(transaction: Transaction, number: int) -> StoredInode:
    fs = transaction.fs
    inode = read_inode(fs, number)
    is_value = inode.flags & layout.EA_INODE_FLAG and inode.kind == layout.REGULAR_FILE and inode.links
    if number < fs.superblock.first_inode or not is_value:
        raise fs.not_believed(f"inode {number} does not hold the value of an extended attribute")
    return inode


def _counted(count: int) -> dict[str, Value]:
    return {"i_ctime": count >> 32, "i_ctime_extra": 0, "i_version": count & 0xFFFFFFFF}
