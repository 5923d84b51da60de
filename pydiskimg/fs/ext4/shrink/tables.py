# SPDX-License-Identifier: MIT
"""Bitmaps and inode tables of groups that stay, moved before the new end where flex_bg has put them beyond it."""

from __future__ import annotations

from pydiskimg.fs.ext4.bitmaps import Run
from pydiskimg.fs.ext4.change.allocation import OutOfSpaceError
from pydiskimg.fs.ext4.change.transaction import Transaction
from pydiskimg.fs.ext4.descriptors import Descriptor, descriptor_record, halves, location_problem, read_descriptors
from pydiskimg.fs.ext4.features import Incompat
from pydiskimg.fs.ext4.geometry import Geometry
from pydiskimg.records import Value

_POINTERS = ("bg_block_bitmap", "bg_inode_bitmap", "bg_inode_table")


def move_tables(transaction: Transaction, new: Geometry) -> None:
    """Move them and commit. Raises OutOfSpaceError where so many blocks are not free together, and as a commit does."""
    for descriptor in _reaching_beyond(transaction, new):
        fields: dict[str, Value] = {}
        located = (descriptor.block_bitmap, 1), (descriptor.inode_bitmap, 1), (descriptor.inode_table, new.inode_blocks)
        for name, (block, count) in zip(_POINTERS, located, strict=True):
            if block + count > new.blocks:
                start, _ = _copied(transaction, descriptor.group, block, count)
                fields |= halves(descriptor_record(new), name, start)
        _point(transaction, descriptor.group, fields)
        if transaction.size > transaction.room:
            transaction.commit()
    transaction.commit()


def _reaching_beyond(transaction: Transaction, new: Geometry) -> list[Descriptor]:
    found = []
    for descriptor in read_descriptors(transaction.fs):
        if descriptor.group >= new.groups:
            break
        problem = location_problem(transaction.fs.geometry, descriptor)
        if problem is not None:
            raise transaction.fs.not_believed(f"group {descriptor.group}: {problem}")
        end = max(descriptor.block_bitmap + 1, descriptor.inode_bitmap + 1, descriptor.inode_table + new.inode_blocks)
        if end > new.blocks:
            found.append(descriptor)
    return found


def _copied(transaction: Transaction, group: int, block: int, count: int) -> Run:
    """Return the blocks that have the contents now; the old ones are given back."""
    geometry = transaction.fs.geometry
    start, end = transaction.blocks.allocate(geometry.group_start(group), count, whole=True)
    if Incompat.FLEX_BG not in geometry.features and geometry.group_of(start) != group:
        raise OutOfSpaceError(f"no {count} blocks together are free in group {group}")
    for index in range(count):
        transaction.put(start + index, transaction.read(block + index))
    for index in range(count):  # a cluster may hold several of them
        first, stop = geometry.cluster_of(block + index)
        if index == 0 or first == block + index:
            transaction.blocks.free(first, stop, is_metadata=True)
    return start, end


def _point(transaction: Transaction, group: int, fields: dict[str, Value]) -> None:
    """Have the descriptor of a group name other blocks."""
    geometry = transaction.fs.geometry
    block, offset = transaction.groups.location(group)
    table = bytearray(transaction.read(block)[offset : offset + geometry.desc_size])
    descriptor_record(geometry).put(table, fields)
    transaction.fs.checksums.descriptors(table, geometry.desc_size, group)
    transaction.patch(block, offset, table)
