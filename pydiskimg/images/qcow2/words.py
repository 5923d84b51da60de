# SPDX-License-Identifier: MIT
"""The numbers of a table, which the file has in big-endian byte order."""

from __future__ import annotations

import sys
from array import array


def numbers(raw: bytes | bytearray) -> array[int]:
    """The big-endian 64-bit numbers that raw consists of."""
    entries = array("Q", raw)
    if sys.byteorder == "little":
        entries.byteswap()
    return entries


def big_endian(numbers: array[int]) -> bytes:
    """Return the numbers as a table has them; the array may be swapped on the way."""
    if sys.byteorder == "little":
        numbers.byteswap()
    return numbers.tobytes()
