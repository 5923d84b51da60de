# SPDX-License-Identifier: MIT
"""Update attributes whose values are in renumbered inodes.

Such an attribute is an entry in an inode, or in a block that inodes may share. No hash depends on the number.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from pydiskimg.fs.ext4 import layout
from pydiskimg.fs.ext4.change.inodes import store, value_references
from pydiskimg.fs.ext4.change.transaction import Transaction
from pydiskimg.fs.ext4.inodes import StoredInode, inode_name
from pydiskimg.fs.ext4.xattr_writer import seal_block
from pydiskimg.fs.ext4.xattrs import first_entry, stored_entries


class NamedValues:
    """The values referred to by inodes that are visited one after the other; a shared block is visited once."""

    def __init__(self, transaction: Transaction) -> None:
        self._transaction = transaction
        self._blocks: set[int] = set()

    def of(self, inode: StoredInode, last: int) -> Iterator[int]:
        """Yield the inodes after last that an inode's attributes refer to.

        Raises NotBelievedError if one is damaged.
        """
        is_known = inode.xattr_block in self._blocks
        for _, number, _, is_in_block in value_references(self._transaction.fs, inode):
            if number > last and not (is_in_block and is_known):
                if is_in_block:
                    self._blocks.add(inode.xattr_block)
                yield number


def rename_values(transaction: Transaction, inode: StoredInode, moves: Mapping[int, int]) -> None:
    """Update the numbers of values in the attributes of an inode."""
    fs = transaction.fs
    try:
        first = first_entry(inode)
        raw = _renamed(inode.raw, first, moves) if first else inode.raw
        if raw != inode.raw:
            store(transaction, inode.with_raw(bytes(raw)))
        if inode.xattr_block:
            old = transaction.read(inode.xattr_block)
            block = _renamed(old, layout.XATTR_HEADER.size, moves)
            if block != old:
                seal_block(block, inode.xattr_block, fs.checksums)
                transaction.put(inode.xattr_block, block)
    except ValueError as error:
        raise fs.not_believed(f"{inode_name(inode.number)}: {error}") from error


def _renamed(area: bytes, position: int, moves: Mapping[int, int]) -> bytearray:
    """Return the area with other numbers in its entries. Raises ValueError if they have no end."""
    data = bytearray(area)
    for at, _, entry in stored_entries(area, position):
        number = moves.get(entry["e_value_inum"])
        if number is not None:
            layout.XATTR_ENTRY.put(data, {"e_value_inum": number}, at)
    return data
