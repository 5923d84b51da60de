# SPDX-License-Identifier: MIT
"""One transaction written into an empty log, so that blocks of the file system change all or not at all (journal.rst).

    superblock: needs recovery ─> log: descriptor, copies, ..., commit ─> journal's superblock: not empty
        ─> the blocks in their places ─> journal's superblock: empty ─> superblock: clean

The kernel and e2fsck replay it when that ends in the middle.
"""

from __future__ import annotations

from itertools import islice

from pydiskimg.crc32c import crc32c
from pydiskimg.fs.ext4 import layout
from pydiskimg.fs.ext4.existing import Division
from pydiskimg.fs.ext4.journal_reader import Log
from pydiskimg.protocols import Disk

_MAGIC = layout.JOURNAL_MAGIC.to_bytes(4, "big")
_UUID_SIZE = 16
_CHECKED = layout.JOURNAL_CSUM_V2 | layout.JOURNAL_CSUM_V3


class LogWriter:
    """The journal of the file system on disk, which volume describes."""

    def __init__(self, disk: Disk, volume: Division) -> None:
        """Raises NotBelievedError when the journal is not sound, and as reading does."""
        self._disk = disk
        self._size = volume.block_size
        self._log = Log(disk, volume)
        self._sequence = self._log.sequence
        self._is_old = self._log.fields["h_blocktype"] == layout.JOURNAL_SUPERBLOCK_V1

    def fits(self, blocks: dict[int, bytes]) -> bool:
        """Tell whether the log can hold a transaction that changes blocks."""
        descriptors = -(-len(blocks) // self._per_descriptor(self._features(blocks)))
        needed = descriptors + len(blocks) + 2  # the commit block, and one behind it that ends the log
        return needed <= self._log.end - self._log.first and not (self._is_old and self._features(blocks))

    def commit(self, blocks: dict[int, bytes]) -> None:
        """Write contents by block number as a transaction, durably; the superblock asks for recovery already."""
        # The features say how tags look; those that the kernel has put there come back in finish().
        features = self._features(blocks)
        position = self._log.first
        items = iter(blocks.items())
        while piece := list(islice(items, self._per_descriptor(features))):
            escaped = [(block, data, data[:4] == _MAGIC) for block, data in piece]
            self._put(position, self._descriptor(escaped, features))
            for index, (_, data, is_escaped) in enumerate(escaped):
                self._put(position + 1 + index, bytes(4) + data[4:] if is_escaped else data)
            position += 1 + len(piece)
        self._put(position, self._header(layout.JOURNAL_COMMIT))
        self._put(position + 1, b"")  # whatever an older log left there
        self._disk.flush()
        self._put_superblock(s_start=self._log.first, s_feature_incompat=features, s_feature_compat=0)

    def finish(self, next_sequence: int | None = None) -> None:
        """Make the log empty, durably: everything in it is in its place. next_sequence unless commit() was called."""
        self._sequence = self._sequence + 1 & 0xFFFFFFFF if next_sequence is None else next_sequence
        self._put_superblock(s_start=0)

    def _features(self, blocks: dict[int, bytes]) -> int:
        return layout.JOURNAL_64BIT if max(blocks) >> 32 else 0

    def _tag_size(self, features: int) -> int:
        return layout.JOURNAL_TAG.size if features else layout.JOURNAL_TAG.size - 4

    def _per_descriptor(self, features: int) -> int:
        return (self._size - layout.JOURNAL_HEADER.size - _UUID_SIZE) // self._tag_size(features)

    def _header(self, kind: int) -> bytes:
        return layout.JOURNAL_HEADER.pack(h_magic=layout.JOURNAL_MAGIC, h_blocktype=kind, h_sequence=self._sequence)

    def _descriptor(self, piece: list[tuple[int, bytes, bool]], features: int) -> bytes:
        parts = [self._header(layout.JOURNAL_DESCRIPTOR)]
        for index, (block, _, is_escaped) in enumerate(piece):
            flags = layout.TAG_ESCAPED if is_escaped else 0
            flags |= layout.TAG_SAME_UUID if index else 0
            flags |= layout.TAG_LAST if index == len(piece) - 1 else 0
            tag = layout.JOURNAL_TAG.pack(t_blocknr=block & 0xFFFFFFFF, t_flags=flags, t_blocknr_high=block >> 32)
            parts.append(tag[: self._tag_size(features)])
            if not index:
                parts.append(bytes(self._log.fields["s_uuid"]))
        return b"".join(parts)

    def _put(self, block: int, data: bytes) -> None:
        self._disk.write(self._log.block_of(block) * self._size, data.ljust(self._size, b"\0"))

    def _put_superblock(self, **changed: int) -> None:
        fields = {**self._log.fields, "s_sequence": self._sequence, **changed}
        if not self._is_old:
            is_checked = int(fields["s_feature_incompat"]) & _CHECKED
            fields["s_checksum"] = 0
            fields["s_checksum"] = crc32c(layout.JOURNAL_SUPERBLOCK.pack(**fields)) if is_checked else 0
        self._disk.write(self._log.block_of(0) * self._size, layout.JOURNAL_SUPERBLOCK.pack(**fields))
        self._disk.flush()
