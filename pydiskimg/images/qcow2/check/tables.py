# SPDX-License-Identifier: MIT
"""Check an L2 table of a qcow2 file entry by entry: runs of neighbours as bytes, single entries in one tight loop.

A table is visited once, however many L1 entries refer to it; its findings are multiplied by their number.
"""

from __future__ import annotations

import sys
from array import array
from functools import lru_cache
from operator import sub

from pydiskimg.images.qcow2 import layout
from pydiskimg.images.qcow2.check.areas import REFCOUNT_TABLE
from pydiskimg.images.qcow2.check.findings import CheckResult
from pydiskimg.images.qcow2.check.reference_counter import ReferenceCounter
from pydiskimg.images.qcow2.header import Header
from pydiskimg.images.qcow2.refcount_reader import read_padded
from pydiskimg.images.qcow2.words import is_zero, numbers
from pydiskimg.protocols import Source

# Shorter runs are not worth the calls.
SHORT = 12

# Up to this many entries of a table are looked up one by one; for more, a pass over all entries is faster.
FEW = 1024
_COPIED_BYTE = layout.COPIED >> 56


class TableChecker:
    """Counts the references of L2 tables in counter, and the errors in their entries in result.

    Findings that do not depend on counts (reserved bits, offsets beyond the end, fragments) are reported only in the
    first pass: the tables are visited once for each window.
    """

    def __init__(
        self, file: Source, header: Header, counter: ReferenceCounter, result: CheckResult, *, is_first_pass: bool
    ) -> None:
        self._file = file
        self._file_size = file.size
        self._header = header
        self._counter = counter
        self._result = result
        self._is_first_pass = is_first_pass
        self._cluster_size = header.cluster_size
        # Properties of the header, which every entry needs.
        self._has_data_file, self._is_extended = header.has_data_file, header.extended_l2
        # Clusters of the window that begin inside the file.
        self._size = min(counter.end, -(-file.size // header.cluster_size)) - counter.first
        # Aligned offsets are multiples of this, so that all other bits of an entry are in one mask.
        self._aligned = layout.ENTRY_OFFSET & -header.cluster_size
        self._unusual = ~(self._aligned | layout.COPIED)
        # Set for the visited table.
        self._table = self._times = self._active = 0
        self._what = self._what_compressed = ""

    def visit(self, offset: int, active: int, inactive: int) -> None:
        """Check the table at offset, which the active layer refers to active times, snapshots inactive times."""
        self._table, self._times, self._active = offset, active + inactive, active
        self._what = f"the cluster of an entry of {self._name}"
        self._what_compressed = f"the compressed cluster of an entry of {self._name}"
        raw = read_padded(self._file, offset, self._cluster_size)
        if is_zero(raw):
            return
        if self._header.extended_l2:
            entries = numbers(raw)
            self._extended(entries[0::2], entries[1::2])
        elif self._header.has_data_file:
            self._one_by_one(numbers(raw))
        else:
            self._standard(raw)

    def add_range(self, offset: int, length: int, times: int, what: str, *, is_repairable: bool = False) -> None:
        """Count the references of a byte range, which may end in the file's last cluster but not beyond it."""
        cluster_size = self._cluster_size
        if length <= 0:
            return
        if offset + length - self._file_size >= cluster_size:
            if self._is_first_pass:
                text = ""
                if self._result.wants_details:
                    end = f"0x{offset + length:x}, beyond the end of the file (0x{self._file_size:x})"
                    text = f"{what} at 0x{offset:x} ends at {end}"
                if what == REFCOUNT_TABLE:
                    is_repairable = self._result.needs_rebuild = True
                self._result.add_corruption(text, times, is_repairable=is_repairable)
            return
        first, last = offset // cluster_size, (offset + length - 1) // cluster_size
        self._counter.add(first, last - first + 1, times)

    def _standard(self, raw: bytearray) -> None:
        """A table without subclusters and data file."""
        entries = _few_entries(raw) or numbers(raw)
        if self._is_one_run(entries):
            self._run(entries[0], len(entries), 0)
            return
        if 0 in entries:
            entries = array("Q", list(filter(None, entries)))
        steps = map(sub, memoryview(entries)[1:], entries)
        breaks = [index for index, step in enumerate(steps, 1) if step != self._cluster_size]
        if len(breaks) * SHORT > len(entries):
            self._singles(entries, 0)
        else:
            self._runs(entries, breaks)

    def _is_one_run(self, entries: array[int]) -> bool:
        count = len(entries)
        if not entries[0] or entries[-1] - entries[0] != (count - 1) * self._cluster_size:
            return False
        ones, ramp = _ramp(count, self._cluster_size)
        return (entries[0] * ones + ramp).to_bytes(count * 8, "little") == _little_endian(entries)

    def _runs(self, entries: array[int], breaks: list[int]) -> None:
        start = following = 0
        for stop in (*breaks, len(entries)):
            if stop - start < SHORT:
                following = self._singles(entries[start:stop], following)
            else:
                following = self._run(entries[start], stop - start, following)
            start = stop

    def _run(self, entry: int, count: int, following: int) -> int:
        """Contiguous clusters; returns the offset after them."""
        counter, cluster_size = self._counter, self._cluster_size
        offset = entry & layout.ENTRY_OFFSET
        end = offset + count * cluster_size
        index = offset // cluster_size - counter.first
        is_whole = not entry & self._unusual and offset > 0 and end <= self._file.size
        is_here = index >= 0 and index + count <= self._size
        if not (is_whole and is_here):
            return self._singles(array("Q", range(entry, entry + count * cluster_size, cluster_size)), following)
        counter.add(index + counter.first, count, self._times)
        if self._active:
            if not (entry & layout.COPIED and counter.are_stored_once(index, index + count)):
                for cluster in range(offset // cluster_size, end // cluster_size):
                    self._check_copied(cluster, bool(entry & layout.COPIED))
            if self._is_first_pass:
                self._result.allocated_clusters += count * self._active
                self._result.fragmented_clusters += (following not in (0, offset)) * self._active
        return end

    def _singles(self, entries: array[int], following: int) -> int:
        """Entries in any order; following is the offset at which a cluster is not a fragment (0: any).

        Returns the next one.
        """
        counter, cluster_size, bits = self._counter, self._cluster_size, self._header.cluster_bits
        references, stored, first, size = counter.references, counter.stored, counter.first, self._size
        unusual, mask, active, times = self._unusual, self._aligned, self._active, self._times
        fragments = others = 0
        for entry in entries:
            offset = entry & mask
            index = (offset >> bits) - first
            if entry & unusual or not offset or not 0 <= index < size:
                others += 1
                following = self._other(entry, 0, following)
                continue
            if offset != following:
                fragments += following != 0
            following = offset + cluster_size
            try:
                references[index] += times
            except ValueError:
                counter.saturate(index, times)
            if (stored[index] == 1) != entry >> 63 and active:
                self._check_copied(offset >> bits, bool(entry >> 63))
        if active and self._is_first_pass:
            self._result.allocated_clusters += (len(entries) - others) * active
            self._result.fragmented_clusters += fragments * active
        return following

    def _extended(self, entries: array[int], bitmaps: array[int]) -> None:
        following = 0
        for entry, bitmap in zip(entries, bitmaps, strict=True):
            if entry or bitmap:
                following = self._other(entry, bitmap, following)

    def _one_by_one(self, entries: array[int]) -> None:
        following = 0
        for entry in filter(None, entries):
            following = self._other(entry, 0, following)

    def _other(self, entry: int, bitmap: int, following: int) -> int:
        """An entry of any kind; returns the offset at which the next cluster is not a fragment."""
        if entry & layout.L2_COMPRESSED:
            self._compressed(entry, bitmap)
            return following
        if entry & layout.L2_STANDARD_RESERVED:
            self._corrupt("has reserved bits set", entry)
        offset = entry & layout.ENTRY_OFFSET
        is_zero = bool(entry & layout.L2_ZERO) and not self._is_extended
        if not offset and (is_zero or not (self._has_data_file and entry & layout.COPIED)):
            if not is_zero and bitmap & layout.SUBCLUSTERS_ALLOCATED:
                self._corrupt("has no cluster, and subclusters in it", entry, bitmap)
            return following
        return self._allocated(entry, bitmap, following)

    def _allocated(self, entry: int, bitmap: int, following: int) -> int:
        offset = entry & layout.ENTRY_OFFSET
        if bitmap >> 32 & bitmap & layout.SUBCLUSTERS_ALLOCATED:
            self._corrupt("has subclusters that are allocated and zero", entry, bitmap)
        is_repairable = False
        if offset % self._cluster_size:
            # The offset of a cluster without data can be dropped.
            unused = not bitmap & layout.SUBCLUSTERS_ALLOCATED if self._is_extended else entry & layout.L2_ZERO
            is_repairable = bool(unused)
            self._corrupt("names a cluster that is not aligned", entry, is_repairable=is_repairable)
        if self._active and self._is_first_pass:
            self._result.allocated_clusters += self._active
            self._result.fragmented_clusters += (following not in (0, offset)) * self._active
        if not self._has_data_file:
            self.add_range(offset, self._cluster_size, self._times, self._what, is_repairable=is_repairable)
        if self._active:
            self._check_copied(offset >> self._header.cluster_bits, bool(entry & layout.COPIED))
        return offset + self._cluster_size

    def _compressed(self, entry: int, bitmap: int) -> None:
        if entry & layout.COPIED:
            self._corrupt("is compressed and has the copied flag", entry, is_repairable=True)
        if self._has_data_file:
            self._corrupt("is compressed in an image with an external data file", entry)
            return
        if bitmap:
            self._corrupt("is compressed and has subclusters", entry, bitmap)
            return
        start, length = self._header.compressed_at(entry)
        self.add_range(start, length, self._times, self._what_compressed)
        if self._active and self._is_first_pass:
            self._result.allocated_clusters += self._active
            self._result.compressed_clusters += self._active
            self._result.fragmented_clusters += self._active

    def _check_copied(self, cluster: int, is_copied: bool) -> None:
        """The copied flag says that the stored count is 1; it is checked in the pass with the cluster in its window."""
        counter = self._counter
        if not self._table:  # an L1 entry without an offset: there is no flag to compare
            return
        if cluster < counter.first or (cluster >= counter.end and not counter.is_last):
            return
        if cluster < counter.counted and counter.is_unreadable(cluster):
            return
        count = 1 if self._has_data_file else counter.stored_count(cluster)
        if (count == 1) != is_copied:
            text = ""
            if self._result.wants_details:
                flag = "set" if is_copied else "not set"
                text = f"{self._name}: cluster {cluster} has the reference count {count}, and the copied flag is {flag}"
            self._result.add_wrong_flag(text, self._active)

    def _corrupt(self, what: str, entry: int, bitmap: int = 0, *, is_repairable: bool = False) -> None:
        """Count errors of an entry, in each table once; the sentence is made only if it will be kept."""
        if self._is_first_pass:
            text = ""
            if self._result.wants_details:
                subclusters = f" (0x{bitmap:016x})" if bitmap else ""
                text = f"{self._name}: the entry 0x{entry:016x} {what}{subclusters}"
            self._result.add_corruption(text, self._times, is_repairable=is_repairable)

    @property
    def _name(self) -> str:
        return f"the L2 table at 0x{self._table:x}"


def _few_entries(raw: bytearray) -> array[int] | None:
    """The entries of a table that are not zero, if they are few and all have the copied flag; otherwise None."""
    flags = raw[0::8]
    if flags.count(_COPIED_BYTE) > FEW:
        return None
    found, index = array("Q"), -1
    rest = bytearray(raw)
    with memoryview(rest) as view, view.cast("Q") as words:
        while (index := flags.find(_COPIED_BYTE, index + 1)) >= 0:
            found.append(words[index])
            words[index] = 0
    if not is_zero(rest):
        return None
    if sys.byteorder == "little":
        found.byteswap()
    return found


def _little_endian(entries: array[int]) -> bytes:
    if sys.byteorder == "big":
        entries = entries[:]
        entries.byteswap()
    return entries.tobytes()


@lru_cache(16)
def _ramp(count: int, step: int) -> tuple[int, int]:
    """Two numbers of count words of 64 bits: one has 1 in each word, the other 0, step, 2 * step, ..."""
    ones = int.from_bytes(b"\0\0\0\0\0\0\0\1" * count, "big")
    return ones, int.from_bytes(_little_endian(array("Q", range(0, count * step, step))), "little")
