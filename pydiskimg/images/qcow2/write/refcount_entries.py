# SPDX-License-Identifier: MIT
"""The entries of a refcount block, of every width from 1 to 64 bits (QEMU docs/interop/qcow2, "Refcounts")."""

from __future__ import annotations

import sys
from array import array

from pydiskimg.images.qcow2.words import length_in_use
from pydiskimg.startup import cached_property

_TYPE_CODES = {3: "B", 4: "H", 5: "I", 6: "Q"}


class RefcountEntries:
    """The layout of numbers in a refcount block: big-endian, or below 8 bits in each byte from its lowest bit on."""

    def __init__(self, order: int) -> None:
        self.order = order
        self.largest = (1 << (1 << order)) - 1
        self._bytes = 1 << max(0, order - 3)
        self._zero = bytes(self._bytes)

    @cached_property
    def _full(self) -> bytes:
        """Below 8 bits: 0 for each byte value that contains a zero entry."""
        bits = range(0, 8, 1 << self.order)
        return bytes(all(byte >> bit & self.largest for bit in bits) for byte in range(256))

    def per_block(self, cluster_size: int) -> int:
        """The number of entries in a block, which is a cluster."""
        return cluster_size * 8 >> self.order

    def span(self, index: int, count: int = 1) -> tuple[int, int]:
        """[low, high) of the bytes with the entries [index, index + count)."""
        return index << self.order >> 3, ((index + count << self.order) + 7) >> 3

    def get(self, raw: bytearray, index: int) -> int:
        """The entry."""
        if self.order >= 3:
            at = index * self._bytes
            return int.from_bytes(raw[at : at + self._bytes], "big")
        bit = index << self.order
        return raw[bit >> 3] >> (bit & 7) & self.largest

    def put(self, raw: bytearray, index: int, value: int) -> None:
        """Change the entry; value is from 0 to largest."""
        if self.order >= 3:
            at = index * self._bytes
            raw[at : at + self._bytes] = value.to_bytes(self._bytes, "big")
            return
        bit = index << self.order
        raw[bit >> 3] = raw[bit >> 3] & ~(self.largest << (bit & 7)) | value << (bit & 7)

    def fill(self, raw: bytearray, index: int, count: int, value: int) -> None:
        """Give count entries one value."""
        if self.order >= 3:
            low, high = self.span(index, count)
            raw[low:high] = value.to_bytes(self._bytes, "big") * count
            return
        for at in range(index, index + count):
            self.put(raw, at, value)

    def unpacked(self, raw: bytearray) -> list[int]:
        """The entries in whole bytes of a block."""
        if self.order >= 3:
            values = array(_TYPE_CODES[self.order], raw)
            if sys.byteorder == "little":
                values.byteswap()
            return values.tolist()
        bits = range(0, 8, 1 << self.order)
        return [byte >> bit & self.largest for byte in raw for bit in bits]

    def packed(self, values: list[int]) -> bytes:
        """The bytes of entries, which are from 0 to largest and fill whole bytes."""
        if self.order >= 3:
            numbers = array(_TYPE_CODES[self.order], values)
            if sys.byteorder == "little":
                numbers.byteswap()
            return numbers.tobytes()
        number, count = 0, 8 >> self.order
        for at in range(count):
            number |= int.from_bytes(bytes(values[at::count]), "big") << (at << self.order)
        return number.to_bytes(len(values) // count, "big")

    def are(self, raw: bytearray, index: int, count: int, value: int) -> bool:
        """True if count entries have this value."""
        if self.order >= 3:
            low, high = self.span(index, count)
            return raw[low:high] == value.to_bytes(self._bytes, "big") * count
        return all(self.get(raw, at) == value for at in range(index, index + count))

    def first_zero(self, raw: bytearray, index: int) -> int:
        """The first entry from index on that is zero; the number of entries if there is none."""
        count = self.per_block(len(raw))
        if self.order >= 3:
            at = raw.find(self._zero, index * self._bytes)
            while at >= 0 and at % self._bytes:
                at = raw.find(self._zero, at + self._bytes - at % self._bytes)
            return at // self._bytes if at >= 0 else count
        while index < count and (index << self.order) % 8:
            if not self.get(raw, index):
                return index
            index += 1
        at = raw.translate(self._full).find(0, index << self.order >> 3)
        if at < 0:
            return count
        index = at << 3 >> self.order
        while self.get(raw, index):
            index += 1
        return index

    def zeros_from(self, raw: bytearray, index: int, most: int) -> int:
        """How many entries from index on are zero, at most most."""
        most = min(most, self.per_block(len(raw)) - index)
        if self.are(raw, index, most, 0):
            return most
        count = 0
        while not self.get(raw, index + count):
            count += 1
        return count

    def last_used(self, raw: bytearray) -> int:
        """The last entry that is not zero; -1 if there is none."""
        stripped = length_in_use(raw)
        if not stripped:
            return -1
        index = min(stripped * 8 >> self.order, self.per_block(len(raw)) - 1)
        while not self.get(raw, index):
            index -= 1
        return index
