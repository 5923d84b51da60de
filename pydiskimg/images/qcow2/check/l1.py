# SPDX-License-Identifier: MIT
"""Check the L1 tables of a qcow2 file; every L2 table is visited once, however many L1 entries refer to it."""

from __future__ import annotations

from collections.abc import Sequence

from pydiskimg.images.qcow2 import layout
from pydiskimg.images.qcow2.check.areas import L1Table
from pydiskimg.images.qcow2.check.findings import CheckResult
from pydiskimg.images.qcow2.check.reference_counter import ReferenceCounter
from pydiskimg.images.qcow2.check.tables import TableChecker
from pydiskimg.images.qcow2.header import Header
from pydiskimg.images.qcow2.refcount_reader import read_padded
from pydiskimg.images.qcow2.words import is_zero, numbers
from pydiskimg.protocols import Progress, Source

# L2 tables that are collected before they are visited: about 16 MiB.
GROUP = 128 << 10
PIECE = 1 << 20
# L2 tables at wrong offsets overlap each other: without limits on their number and total size, a small file would cause
# much work.
MISALIGNED = 64
MISALIGNED_BYTES = 1 << 20
_INACTIVE = 1 << 32  # references by snapshots are counted in higher bits than those by the active layer


class L1Walk:
    """One walk over L1 tables, for the clusters of one window; see TableChecker for is_first_pass."""

    def __init__(
        self,
        file: Source,
        header: Header,
        tables: TableChecker,
        counter: ReferenceCounter,
        result: CheckResult,
        *,
        is_first_pass: bool,
    ) -> None:
        self._file = file
        self._header = header
        self._tables = tables
        self._counter = counter
        self._result = result
        self._is_first_pass = is_first_pass
        self._found: dict[int, int] = {}
        self._misaligned: set[int] = set()
        self._most_misaligned = max(1, min(MISALIGNED, MISALIGNED_BYTES // header.cluster_size))
        self._done = 0
        self._total = 0

    def walk(self, l1_tables: Sequence[L1Table], progress: Progress) -> None:
        """Walk the active L1 table, which is the first one, and those of the snapshots; report progress in bytes."""
        self._total = sum(table.entries for table in l1_tables) * layout.ENTRY_SIZE
        for number, table in enumerate(l1_tables):
            is_active = number == 0
            for at in range(0, table.entries * layout.ENTRY_SIZE, PIECE):
                length = min(PIECE, table.entries * layout.ENTRY_SIZE - at)
                self._piece(table, table.offset + at, length, is_active=is_active)
                self._done += length
                if len(self._found) >= GROUP:
                    self._visit(progress)
        self._visit(progress)

    def _piece(self, table: L1Table, offset: int, length: int, *, is_active: bool) -> None:
        raw = read_padded(self._file, offset, length)
        if is_zero(raw):
            return
        found = self._found
        times = 1 if is_active else table.times * _INACTIVE
        for entry in numbers(raw):
            if entry:
                l2_offset = entry & layout.ENTRY_OFFSET
                if self._check_entry(entry, table, is_active=is_active):
                    found[l2_offset] = found.get(l2_offset, 0) + times

    def _check_entry(self, entry: int, table: L1Table, *, is_active: bool) -> bool:
        """False if there is no L2 table to visit."""
        offset = entry & layout.ENTRY_OFFSET
        self._tables.add_range(offset, self._header.cluster_size, table.times, f"an L2 table of {table.what}")
        if self._is_first_pass and entry & layout.L1_RESERVED:
            self._result.add_corruption(f"{table.what}: the entry 0x{entry:016x} has reserved bits set", table.times)
        if is_active and offset:
            self._check_copied(entry, offset // self._header.cluster_size)
        if offset % self._header.cluster_size:
            if self._is_first_pass:
                self._result.add_corruption(
                    f"{table.what}: the entry 0x{entry:016x} names an L2 table that is not aligned", table.times
                )
            if len(self._misaligned) < self._most_misaligned:
                self._misaligned.add(offset)
            elif offset not in self._misaligned:
                return False
        return offset < self._file.size

    def _check_copied(self, entry: int, cluster: int) -> None:
        counter = self._counter
        if cluster < counter.first or (cluster >= counter.end and not counter.is_last):
            return
        if counter.is_unreadable(cluster):
            return
        count = counter.stored_count(cluster)
        if (count == 1) != bool(entry & layout.COPIED):
            self._result.add_wrong_flag(
                f"the L1 table: the entry 0x{entry:016x} has a copied flag that is wrong for the reference count "
                f"{count} of its L2 table"
            )

    def _visit(self, progress: Progress) -> None:
        before = self._done - self._done // 2  # collecting counts half, visiting the rest
        count = len(self._found)
        for index, (offset, times) in enumerate(self._found.items()):
            self._tables.visit(offset, times % _INACTIVE, times // _INACTIVE)
            if index % 256 == 0:
                progress(before + (self._done - before) * index // count, self._total)
        self._found.clear()
        progress(self._done, self._total)
