# SPDX-License-Identifier: MIT
"""Write one transaction into an empty log, so that blocks of the file system change all or not at all (journal.rst).

    superblock: needs recovery ─> log: descriptor, copies, ..., commit ─> journal's superblock: not empty
        ─> the blocks in their places ─> journal's superblock: empty ─> superblock: clean

If this is interrupted, the kernel and e2fsck replay the log.
"""

from __future__ import annotations

from itertools import islice

from pydiskimg.fs.ext4 import layout
from pydiskimg.fs.ext4.blocks import BlockWriter
from pydiskimg.fs.ext4.file_system import FileSystem
from pydiskimg.fs.ext4.journal import Journal, tag_size
from pydiskimg.fs.ext4.recovery import RecoveredSource
from pydiskimg.protocols import Disk

_MAGIC = layout.JOURNAL_MAGIC.to_bytes(4, "big")


class LogWriter:
    """The journal of a file system on disk, whose log is written."""

    def __init__(self, disk: Disk, fs: FileSystem) -> None:
        """Raises NotBelievedError when the journal is not sound, and as reading does."""
        self._disk = disk
        self._size = fs.geometry.block_size
        self._writer = BlockWriter(disk, self._size)
        self._journal = Journal(fs.replaced(source=disk))
        self._sequence = self._journal.sequence

    def fits(self, blocks: dict[int, bytes]) -> bool:
        """True if the log can hold a transaction that changes blocks."""
        descriptors = -(-len(blocks) // self._per_descriptor(self._features(blocks)))
        needed = descriptors + len(blocks) + 2  # the commit block, and a block after it that ends the log
        journal = self._journal
        return needed <= journal.end - journal.first and not (journal.is_old and self._features(blocks))

    def commit(self, blocks: dict[int, bytes]) -> None:
        """Write contents by block number as a transaction, durably; the superblock must already request recovery."""
        # The features determine the format of tags; the kernel's own are restored in finish().
        features = self._features(blocks)
        position = self._journal.first
        items = iter(blocks.items())
        while piece := list(islice(items, self._per_descriptor(features))):
            escaped = [(block, data, data[:4] == _MAGIC) for block, data in piece]
            self._put(position, self._descriptor(escaped, features))
            for index, (_, data, is_escaped) in enumerate(escaped):
                self._put(position + 1 + index, bytes(4) + data[4:] if is_escaped else data)
            position += 1 + len(piece)
        self._put(position, self._header(layout.JOURNAL_COMMIT))
        self._put(position + 1, b"")  # old contents of an earlier log
        self._disk.flush()
        self._put_superblock(s_start=self._journal.first, s_feature_incompat=features, s_feature_compat=0)

    def finish(self, next_sequence: int | None = None) -> None:
        """Empty the log, durably: all its blocks are written. next_sequence is used unless commit() was called."""
        self._sequence = self._sequence + 1 & 0xFFFFFFFF if next_sequence is None else next_sequence
        self._put_superblock(s_start=0)

    def _features(self, blocks: dict[int, bytes]) -> int:
        return layout.JOURNAL_64BIT if max(blocks) >> 32 else 0

    def _per_descriptor(self, features: int) -> int:
        return (self._size - layout.JOURNAL_HEADER.size - len(self._journal.uuid)) // tag_size(features)

    def _header(self, kind: int) -> bytes:
        return layout.JOURNAL_HEADER.pack(h_magic=layout.JOURNAL_MAGIC, h_blocktype=kind, h_sequence=self._sequence)

    def _descriptor(self, piece: list[tuple[int, bytes, bool]], features: int) -> bytes:
        parts = [self._header(layout.JOURNAL_DESCRIPTOR)]
        for index, (block, _, is_escaped) in enumerate(piece):
            flags = layout.TAG_ESCAPED if is_escaped else 0
            flags |= layout.TAG_SAME_UUID if index else 0
            flags |= layout.TAG_LAST if index == len(piece) - 1 else 0
            tag = layout.JOURNAL_TAG.pack(t_blocknr=block & 0xFFFFFFFF, t_flags=flags, t_blocknr_high=block >> 32)
            parts.append(tag[: tag_size(features)])
            if not index:
                parts.append(self._journal.uuid)
        return b"".join(parts)

    def _put(self, block: int, data: bytes) -> None:
        self._writer.write(self._journal.block_of(block), data.ljust(self._size, b"\0"))

    def _put_superblock(self, **changed: int) -> None:
        self._writer.write(self._journal.block_of(0), self._journal.superblock(s_sequence=self._sequence, **changed))
        self._disk.flush()


def replay(disk: Disk, fs: FileSystem) -> None:
    """Replay the journal of fs on disk, from which it was read, as recovery does.

    The superblock still requests recovery afterwards; the log is empty.
    """
    source = fs.source
    if isinstance(source, RecoveredSource):
        writer = BlockWriter(disk, fs.geometry.block_size)
        for block, data in source.replayed():
            writer.write(block, data)
        disk.flush()
        LogWriter(disk, fs).finish(source.next_sequence + 1 & 0xFFFFFFFF)
