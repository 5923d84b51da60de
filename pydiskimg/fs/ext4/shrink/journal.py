# SPDX-License-Identifier: MIT
"""Move a journal from beyond the new end to before it.

    blocks allocated, by the journal ─> copied ─> its inode, in one write ─> old blocks freed, by the new journal

The journal is empty at each step except within the two commits, and each commit uses the journal that is valid at that
time. An interruption leaves at most allocated blocks without a file. From the first commit to the second the file
system is marked as not clean: otherwise e2fsck -p would not look for such blocks, and shrinking again would keep them.
"""

from __future__ import annotations

from pydiskimg.fs.ext4 import layout
from pydiskimg.fs.ext4.blocks import BlockWriter
from pydiskimg.fs.ext4.change.contents import Contents, with_blocks
from pydiskimg.fs.ext4.change.transaction import Transaction
from pydiskimg.fs.ext4.inodes import StoredInode, read_inode
from pydiskimg.fs.ext4.shrink.blocks import BlockMover
from pydiskimg.fs.ext4.shrink.leaving import LeavingBlocks
from pydiskimg.protocols import Disk, read_bytes
from pydiskimg.startup import Protocol
from pydiskimg.units import MIB


class Begin(Protocol):
    """Begins a transaction that allocates nothing beyond the new end."""

    def __call__(self, *, is_ours: bool = False) -> Transaction: ...


def move_journal(disk: Disk, begin: Begin, leaving: LeavingBlocks) -> None:
    """Move the part of the journal that is in blocks that must become empty. Errors as for BlockMover.file()."""
    first = begin()
    inode = read_inode(first.fs, first.fs.superblock.journal_inode)
    contents = Contents(first, inode)
    old_nodes = contents.nodes
    mover = BlockMover(first, leaving)
    moves = mover.moves(contents)
    contents.pieces = [piece for piece, _ in mover.pieces(contents.pieces, moves)]
    moved, nodes = contents.mapped()
    moved = with_blocks(first, moved, contents.blocks)
    state = first.fs.superblock.number("s_state")
    first.set_superblock({"s_state": state & ~layout.VALID_FS})
    first.commit()
    first.close()
    writer = BlockWriter(disk, first.fs.geometry.block_size)
    for old, new, count in moves:
        _copy(disk, writer, first.fs.geometry.block_size, old, new, count)
    writer.write_all(nodes)
    disk.flush()
    _put(disk, first, moved)
    second = begin(is_ours=True)
    for old, _, count in moves:
        second.free(old, old + count)
    for node in old_nodes:
        second.free(*second.fs.geometry.cluster_of(node))
    second.set_superblock({"s_jnl_blocks": _backup(second, moved), "s_state": state})
    second.commit()
    second.close()


def _copy(disk: Disk, writer: BlockWriter, size: int, old: int, new: int, count: int) -> None:
    at_once = max(MIB // size, 1)
    for done in range(0, count, at_once):
        length = min(at_once, count - done)
        writer.write(new + done, read_bytes(disk, (old + done) * size, length * size))


def _put(disk: Disk, transaction: Transaction, inode: StoredInode) -> None:
    """Write an inode to its table, durably, without the journal."""
    raw = bytearray(inode.raw)
    transaction.fs.checksums.inode(inode.seed, raw)
    disk.write(inode.block * transaction.fs.geometry.block_size + inode.offset, bytes(raw))
    disk.flush()


def _backup(transaction: Transaction, inode: StoredInode) -> bytes:
    """Return the superblock's backup of the journal's inode, if it has one."""
    if transaction.fs.superblock.number("s_jnl_backup_type") != layout.JOURNAL_BACKUP:
        return bytes(transaction.fs.superblock.fields["s_jnl_blocks"])
    high, low = (int(inode.fields[name]).to_bytes(4, "little") for name in ("i_size_high", "i_size_lo"))
    return inode.i_block + high + low
