# SPDX-License-Identifier: MIT
"""Move bitmaps and inode tables of remaining groups that flex_bg has put beyond the new end."""

from __future__ import annotations

from pydiskimg.fs.ext4.change.transaction import Transaction
from pydiskimg.fs.ext4.descriptors import (
    Descriptor,
    descriptor_record,
    halves,
    location_problem,
    locations,
    read_descriptors,
)
from pydiskimg.fs.ext4.geometry import Geometry
from pydiskimg.fs.ext4.shrink.leaving import LeavingBlocks, leaving_blocks
from pydiskimg.records import Value

POINTERS = ("bg_block_bitmap", "bg_inode_bitmap", "bg_inode_table")
"""The fields of a descriptor with the locations of its group's metadata, in the order of locations()."""


def move_tables(transaction: Transaction, new: Geometry) -> bool:
    """Move them and commit; return whether there were any, because the transaction cannot be used again then.

    Raises OutOfSpaceError if not enough contiguous blocks are free, and as a commit does.
    """
    leaving = leaving_blocks(transaction.fs.geometry, new)
    found = _in_the_way(transaction, new, leaving)
    for descriptor in found:
        fields: dict[str, Value] = {}
        for name, (_, block, count) in zip(POINTERS, locations(new, descriptor), strict=True):
            if leaving.touch(block, count):
                start = copied(transaction, new.group_start(descriptor.group), block, count)
                fields |= halves(descriptor_record(new), name, start)
        point(transaction, descriptor.group, fields)
        if transaction.size > transaction.room:
            transaction.commit()
    transaction.commit()
    return bool(found)


def _in_the_way(transaction: Transaction, new: Geometry, leaving: LeavingBlocks) -> list[Descriptor]:
    found = []
    for descriptor in read_descriptors(transaction.fs):
        if descriptor.group >= new.groups:
            break
        problem = location_problem(transaction.fs.geometry, descriptor)
        if problem is not None:
            raise transaction.fs.not_believed(f"group {descriptor.group}: {problem}")
        if any(leaving.touch(block, count) for _, block, count in locations(new, descriptor)):
            found.append(descriptor)
    return found


def copied(transaction: Transaction, goal: int, block: int, count: int) -> int:
    """Copy metadata to contiguous blocks near the block goal, and return the first; the old ones are freed."""
    geometry = transaction.fs.geometry
    start, _ = transaction.blocks.allocate(goal, count, whole=True)
    for index in range(count):
        transaction.put(start + index, transaction.read(block + index))
    for index in range(count):  # a cluster may hold several of them
        first, stop = geometry.cluster_of(block + index)
        if index == 0 or first == block + index:
            transaction.blocks.free(first, stop, is_metadata=True)
    return start


def point(transaction: Transaction, group: int, fields: dict[str, Value]) -> None:
    """Change the locations in the descriptor of a group."""
    geometry = transaction.fs.geometry
    block, offset = transaction.groups.location(group)
    table = bytearray(transaction.read(block)[offset : offset + geometry.desc_size])
    descriptor_record(geometry).put(table, fields)
    transaction.fs.checksums.descriptors(table, geometry.desc_size, group)
    transaction.patch(block, offset, table)
