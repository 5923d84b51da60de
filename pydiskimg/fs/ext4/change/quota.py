# SPDX-License-Identifier: MIT
"""Change the quota files with the files whose owners they count (Linux, fs/quota/quota_tree.c)."""

from __future__ import annotations

from pydiskimg.fs.ext4 import quota_layout
from pydiskimg.fs.ext4.change.contents import Contents
from pydiskimg.fs.ext4.change.inodes import store, value_references
from pydiskimg.fs.ext4.change.transaction import Transaction
from pydiskimg.fs.ext4.map_reader import file_pieces
from pydiskimg.fs.ext4.quota_file import ENTRIES_PER_BLOCK, MAX_BLOCKS, QuotaFile, references
from pydiskimg.fs.ext4.quota_layout import BLOCK_SIZE, ENTRY, HEADER, INFO, LEAF

_UNUSED = bytes(ENTRY.size)


def keep_quota(transaction: Transaction) -> None:
    """Make each commit of a transaction update the quota files with its changes of usage.

    A commit then raises NotBelievedError for a damaged quota file, OutOfSpaceError if it cannot grow.
    """
    transaction.before_commit = _count_usage
    transaction.usage.count_values = lambda inode: len(value_references(transaction.fs, inode))


def _count_usage(transaction: Transaction) -> None:
    for kind, number in enumerate(transaction.usage.files):
        changes = transaction.usage.changes(kind) if number else {}
        if changes:
            file = _ChangedQuotaFile(transaction, number, kind)
            for changed_id, (space, inodes) in sorted(changes.items()):
                file.add(changed_id, space, inodes)
            file.write()


class _ChangedQuotaFile:
    """A quota file whose blocks are changed in memory, until write()."""

    def __init__(self, transaction: Transaction, number: int, kind: int) -> None:
        self._transaction = transaction
        self._file = QuotaFile(transaction.fs, number, kind)
        self._info = self._file.info
        self._end = self._info["dqi_blocks"]
        if not quota_layout.ROOT < self._end <= self._file.blocks:
            raise self._file.damaged(
                f"its quota file has {self._file.blocks} blocks, while its header says {self._end}"
            )
        self._changed: dict[int, bytearray] = {}

    def add(self, number: int, space: int, inodes: int) -> None:
        """Change the usage of an id; it gets an entry if it has none."""
        block, at = self._entry(number)
        fields = ENTRY.unpack(bytes(self._block(block)), at)
        values = {
            "dqb_id": number,
            "dqb_curspace": max(fields["dqb_curspace"] + space, 0),
            "dqb_curinodes": max(fields["dqb_curinodes"] + inodes, 0),
        }
        data = self._change(block)
        ENTRY.put(data, values, at)
        if data[at : at + ENTRY.size] == _UNUSED:  # an all-zero entry would be unused
            ENTRY.put(data, {"dqb_itime": 1}, at)

    def write(self) -> None:
        """Put the changes into the transaction."""
        INFO.put(self._change(0), {**self._info, "dqi_blocks": self._end}, HEADER.size)
        size, inode = self._transaction.fs.geometry.block_size, self._file.inode
        blocks = {
            first + index: at + index
            for first, at, count in file_pieces(self._transaction.fs, inode)
            for index in range(count)
        }
        whole: dict[int, bytearray] = {}
        for number, data in sorted(self._changed.items()):
            index, offset = divmod(number * BLOCK_SIZE, size)
            if index in blocks:
                self._transaction.patch(blocks[index], offset, data)
            else:
                whole.setdefault(index, bytearray(size))[offset : offset + BLOCK_SIZE] = data
        if self._end > self._file.blocks:
            contents = Contents(self._transaction, inode)
            contents.add_blocks(whole)
            store(self._transaction, contents.finished(self._end * BLOCK_SIZE))

    def _block(self, number: int) -> bytes | bytearray:
        return self._changed[number] if number in self._changed else self._file.block(number)

    def _change(self, number: int) -> bytearray:
        if number not in self._changed:
            self._changed[number] = bytearray(self._file.block(number))
        return self._changed[number]

    def _entry(self, number: int) -> tuple[int, int]:
        """Return the block and the byte there of an id's entry, which is made if missing."""
        node = quota_layout.ROOT
        for level in range(quota_layout.LEVELS):
            index = number >> 8 * (quota_layout.LEVELS - 1 - level) & 0xFF
            following = references(bytes(self._block(node)))[index]
            is_last = level + 1 == quota_layout.LEVELS
            if not following and is_last:
                return self._new_entry(number, node, index)
            if not following:
                following = self._new_block()
                self._refer(node, index, following)
            if not quota_layout.ROOT < following < self._end:
                raise self._file.damaged(f"its quota file has {self._end} blocks, and names block {following}")
            node = following
        for slot in range(ENTRIES_PER_BLOCK):
            at = LEAF.size + slot * ENTRY.size
            data = bytes(self._block(node)[at : at + ENTRY.size])
            if data != _UNUSED and ENTRY.unpack(data)["dqb_id"] == number:
                return node, at
        raise self._file.damaged(f"its quota file has no entry for {number} in the block that its tree gives")

    def _refer(self, node: int, index: int, block: int) -> None:
        self._change(node)[4 * index : 4 * index + 4] = block.to_bytes(4, "little")

    def _new_entry(self, number: int, node: int, index: int) -> tuple[int, int]:
        """Allocate an entry in the first block that has a free one, or in a new block."""
        block = self._info["dqi_free_entry"]
        if not block:
            block = self._info["dqi_free_entry"] = self._new_block()
        elif not quota_layout.ROOT < block < self._end:
            raise self._file.damaged(f"the first block of its quota file with room is block {block}")
        data = self._change(block)
        used = [bytes(data[at : at + ENTRY.size]) for at in range(LEAF.size, LEAF.size + _ALL, ENTRY.size)]
        if _UNUSED not in used:
            raise self._file.damaged(
                f"block {block} of its quota file has no room, although it is in the list of those that have"
            )
        head = LEAF.unpack(bytes(data))
        if used.count(_UNUSED) == 1:
            self._take_from_list(block, head)
        LEAF.put(data, {"dqdh_entries": head["dqdh_entries"] + 1 & 0xFFFF})
        at = LEAF.size + used.index(_UNUSED) * ENTRY.size
        ENTRY.put(data, {"dqb_id": number, "dqb_itime": 0 if number else 1}, at)
        self._refer(node, index, block)
        return block, at

    def _take_from_list(self, block: int, head: dict[str, int]) -> None:
        """Remove a block that has no room any more from the list of blocks with room, in which it is the first."""
        following = head["dqdh_next_free"]
        self._info["dqi_free_entry"] = following
        LEAF.put(self._change(block), {"dqdh_next_free": 0, "dqdh_prev_free": 0})
        if following:
            if not quota_layout.ROOT < following < self._end:
                raise self._file.damaged(f"a block of its quota file with room is block {following}")
            LEAF.put(self._change(following), {"dqdh_prev_free": 0})

    def _new_block(self) -> int:
        """Take a free block, or append one."""
        block = self._info["dqi_free_blk"]
        if block:
            if not quota_layout.ROOT < block < self._end:
                raise self._file.damaged(f"the first free block of its quota file is block {block}")
            self._info["dqi_free_blk"] = LEAF.unpack(bytes(self._block(block)))["dqdh_next_free"]
        else:
            block = self._end
            self._end += 1
            if self._end > MAX_BLOCKS:
                raise self._file.damaged(f"its quota file would have more than {MAX_BLOCKS} blocks")
        self._changed[block] = bytearray(BLOCK_SIZE)
        return block


_ALL = ENTRIES_PER_BLOCK * ENTRY.size
