# SPDX-License-Identifier: MIT
"""L2 tables of a qcow2 file, standard and with subclusters: checked as a whole, and classified.

A table can have a quarter of a million entries. They are classified by operations over all bytes of the table at once;
only a table with an error or an unusual entry is walked entry by entry.
"""

from __future__ import annotations

import sys

from pydiskimg.errors import InvalidImageError
from pydiskimg.images.qcow2 import layout
from pydiskimg.images.qcow2.runs import COMPRESSED, DATA, HOLE, ZERO
from pydiskimg.images.qcow2.words import combined, common, is_zero, nonzero_in, numbers
from pydiskimg.protocols import read_bytes
from pydiskimg.startup import TYPE_CHECKING, cached_property

if TYPE_CHECKING:
    from array import array
    from collections.abc import Callable
    from typing import TypeAlias

    from pydiskimg.images.qcow2.header import Header
    from pydiskimg.protocols import Source

    Report: TypeAlias = Callable[[int, int, InvalidImageError], None]

# Flags of an entry, one byte each while they are combined; the strongest determines the kind.
_HAS_COMPRESSED_BIT = (bytes(64) + b"\4" * 64) * 2
_HAS_ZERO_BIT = b"\0\2" * 128
_HAS_COPIED_BIT = bytes(128) + b"\1" * 128
_STANDARD = bytes((HOLE, DATA, ZERO, ZERO, *[COMPRESSED] * 4)).ljust(256, b"\0")

_NOT_NONE = bytes((0, *[1] * 255))
_WITHOUT_BIT_0 = bytes(byte & 0xFE for byte in range(256))

_ALL_BYTES = bytes(range(256))
_PIECE = 512  # bytes
_FEW = 8  # entries
_BEYOND_ANY_FILE = 1 << 64


class L2Table:
    """A checked L2 table: one byte of kind for each entry, and its 64-bit words.

    A kind is HOLE, ZERO, DATA, COMPRESSED, or MIXED for a cluster with subclusters of several kinds. words has one
    word for every entry, or two of them: the entry and the bitmap of its subclusters.
    """

    __slots__ = ("kinds", "step", "words")

    def __init__(self, words: array[int], kinds: bytes, step: int) -> None:
        self.words = words
        self.kinds = kinds
        self.step = step

    @property
    def memory(self) -> int:
        """The bytes of memory that it takes."""
        return len(self.words) * layout.ENTRY_SIZE + len(self.kinds)

    def entry(self, index: int) -> int:
        """The entry, without its bitmap."""
        return self.words[index * self.step]

    def bitmap(self, index: int) -> int:
        """The bitmap of an entry with subclusters."""
        return self.words[index * self.step + 1]

    def host(self, index: int) -> int:
        """The offset of the cluster of an entry that is not compressed."""
        return self.words[index * self.step] & layout.ENTRY_OFFSET

    def subclusters(self, index: int, end: int) -> bytes:
        """One byte of kind, HOLE, ZERO or DATA, for each subcluster of the entries from index to end.

        The entries have bitmaps and are not compressed. An image of 1 MiB can have two million of these, so they are
        expanded together.
        """
        from pydiskimg.images.qcow2.extended_entries import unfolded  # imported here: few images have subclusters

        return unfolded(*self.bitmaps(index, end))

    def bitmaps(self, index: int, end: int) -> tuple[bytes, bytes]:
        """The stored and zero subclusters of the entries from index to end: their bitmaps, four bytes for each."""
        bitmaps = self.words[2 * index + 1 : 2 * end : 2]
        if sys.byteorder == "big":
            bitmaps.byteswap()
        with memoryview(bitmaps.tobytes()).cast("I") as halves:
            return halves[0::2].tobytes(), halves[1::2].tobytes()

    def hosts(self, index: int, end: int) -> list[int]:
        """The offsets of the clusters of the entries from index to end, which are not compressed."""
        offset = layout.ENTRY_OFFSET
        return [word & offset for word in self.words[index * self.step : end * self.step : self.step]]

    def end_of_neighbours(self, index: int, end: int, cluster_size: int) -> int:
        """The first index after index, at most end, whose cluster does not follow that of the previous one."""
        words, step = self.words, self.step
        expected = self.host(index) + cluster_size
        for after in range(index + 1, end):
            if words[after * step] & layout.ENTRY_OFFSET != expected:
                return after
            expected += cluster_size
        return end


def _used_entries(raw: bytes) -> list[int]:
    """Return the indices of the entries that are not zero: all if they are few, and otherwise more than _FEW."""
    used: list[int] = []
    for start in range(0, len(raw), _PIECE):
        piece = raw[start : start + _PIECE]
        if not is_zero(piece):
            used += (start // layout.ENTRY_SIZE + index for index in nonzero_in(piece, layout.ENTRY_SIZE))
            if len(used) > _FEW:
                break
    return used


class TableReader:
    """Reads L2 tables of one image, and refuses the ones that contradict the specification."""

    def __init__(self, file: Source, header: Header, *, data_size: int | None) -> None:
        self._file = file
        self._header = header
        self._report: Report | None = None
        self._data_end = file.size
        if header.has_data_file:
            self._data_end = _BEYOND_ANY_FILE if data_size is None else data_size
        self._wrong = layout.ENTRY_OFFSET & (header.cluster_size - 1)
        self._wrong |= layout.L2_EXTENDED_RESERVED if header.extended_l2 else layout.L2_STANDARD_RESERVED
        if header.version < 3:
            self._wrong |= layout.L2_ZERO

    @cached_property
    def _sound(self) -> list[bytes]:
        """For each of the eight bytes of an entry, its valid values."""
        return _bytes_without(self._wrong | layout.L2_COMPRESSED)

    @cached_property
    def _near(self) -> list[bytes]:
        """The values of offsets below the largest power of two that is not beyond the end."""
        return _bytes_without(layout.ENTRY_OFFSET & -(1 << max(0, self._data_end.bit_length() - 1)))

    def read(self, index: int, offset: int) -> L2Table:
        """Return the table at offset in the file; index is its L1 entry's, for messages."""
        raw = read_bytes(self._file, offset, self._header.cluster_size)
        if self._report is None:
            return self._table(index, raw)
        try:
            return self._table(index, raw)
        except InvalidImageError:
            return self._table(index, self._forgiven(self._report, index, raw))

    def forgive(self, report: Report) -> None:
        """From now on, treat clusters whose entries contradict the specification as zero.

        report is called with the number of the table, that of the entry, and the error of the entry.
        """
        self._report = report
        self._wrong &= ~layout.L2_ZERO

    def _forgiven(self, report: Report, table: int, raw: bytes) -> bytes:
        """The table with zeros instead of wrong entries."""
        size = self._header.l2_entry_size
        zero = layout.L2_ZERO.to_bytes(8, "big") if size == layout.ENTRY_SIZE else bytes(8) + b"\xff" * 4 + bytes(4)
        changed = bytearray(raw)
        for index in range(self._header.l2_entries):
            words = numbers(raw[index * size : (index + 1) * size])
            try:
                self._check(table, index, words)
            except InvalidImageError as error:
                report(table, index, error)
                changed[index * size : (index + 1) * size] = zero
        return bytes(changed)

    def _check(self, table: int, index: int, words: array[int]) -> None:
        """Raise InvalidImageError if an entry, or its bitmap if it has one, is wrong."""
        entry = words[0]
        self._check_entry(table, index, entry)
        reads = self._is_stored(entry) and not entry & layout.L2_ZERO
        if len(words) > 1:
            self._check_bitmap(table, index, entry, words[1])
            reads = bool(words[1] & layout.SUBCLUSTERS_ALLOCATED)
        self._check_offset(table, index, entry, reads=reads)

    def _table(self, index: int, raw: bytes) -> L2Table:
        words = numbers(raw)
        if is_zero(raw):
            return L2Table(words, bytes((HOLE,)) * self._header.l2_entries, self._header.l2_entry_size // 8)
        if self._header.extended_l2:
            return self._extended(index, raw, words)
        used = _used_entries(raw)
        return self._few(index, words, used) if len(used) <= _FEW else self._standard(index, raw, words)

    def _few(self, table: int, words: array[int], used: list[int]) -> L2Table:
        """The table of a few used entries: one by one they take less time than all at once."""
        kinds = bytearray((HOLE,)) * len(words)
        for index in used:
            entry = words[index]
            if entry & (self._wrong | layout.L2_COMPRESSED) or entry & layout.ENTRY_OFFSET >= self._data_end:
                self._check(table, index, words[index : index + 1])
            if entry & layout.L2_COMPRESSED:
                kinds[index] = COMPRESSED
            elif entry & layout.L2_ZERO:
                kinds[index] = ZERO
            elif self._is_stored(entry):
                kinds[index] = DATA
        return L2Table(words, bytes(kinds), 1)

    def _standard(self, table: int, raw: bytes, words: array[int]) -> L2Table:
        parts = [raw[at::8] for at in range(8)]
        compressed = parts[0].translate(_HAS_COMPRESSED_BIT)
        if self._looks_wrong(parts, words, compressed):
            for index in range(self._header.l2_entries):
                self._check(table, index, words[index : index + 1])
        zero = parts[7].translate(_HAS_ZERO_BIT)
        return L2Table(words, combined(compressed, zero, self._stored(parts)).translate(_STANDARD), 1)

    def _extended(self, table: int, raw: bytes, words: array[int]) -> L2Table:
        from pydiskimg.images.qcow2.extended_entries import KINDS, UNSUSPECTED, entry_flags

        parts = [raw[at::16] for at in range(16)]
        entry_bytes, zero, allocated = parts[:8], parts[8:12], parts[12:]
        compressed = parts[0].translate(_HAS_COMPRESSED_BIT)
        flags = entry_flags(compressed, self._stored(entry_bytes), allocated, zero)
        wrong = flags.translate(None, UNSUSPECTED) or self._looks_wrong(entry_bytes, words[0::2], compressed)
        if wrong or not all(is_zero(common(a, z)) for a, z in zip(allocated, zero, strict=True)):
            for index in range(self._header.l2_entries):
                self._check(table, index, words[2 * index : 2 * index + 2])
        return L2Table(words, flags.translate(KINDS), 2)

    def _looks_wrong(self, parts: list[bytes], entries: array[int], compressed: bytes) -> bool:
        """True unless all entries are known to be valid; parts are their first bytes, their second ones, and so on."""
        if is_zero(compressed):
            if any(part.translate(None, sound) for part, sound in zip(parts, self._sound, strict=True)):
                return True
            if not any(part.translate(None, near) for part, near in zip(parts, self._near, strict=True)):
                return False
            return _largest_offset(entries) >= self._data_end
        packed = [entry for entry in entries if entry & layout.L2_COMPRESSED]
        others = [entry for entry in entries if not entry & layout.L2_COMPRESSED]
        offset_mask, wrong = (1 << self._header.compressed_offset_bits) - 1, self._wrong
        return (
            self._header.has_data_file
            or max([entry & offset_mask for entry in packed]) >= self._file.size
            or any(entry & wrong for entry in others)
            or max([entry & layout.ENTRY_OFFSET for entry in others], default=0) >= self._data_end
        )

    def _stored(self, parts: list[bytes]) -> bytes:
        """One byte for each entry: 1 if it is stored in the file (0 is a valid offset in an external data file)."""
        columns = [*parts[1:6], parts[6].translate(_WITHOUT_BIT_0)]
        if self._header.has_data_file:
            columns.append(parts[0].translate(_HAS_COPIED_BIT))
        return combined(*columns).translate(_NOT_NONE)

    def _is_stored(self, entry: int) -> bool:
        return bool(entry & (layout.ENTRY_OFFSET | (layout.COPIED if self._header.has_data_file else 0)))

    def _check_entry(self, table: int, index: int, entry: int) -> None:
        where = f"L2 table {table}, entry {index}"
        if entry & layout.L2_COMPRESSED:
            offset, _ = self._header.compressed_at(entry)
            if self._header.has_data_file:
                raise self._invalid(where, "is a compressed cluster, and the image has an external data file")
            if offset >= self._file.size:
                raise self._invalid(where, _beyond(f"compressed cluster offset 0x{offset:x}", self._file.size))
        elif entry & self._wrong:
            raise self._invalid(where, f"0x{entry:016x} has reserved bits set or is not aligned")

    def _check_bitmap(self, table: int, index: int, entry: int, bitmap: int) -> None:
        text = ""
        if bitmap and entry & layout.L2_COMPRESSED:
            text = "is that of a compressed cluster, which has no subclusters"
        elif bitmap & bitmap >> layout.SUBCLUSTERS & layout.SUBCLUSTERS_ALLOCATED:
            text = "has subclusters that are allocated and zero at once"
        elif bitmap & layout.SUBCLUSTERS_ALLOCATED and not self._is_stored(entry):
            text = "has allocated subclusters, and the cluster has no place in the file"
        if text:
            raise self._invalid(f"L2 table {table}, entry {index}", f"the bitmap 0x{bitmap:016x} {text}")

    def _check_offset(self, table: int, index: int, entry: int, *, reads: bool) -> None:
        """reads means that some of the cluster's bytes are to be read from the location in entry."""
        offset = entry & layout.ENTRY_OFFSET
        if reads and offset >= self._data_end and not entry & layout.L2_COMPRESSED:
            where = "external data file" if self._header.has_data_file else "file"
            raise self._invalid(
                f"L2 table {table}, entry {index}", _beyond(f"cluster offset 0x{offset:x}", self._data_end, where)
            )

    def _invalid(self, where: str, text: str) -> InvalidImageError:
        return InvalidImageError(f"{self._file.name}: {where}: {text}; the image is truncated or corrupt")


def _beyond(what: str, end: int, file: str = "file") -> str:
    return f"{what} lies beyond the end of the {file} (0x{end:x})"


def _largest_offset(entries: array[int]) -> int:
    """The largest offset in valid entries, whose only higher bit is the copied bit."""
    from array import array

    raw = bytearray(entries.tobytes())
    raw[7 if sys.byteorder == "little" else 0 :: 8] = bytes(len(entries))
    return max(array("Q", raw)) & layout.ENTRY_OFFSET


def _bytes_without(mask: int) -> list[bytes]:
    """For each of the eight bytes of an entry: its values without any bit of mask."""
    found = {0: _ALL_BYTES, 0xFF: b"\0"}
    for bits in mask.to_bytes(8, "big"):
        if bits not in found:
            found[bits] = bytes(byte for byte in _ALL_BYTES if not byte & bits)
    return [found[bits] for bits in mask.to_bytes(8, "big")]
