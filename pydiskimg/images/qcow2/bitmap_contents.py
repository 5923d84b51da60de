# SPDX-License-Identifier: MIT
"""The bits of a dirty bitmap, changed in memory, one cluster at a time.

bitmap table   |  0  |  1  | offset | offset | ...      a cluster of bits: all zero, all one, or in the file
                              changed clusters are kept in memory until write_new() allocates clusters for them
"""

from __future__ import annotations

from array import array

from pydiskimg.errors import InvalidImageError, UnsupportedImageError
from pydiskimg.images.qcow2 import layout
from pydiskimg.images.qcow2.bitmaps import table_entries
from pydiskimg.images.qcow2.words import big_endian, numbers
from pydiskimg.protocols import read_bytes
from pydiskimg.startup import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from pydiskimg.protocols import Addressable, Store

ALL_ONES = 1  # section "Bitmap table": bit 0 of an entry without an offset
_RESERVED = 0xFF00_0000_0000_01FE
_PIECE = 1 << 16  # bytes of bits that are made at a time, or a cluster if that is larger
_LARGEST_PIECE = 16 << 20  # bytes of bits that are read at a time
_MOST_MERGED = 128 << 20  # bytes of bits that are held until they are written

# A byte's bits at half and at twice the granularity, for two bits and for one.
_HALVED = bytes(sum(bool(byte >> 2 * bit & 3) << bit for bit in range(4)) for byte in range(256))
_DOUBLED = [
    bytes(sum(3 << 2 * bit for bit in range(4) if byte >> shift >> bit & 1) for byte in range(256)) for shift in (0, 4)
]


class BitmapContents:
    """The bits of a bitmap in a file with clusters of cluster_size bytes, for a disk of disk_size bytes.

    granularity is the number of bytes for each bit, a power of two. table has the offsets of the clusters of bits, from
    read_table(). Changed clusters of bits are held in memory, at most MAX_BITMAP_SIZE bytes.
    """

    def __init__(
        self, file: Addressable, cluster_size: int, *, granularity: int, disk_size: int, table: array[int] | None = None
    ) -> None:
        self.disk_size = disk_size
        self.granularity = granularity
        self._file = file
        self._cluster_size = cluster_size
        self._changed: dict[int, bytearray] = {}
        self.left: list[int] = []  # offsets of clusters that are no longer referred to
        length = self._length(disk_size)
        self._table = array("Q", bytes(length * layout.ENTRY_SIZE)) if table is None else table
        self.is_changed = table is None
        assert len(self._table) == length

    @property
    def clusters(self) -> Iterator[int]:
        """The offsets in the file of the clusters of bits."""
        return filter(None, (entry & layout.ENTRY_OFFSET for entry in self._table))

    def clear(self) -> None:
        """Clear all bits."""
        self.left += self.clusters
        self._changed.clear()
        self._table = array("Q", bytes(len(self._table) * layout.ENTRY_SIZE))
        self.is_changed = True

    def set_range(self, start: int, end: int) -> None:
        """Set the bits for the bytes [start, end) of the disk; bytes beyond its end have none."""
        end = min(end, self.disk_size)
        if start >= end:
            return
        bit, last = start // self.granularity, (end - 1) // self.granularity
        per_cluster = 8 * self._cluster_size
        while bit <= last:
            index, inside = divmod(bit, per_cluster)
            count = min(per_cluster - inside, last + 1 - bit)
            if count == per_cluster:
                self._set_cluster(index)
            elif index in self._changed or self._table[index] != ALL_ONES:
                _set_bits(self._to_change(index), inside, count)
            bit += count

    def merge(self, other: BitmapContents) -> None:
        """Set the bits for all bytes for which other has bits; both are for disks of one size.

        Raises UnsupportedImageError if that takes too much memory.
        """
        assert self.disk_size == other.disk_size
        shift = self.granularity.bit_length() - other.granularity.bit_length()
        unit = max(_PIECE, self._cluster_size)
        piece = min(unit << shift, _LARGEST_PIECE) if shift >= 0 else max(1, unit >> -shift)
        about = 8 * other.granularity  # bytes of the disk for each byte of bits
        total = -(-other.disk_size // about)
        for at in range(0, total, piece):
            bits = other.read(at, min(piece, total - at))
            if bits.count(0xFF) == len(bits):
                self.set_range(at * about, (at + len(bits)) * about)
            elif bits.count(0) < len(bits):
                self._add((at << 3 >> shift if shift >= 0 else at << 3 << -shift) >> 3, _converted(bits, shift))
            if len(self._changed) * self._cluster_size > _MOST_MERGED:
                raise UnsupportedImageError(
                    f"{self._file.name}: the bits of the merged bitmap take more than {_MOST_MERGED} bytes of memory; "
                    "use a bitmap with a larger granularity"
                )
        self._clear_beyond_end()

    def resize(self, disk_size: int) -> None:
        """Adapt to a disk of another size; no bits are set for new bytes."""
        self._clear_beyond_end()
        length = self._length(disk_size)
        for index in range(length, len(self._table)):
            self._changed.pop(index, None)
            self._leave(index)
        self._table = self._table[:length] + array("Q", bytes(max(0, length - len(self._table)) * layout.ENTRY_SIZE))
        self.disk_size = disk_size
        self.is_changed = True
        self._clear_beyond_end()

    def read(self, at: int, length: int) -> bytes:
        """Return length bytes of bits from byte at on; those after the last cluster are zero."""
        parts: list[bytes | bytearray] = []
        for index, start, end in self._pieces(at, length):
            if index >= len(self._table):
                parts.append(bytes(end - start))
            else:
                parts.append(self._cluster(index)[start:end])
        return b"".join(parts)

    def write_new(self, store: Store, take: Callable[[int], int], leave: Callable[[int, int], None]) -> tuple[int, int]:
        """Write changed bits to new clusters; return (offset, entries) of the table, which is new, too.

        take allocates that many contiguous clusters of the file, counted once, and returns the first; leave gets the
        first and the number of clusters that are not referred to once the new table is. The caller must leave the table
        from which the contents were read.
        """
        size = self._cluster_size
        for index in sorted(self._changed):
            self._leave(index)
            bits = self._changed[index]
            self._table[index] = 0
            if any(bits):
                self._table[index] = take(1) * size
                store.write(self._table[index], bits)
        self._changed.clear()
        for offset in self.left:
            leave(offset // size, 1)
        self.left.clear()
        count = -(-len(self._table) * layout.ENTRY_SIZE // size)
        offset = take(count) * size
        store.write(offset, big_endian(self._table[:]).ljust(count * size, b"\0"))
        self.is_changed = False
        return offset, len(self._table)

    def _length(self, disk_size: int) -> int:
        return table_entries(disk_size, self.granularity.bit_length() - 1, self._cluster_size)

    def _leave(self, index: int) -> None:
        if offset := self._table[index] & layout.ENTRY_OFFSET:
            self.left.append(offset)

    def _cluster(self, index: int) -> bytes | bytearray:
        if (bits := self._changed.get(index)) is not None:
            return bits
        entry = self._table[index]
        if offset := entry & layout.ENTRY_OFFSET:
            return read_bytes(self._file, offset, self._cluster_size)
        return (b"\xff" if entry == ALL_ONES else b"\0") * self._cluster_size

    def _set_cluster(self, index: int) -> None:
        """Set all bits of a cluster of bits that is not beyond the end of the disk; takes no memory."""
        self._changed.pop(index, None)
        self._leave(index)
        self._table[index] = ALL_ONES
        self.is_changed = True

    def _to_change(self, index: int) -> bytearray:
        bits = self._changed.get(index)
        if bits is None:
            bits = self._changed[index] = bytearray(self._cluster(index))
        self.is_changed = True
        return bits

    def _pieces(self, at: int, length: int) -> Iterator[tuple[int, int, int]]:
        """Yield (cluster of bits, start, end) of [at, at + length)."""
        end = at + length
        while at < end:
            index, start = divmod(at, self._cluster_size)
            stop = min(self._cluster_size, start + end - at)
            yield index, start, stop
            at += stop - start

    def _add(self, at: int, bits: bytes) -> None:
        """Set the bits that are set in bits, from byte at on, as far as there are clusters for them."""
        position = 0
        for index, start, end in self._pieces(at, len(bits)):
            part = bits[position : position + end - start]
            position += end - start
            if index < len(self._table) and part.count(0xFF) == self._cluster_size:
                self._set_cluster(index)
            elif index < len(self._table) and any(part):
                present = self._to_change(index)
                both = int.from_bytes(part, "little") | int.from_bytes(present[start:end], "little")
                present[start:end] = both.to_bytes(end - start, "little")

    def _clear_beyond_end(self) -> None:
        """Clear the bits after the last valid one, which would be for bytes beyond the end of the disk."""
        count = -(-self.disk_size // self.granularity)
        index, inside = divmod(count, 8 * self._cluster_size)
        if index >= len(self._table) or (index not in self._changed and not self._table[index]):
            return
        whole, rest = divmod(inside, 8)
        found = self._cluster(index)
        wanted = bytearray(found)
        wanted[whole:] = bytes(self._cluster_size - whole)
        if rest:
            wanted[whole] = found[whole] & (1 << rest) - 1
        if wanted != found:
            self._to_change(index)[:] = wanted


def read_table(file: Addressable, offset: int, entries: int, cluster_size: int) -> array[int]:
    """Return the table of a bitmap. Raises InvalidImageError for one that contradicts the specification."""
    if offset % cluster_size or not offset or offset + entries * layout.ENTRY_SIZE > file.size:
        raise InvalidImageError(
            f"{file.name}: the bitmap table at 0x{offset:x}, with {entries} entries, is not aligned or not inside the "
            f"file (0x{file.size:x}); the image is truncated or corrupt"
        )
    table = numbers(read_bytes(file, offset, entries * layout.ENTRY_SIZE))
    if sum(entry > ALL_ONES for entry in table) > file.size // cluster_size:
        raise InvalidImageError(
            f"{file.name}: the bitmap table at 0x{offset:x} names more clusters than the file (0x{file.size:x}) has; "
            "the image is truncated or corrupt"
        )
    for index, entry in enumerate(table):
        host_offset = entry & layout.ENTRY_OFFSET
        if (
            entry & _RESERVED
            or host_offset % cluster_size
            or host_offset + cluster_size > file.size
            or (host_offset and entry & ALL_ONES)
        ):
            raise InvalidImageError(
                f"{file.name}: entry {index} of the bitmap table at 0x{offset:x} is 0x{entry:016x}, which is not the "
                "offset of a cluster in the file; the image is truncated or corrupt"
            )
    return table


def _set_bits(bits: bytearray, first: int, count: int) -> None:
    start, end = first // 8, (first + count + 7) // 8
    ones = (1 << count) - 1 << first % 8
    present = int.from_bytes(bits[start:end], "little")
    bits[start:end] = (present | ones).to_bytes(end - start, "little")


def _converted(bits: bytes, shift: int) -> bytes:
    """The bits at a granularity that is 2 to the shift times as large, from the same byte of the disk on."""
    for _ in range(shift):
        bits += bytes(len(bits) % 2)
        pairs = bits.translate(_HALVED)
        low, high = (int.from_bytes(pairs[parity::2], "little") for parity in (0, 1))
        bits = (low | high << 4).to_bytes(len(pairs) // 2, "little")
    for _ in range(-shift):
        doubled = bytearray(2 * len(bits))
        doubled[0::2], doubled[1::2] = bits.translate(_DOUBLED[0]), bits.translate(_DOUBLED[1])
        bits = bytes(doubled)
    return bits
