# SPDX-License-Identifier: MIT
"""Change the extended attributes of an inode: all of them are laid out anew, in the inode and a block of its own."""

from __future__ import annotations

import errno
from collections import Counter
from collections.abc import Mapping, Sequence

from pydiskimg.fs.ext4 import layout
from pydiskimg.fs.ext4.change.inodes import changed, size_in_blocks, value_blocks, value_references
from pydiskimg.fs.ext4.change.transaction import Transaction
from pydiskimg.fs.ext4.change.value_inodes import count_references, known_value, new_value, read_value
from pydiskimg.fs.ext4.features import Compat, Incompat
from pydiskimg.fs.ext4.inodes import StoredInode
from pydiskimg.fs.ext4.tree.files import RefusedError
from pydiskimg.fs.ext4.xattr_writer import AttributeTooLargeError, ValueInode, encode_stored, seal_block
from pydiskimg.fs.ext4.xattrs import MAX_VALUE, StoredName, Xattrs
from pydiskimg.text import printable


def stored_attributes(transaction: Transaction, inode: StoredInode) -> dict[StoredName, bytes]:
    """Return the attributes in their stored form, without contents. Raises as Xattrs.of() does."""
    found = _xattrs(transaction).of(inode)
    found.pop(layout.XATTR_INLINE_DATA, None)
    return found


def inline_data(transaction: Transaction, inode: StoredInode) -> bytes:
    """Return the inode's inline contents after i_block."""
    return _xattrs(transaction).inline_data(inode) if inode.flags & layout.INLINE_DATA_FLAG else b""


def _xattrs(transaction: Transaction) -> Xattrs:
    return Xattrs(transaction.fs, lambda number, size: read_value(transaction, number, size))


def outlined(transaction: Transaction, inode: StoredInode) -> StoredInode:
    """Return an inode without its inline contents; an inode without any is returned unchanged."""
    if not inode.flags & layout.INLINE_DATA_FLAG:
        return inode
    attributes = stored_attributes(transaction, inode)
    flags = inode.flags & ~(layout.INLINE_DATA_FLAG | layout.EXTENTS_FLAG)
    emptied = changed(inode, {"i_flags": flags, "i_block": b"", "i_size_lo": 0, "i_size_high": 0})
    return with_attributes(transaction, emptied, attributes)


def with_attributes(
    transaction: Transaction, inode: StoredInode, attributes: Mapping[StoredName, bytes]
) -> StoredInode:
    """Return an inode with exactly these attributes; inline contents are not included.

    A block that other inodes share is not changed. Values that do not fit get inodes of their own if the file system
    has that feature. Raises RefusedError: ENOSPC if the attributes do not fit, EOPNOTSUPP if the file system does not
    support any.
    """
    geometry = transaction.fs.geometry
    if attributes and Compat.EXT_ATTR not in geometry.features:
        transaction.require(Compat.EXT_ATTR, errno.EOPNOTSUPP)
    start = layout.GOOD_OLD_INODE_SIZE + inode.extra_size
    area = max(len(inode.raw) - start, 0) if len(inode.raw) > layout.GOOD_OLD_INODE_SIZE else 0
    stored = _with_values(transaction, inode, attributes, area)
    encoded = encode_stored(stored, area, geometry.block_size)
    taken = sum(size_in_blocks(transaction, value.size) for value in stored.values() if isinstance(value, ValueInode))
    more = taken - value_blocks(transaction, inode)
    inode = _with_count(transaction, without_attribute_block(transaction, inode), more)
    if area:
        raw = inode.raw[:start] + encoded.in_inode.ljust(area, b"\0")
        inode = inode.with_raw(raw)
    if encoded.block is None:
        return inode
    goal = geometry.group_start((inode.number - 1) // geometry.inodes_per_group)
    block = transaction.blocks.allocate(goal, 1)[0]
    seal_block(encoded.block, block, transaction.fs.checksums)
    transaction.put(block, encoded.block)
    return _with_block(transaction, inode, block, geometry.cluster_blocks)


def _with_values(
    transaction: Transaction, inode: StoredInode, attributes: Mapping[StoredName, bytes], area: int
) -> dict[StoredName, bytes | ValueInode]:
    """Return the attributes with values in inodes of their own: those that already are, and those without room."""
    references = value_references(transaction.fs, inode)
    in_force = {name: (number, size) for name, number, size, _ in reversed(references)}
    stored: dict[StoredName, bytes | ValueInode] = dict(attributes)
    for name, (number, size) in in_force.items():
        if name in attributes and read_value(transaction, number, size) == attributes[name]:
            stored[name] = known_value(transaction, number, size)
    added = _moved_out(transaction, stored, area)
    counts = _owned(transaction, inode, references)
    for value in stored.values():
        if isinstance(value, ValueInode) and value.number:
            counts[value.number] += 1
    for name in added:
        stored[name] = new_value(transaction, inode, attributes[name])
    for number, more in counts.items():
        if more:
            count_references(transaction, number, more)
    return stored


def _moved_out(transaction: Transaction, stored: dict[StoredName, bytes | ValueInode], area: int) -> list[StoredName]:
    """Remove the largest values until the others fit, and return their names."""
    added: list[StoredName] = []
    while True:
        try:
            encode_stored(stored, area, transaction.fs.geometry.block_size)
        except AttributeTooLargeError as error:
            sizes = {name: len(value) for name, value in stored.items() if isinstance(value, bytes)}
            largest = max(sizes, key=sizes.__getitem__, default=None)
            may_be_out = Incompat.EA_INODE in transaction.fs.geometry.features
            if not may_be_out or largest is None or not 0 < sizes[largest] <= MAX_VALUE:
                text = f"has no room for the extended attribute {printable(error.name)} of {len(error.value)} bytes"
                raise RefusedError(text, errno.ENOSPC) from error
            stored[largest] = ValueInode(0, sizes[largest], 0)
            added.append(largest)
        else:
            return added


def _owned(
    transaction: Transaction, inode: StoredInode, references: Sequence[tuple[StoredName, int, int, bool]]
) -> Counter[int]:
    """Return by inode the number of references that an inode's attributes release, as negative numbers.

    References in a block that other inodes share are not released.
    """
    is_shared = False
    if inode.xattr_block and any(is_in_block for *_, is_in_block in references):
        header = layout.XATTR_HEADER.unpack(transaction.read(inode.xattr_block))
        is_shared = int(header["h_refcount"]) > 1
    counts: Counter[int] = Counter()
    for _, number, _, is_in_block in references:
        if not (is_in_block and is_shared):
            counts[number] -= 1
    return counts


def without_attributes(transaction: Transaction, inode: StoredInode) -> StoredInode:
    """Return a removed inode without the attributes that use blocks or inodes elsewhere."""
    if value_references(transaction.fs, inode):
        return with_attributes(transaction, inode, {})
    return without_attribute_block(transaction, inode)


def without_attribute_block(transaction: Transaction, inode: StoredInode) -> StoredInode:
    """Return an inode without its block of attributes, which is freed if no other inode shares it."""
    number, fs = inode.xattr_block, transaction.fs
    if not number:
        return inode
    if not fs.geometry.first_data_block <= number < fs.geometry.blocks:
        raise fs.not_believed(f"inode {inode.number} has its extended attributes at block {number}")
    block = bytearray(transaction.read(number))
    header = layout.XATTR_HEADER.unpack(block)
    if header["h_magic"] != layout.XATTR_MAGIC:
        raise fs.not_believed(f"inode {inode.number}: block {number} does not hold extended attributes")
    if header["h_refcount"] > 1:
        layout.XATTR_HEADER.put(block, {"h_refcount": header["h_refcount"] - 1})
        seal_block(block, number, fs.checksums)
        transaction.put(number, block)
    else:
        transaction.free(number, number + 1)
    return _with_block(transaction, inode, 0, -fs.geometry.cluster_blocks)


def _with_block(transaction: Transaction, inode: StoredInode, block: int, more: int) -> StoredInode:
    """Return an inode with another block of attributes, and more blocks in its count."""
    fields = {"i_file_acl_lo": block & 0xFFFFFFFF, "i_file_acl_high": block >> 32}
    return _with_count(transaction, changed(inode, fields), more)


def _with_count(transaction: Transaction, inode: StoredInode, more: int) -> StoredInode:
    """Return an inode with more blocks in its count."""
    unit = 1 if inode.flags & layout.HUGE_FILE_FLAG else transaction.fs.geometry.block_size // 512
    count = int(inode.fields["i_blocks_lo"] | inode.fields["i_blocks_high"] << 32) + more * unit
    fields = {"i_blocks_lo": max(count, 0) & 0xFFFFFFFF, "i_blocks_high": max(count, 0) >> 32 & 0xFFFF}
    return changed(inode, fields)
