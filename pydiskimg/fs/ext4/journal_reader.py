# SPDX-License-Identifier: MIT
"""Read the log of a journal (JBD2) as recovery does, to find the blocks in its complete transactions (journal.rst).

    | superblock | ... | descriptor, copies of blocks | revoke | commit | descriptor, copies | commit | old blocks ...
                       ^ s_start, transaction s_sequence                                            ^ the log ends

The log is a ring. Each of its own blocks has the magic and the number of the expected transaction; the first block
without them ends the log, and a transaction without its commit block does not count.
"""

from __future__ import annotations

import struct
import sys
import zlib
from array import array
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from pydiskimg.crc32c import crc32c
from pydiskimg.fs.ext4 import layout
from pydiskimg.fs.ext4.file_system import FileSystem
from pydiskimg.fs.ext4.journal import Journal, tag_size

_MAX_COPIES = 1 << 20  # about 200 bytes of memory each; four times as many as the largest journal that mke2fs chooses
_MAX_OWN_BLOCKS = 1 << 19  # a descriptor, revoke or commit block costs time: 0.1 ms for its checksum
_KNOWN = layout.JOURNAL_HAS_REVOKE | layout.JOURNAL_64BIT | layout.JOURNAL_CSUM_V2 | layout.JOURNAL_CSUM_V3
_ASYNC = layout.JOURNAL_ASYNC_COMMIT
_FAST_COMMIT_BLOCKS = 256  # if the superblock does not state a number
_FAST_COMMIT_HEAD = struct.Struct("<HHII")  # tag, length, features, transaction
_FAST_COMMIT_TAG = 9
_HEADER = layout.JOURNAL_HEADER.size
_UUID_SIZE = 16
_FLAGS = 7  # the lowest byte of t_flags in a tag of any kind


@dataclass(frozen=True, slots=True)
class Copy:
    """A copy of a file system's block in the log: at block log_block of the journal, of a transaction.

    checksum is None if the journal has none; otherwise checksum_mask says which of its bits are stored.
    """

    log_block: int
    sequence: int
    is_escaped: bool
    checksum: int | None
    checksum_mask: int


class Log(Journal):
    """The journal with a reader of its log; next_sequence is the transaction after the log, once copies() has run."""

    def __init__(self, fs: FileSystem) -> None:
        super().__init__(fs)
        self.next_sequence = self.sequence
        self._seed = crc32c(self.uuid)
        if self.has_fast_commits:  # they use the last blocks of the journal, and the log ends before them
            self.end -= int(self.fields["s_num_fc_blocks"]) or _FAST_COMMIT_BLOCKS
            if self.end <= self.first:
                raise self.damaged("its fast commits leave no blocks for its log")

    @property
    def has_fast_commits(self) -> bool:
        return bool(self.incompat & layout.JOURNAL_FAST_COMMIT)

    def holds_fast_commits(self) -> bool:
        """True if fast commits have changed anything since the log's last transaction; call it after copies()."""
        blocks = (self.end, self.end + 1) if self.has_fast_commits else ()
        found = (_FAST_COMMIT_HEAD.unpack_from(self.read(block)) for block in blocks)
        return any(tag == _FAST_COMMIT_TAG and sequence == self.next_sequence for tag, _, _, sequence in found)

    def content(self, copy: Copy) -> bytes:
        """Return the block's new contents. Raises NotBelievedError if its checksum is wrong."""
        data = self.read(copy.log_block)
        if copy.checksum is not None:
            found = crc32c(data, crc32c(copy.sequence.to_bytes(4, "big"), self._seed))
            if found & copy.checksum_mask != copy.checksum:
                raise self.damaged(f"the checksum of the copy in block {copy.log_block} is wrong")
        return layout.JOURNAL_MAGIC.to_bytes(4, "big") + data[4:] if copy.is_escaped else data

    def copies(self) -> dict[int, Copy]:
        """Return the newest copy of each block that recovery would write, by block number.

        Raises NotBelievedError if a complete transaction is damaged, or uses features that are unknown here.
        """
        unknown = self.incompat & ~(_KNOWN | _ASYNC | layout.JOURNAL_FAST_COMMIT)
        if unknown:
            raise self.damaged(f"it has features that are not known here (incompat {unknown:#x})")
        if not 0 < self.first <= self.start < self.end:
            raise self.damaged(f"its log starts at block {self.start}, outside of {self.first} to {self.end}")
        end = self.next_sequence = self._scan()
        found: dict[int, Copy] = {}
        for kind, block, data, sequence in self._blocks(end):
            if kind == layout.JOURNAL_DESCRIPTOR:
                found.update(self._tags(data, sequence, block + 1))
                if len(found) > _MAX_COPIES:
                    raise self.damaged(f"its log has more than {_MAX_COPIES} blocks")
        for kind, _, data, sequence in self._blocks(end):
            if kind == layout.JOURNAL_REVOKE:
                for revoked in found.keys() & self._revoked(data):
                    if not _is_later(found[revoked].sequence, sequence):
                        del found[revoked]
        self._check_targets(found)
        return found

    def _check_targets(self, found: Iterable[int]) -> None:
        """Raise NotBelievedError for a block beyond the disk; growing logs blocks beyond the file system."""
        blocks, last = self._fs.source.size // self._fs.geometry.block_size, max(found, default=0)
        if last >= blocks:
            raise self.damaged(f"its log has a copy of block {last}, and the disk has {blocks}")

    def _scan(self) -> int:
        """Return the number of the first transaction that is not complete.

        A damaged transaction that has its commit block is an error, with two exceptions. If commit blocks are written
        together with the blocks that they commit, the last one may have been written before the rest. And a commit that
        is older than the transaction before it is left over from an earlier log.
        """
        is_intact, checksum, last_time = True, 0, 0
        sequence, incomplete = self.sequence, None
        for number, (kind, block, data, _) in enumerate(self._blocks(None)):
            if number >= _MAX_OWN_BLOCKS:
                raise self.damaged(f"its log has more than {_MAX_OWN_BLOCKS} blocks of its own")
            if kind != layout.JOURNAL_COMMIT:
                is_intact = is_intact and self._tail_holds(data)
                if kind == layout.JOURNAL_DESCRIPTOR and is_intact:
                    checksum = self._with_copies(checksum, data, block)
                continue
            time = int(layout.JOURNAL_COMMIT_BLOCK.unpack(data)["h_commit_sec"])
            holds = self._commit_holds(data) and self._transaction_holds(data, checksum)
            if not (is_intact and holds) and time < last_time:
                break
            is_late = is_intact and not holds and bool(self.incompat & _ASYNC)
            if incomplete is not None or not (is_intact and (holds or is_late)):
                raise self.damaged(f"transaction {sequence}, which ends at block {block}, is damaged")
            if is_late:
                incomplete = sequence
            sequence, checksum, last_time = sequence + 1 & 0xFFFFFFFF, 0, time
        return sequence if incomplete is None else incomplete

    def _with_copies(self, checksum: int, data: bytes, block: int) -> int:
        """Return the checksum of a transaction, extended by one descriptor block and the copies after it."""
        if not self.compat & layout.JOURNAL_COMPAT_CHECKSUM:
            return 0
        checksum = zlib.crc32(data.translate(_REVERSED), checksum)
        for index, _ in enumerate(self._tag_offsets(data)):
            copy = self.read(self._wrapped(block + 1 + index))
            checksum = zlib.crc32(copy.translate(_REVERSED), checksum)
        return checksum

    def _transaction_holds(self, data: bytes, checksum: int) -> bool:
        """Check the checksum of version 1 in a commit block, which covers the transaction's descriptors and copies."""
        if not self.compat & layout.JOURNAL_COMPAT_CHECKSUM:
            return True
        fields = layout.JOURNAL_COMMIT_BLOCK.unpack(data)
        stored = tuple(int(fields[name]) for name in ("h_chksum_type", "h_chksum_size", "h_chksum"))
        # The register of the CRC that takes the highest bit first, converted from zlib's, which takes the lowest first.
        register = int(f"{checksum ^ 0xFFFFFFFF:032b}"[::-1], 2)
        return stored in ((0, 0, 0), (_CRC32, _CRC32_SIZE, register))

    def _blocks(self, end: int | None) -> Iterator[tuple[int, int, bytes, int]]:
        """Yield (kind, block of the journal, contents, transaction) of the log's own blocks, up to transaction end."""
        block, sequence, left = self.start, self.sequence, self.end - self.first
        while left > 0 and sequence != end:
            data = self.read(block)
            header = layout.JOURNAL_HEADER.unpack(data)
            kind = int(header["h_blocktype"])
            if header["h_magic"] != layout.JOURNAL_MAGIC or header["h_sequence"] != sequence:
                return
            if kind not in (layout.JOURNAL_DESCRIPTOR, layout.JOURNAL_COMMIT, layout.JOURNAL_REVOKE):
                return
            yield kind, block, data, sequence
            steps = 1
            if kind == layout.JOURNAL_DESCRIPTOR:
                steps += sum(1 for _ in self._tag_offsets(data))
            elif kind == layout.JOURNAL_COMMIT:
                sequence = sequence + 1 & 0xFFFFFFFF
            block, left = self._wrapped(block + steps), left - steps
        if left <= 0 and sequence != end:
            raise self.damaged("its log is circular and has no end")

    def _wrapped(self, block: int) -> int:
        return block if block < self.end else block - (self.end - self.first)

    def _tags(self, data: bytes, sequence: int, log_block: int) -> Iterator[tuple[int, Copy]]:
        """Yield the copies that a descriptor block lists, which follow from log_block on."""
        is_v3 = bool(self.incompat & layout.JOURNAL_CSUM_V3)
        bits64 = bool(self.incompat & layout.JOURNAL_64BIT)
        record = layout.JOURNAL_TAG_V3 if is_v3 else layout.JOURNAL_TAG
        size = tag_size(self.incompat)
        for index, at in enumerate(self._tag_offsets(data)):
            tag = {name: int(value) for name, value in record.unpack(data[at : at + size].ljust(16, b"\0")).items()}
            yield (
                tag["t_blocknr"] | (tag["t_blocknr_high"] << 32 if bits64 else 0),
                Copy(
                    self._wrapped(log_block + index),
                    sequence,
                    bool(tag["t_flags"] & layout.TAG_ESCAPED),
                    tag["t_checksum"] if self.has_checksums else None,
                    0xFFFFFFFF if is_v3 else 0xFFFF,
                ),
            )

    def _tag_offsets(self, data: bytes) -> Iterator[int]:
        """Yield the offsets of the tags of a descriptor block; there is at least one."""
        size = tag_size(self.incompat)
        at, end = _HEADER, len(data) - (layout.JOURNAL_TAIL_SIZE if self.has_checksums else 0)
        while at + size <= end:
            yield at
            flags = data[at + _FLAGS]
            if flags & layout.TAG_LAST:
                return
            at += size + (0 if flags & layout.TAG_SAME_UUID else _UUID_SIZE)

    def _revoked(self, data: bytes) -> set[int]:
        """Return the revoked blocks: recovery writes no copy of them from this or an earlier transaction."""
        used = int(layout.JOURNAL_REVOKE_BLOCK.unpack(data)["r_count"])
        most = len(data) - (layout.JOURNAL_TAIL_SIZE if self.has_checksums else 0)
        if used > most:
            raise self.damaged(f"a revoke block has {used} bytes, more than the {most} that fit")
        code = "Q" if self.incompat & layout.JOURNAL_64BIT else "I"
        numbers = array(code)
        start = layout.JOURNAL_REVOKE_BLOCK.size
        numbers.frombytes(data[start : start + max(0, used - start) // numbers.itemsize * numbers.itemsize])
        if sys.byteorder == "little":
            numbers.byteswap()
        return set(numbers)

    def _tail_holds(self, data: bytes) -> bool:
        if not self.has_checksums:
            return True
        at = len(data) - layout.JOURNAL_TAIL_SIZE
        return crc32c(data[:at] + bytes(layout.JOURNAL_TAIL_SIZE), self._seed) == int.from_bytes(data[at:], "big")

    def _commit_holds(self, data: bytes) -> bool:
        if not self.has_checksums:
            return True
        at = layout.JOURNAL_COMMIT_BLOCK.offsets["h_chksum"]
        stored = int.from_bytes(data[at : at + 4], "big")
        return crc32c(data[:at] + bytes(4) + data[at + 4 :], self._seed) == stored


_REVERSED = bytes(int(f"{byte:08b}"[::-1], 2) for byte in range(256))
_CRC32, _CRC32_SIZE = 1, 4  # h_chksum_type and h_chksum_size of version 1


def _is_later(one: int, other: int) -> bool:
    """True when transaction one came after other; the numbers wrap at 32 bits."""
    return 0 < (one - other & 0xFFFFFFFF) < 1 << 31
