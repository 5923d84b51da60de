# SPDX-License-Identifier: MIT
"""The numbers of a table, big-endian in the file, and flags of all of them at once."""

from __future__ import annotations

import sys

from pydiskimg.startup import TYPE_CHECKING

if TYPE_CHECKING:
    from array import array
    from collections.abc import Iterator

_NOT_ZERO = b"\0" + b"\1" * 255
_PIECE = 4 << 10


def numbers(raw: bytes | bytearray) -> array[int]:
    """The big-endian 64-bit numbers in raw."""
    from array import array  # imports collections.abc: only if there is a table

    entries = array("Q", raw)
    if sys.byteorder == "little":
        entries.byteswap()
    return entries


def big_endian(numbers: array[int]) -> bytes:
    """Return the numbers as in a table; the array may be byte-swapped on the way."""
    if sys.byteorder == "little":
        numbers.byteswap()
    return numbers.tobytes()


def nonzero(words: array[int]) -> Iterator[int]:
    """Yield the indices of the words that are not zero; runs of zeros are skipped as bytes."""
    return nonzero_in(words.tobytes(), words.itemsize)


def nonzero_in(raw: bytes, size: int) -> Iterator[int]:
    """Yield the indices of the words of size bytes in raw that are not zero."""
    marks = raw.translate(_NOT_ZERO)
    at = marks.find(1)
    while at >= 0:
        yield at // size
        at = marks.find(1, (at // size + 1) * size)


def is_zero(raw: bytes | bytearray) -> bool:
    """True if all bytes are zero; as fast as comparing memory."""
    return raw == bytes(len(raw))


def length_in_use(raw: bytes | bytearray) -> int:
    """Return the length of raw up to its last byte that is not zero."""
    end = len(raw)
    while end > _PIECE and is_zero(raw[end - _PIECE : end]):
        end -= _PIECE
    start = max(0, end - _PIECE)
    return start + len(raw[start:end].rstrip(b"\0")) if not is_zero(raw[start:end]) else 0


def combined(*flags: bytes) -> bytes:
    """The bytes of all flags or-ed together, place by place."""
    number = 0
    for each in flags:
        if not is_zero(each):
            number |= int.from_bytes(each, "big")
    return number.to_bytes(len(flags[0]), "big")


def common(*flags: bytes) -> bytes:
    """The bytes of all flags and-ed together, place by place."""
    number = -1
    for each in flags:
        number &= int.from_bytes(each, "big")
    return number.to_bytes(len(flags[0]), "big")
