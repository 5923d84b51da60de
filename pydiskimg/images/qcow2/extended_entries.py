# SPDX-License-Identifier: MIT
"""Extended L2 entries (with subclusters): the kinds of all clusters of a table, or of all subclusters, at once."""

from __future__ import annotations

from pydiskimg.images.qcow2.runs import COMPRESSED, DATA, HOLE, MIXED, ZERO
from pydiskimg.images.qcow2.words import combined, common
from pydiskimg.startup import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

# Flags: whether any and whether all of the subclusters are allocated (1, 2) or zero (8, 16), whether the cluster is
# compressed (4), and whether it is stored in the file (32).
_NOT_NONE = bytes((0, *[1] * 255))
_ANY_ALLOCATED, _ANY_ZERO = _NOT_NONE, bytes((0, *[8] * 255))
_ALL_ALLOCATED, _ALL_ZERO = bytes((*[0] * 255, 2)), bytes((*[0] * 255, 16))
_STORED = bytes((0, *[32] * 255))
KINDS = bytes(
    COMPRESSED if flags & 4 else {0: HOLE, 1 | 2: DATA, 8 | 16: ZERO}.get(flags & 31, MIXED) for flags in range(256)
)
# Allocated only with a location, compressed only without a bitmap; all others are examined one by one.
UNSUSPECTED = bytes(flags for flags in range(64) if (not flags & 27 if flags & 4 else flags & 32 or not flags & 3))

# Eight subclusters for each byte of a bitmap: 1 or 2 for a set bit; and the kind for the combination of both.
_ALLOCATED_BITS = [bytes(byte >> bit & 1 for bit in range(8)) for byte in range(256)]
_ZERO_BITS = [bytes((byte >> bit & 1) * 2 for bit in range(8)) for byte in range(256)]
_SUBCLUSTER = bytes((HOLE, DATA, ZERO)).ljust(256, b"\0")


def entry_flags(compressed: bytes, stored: bytes, allocated: Sequence[bytes], zero: Sequence[bytes]) -> bytes:
    """Return one byte of flags for each entry; translated by KINDS it is the kind, or MIXED.

    compressed is 4 for a compressed entry, stored 1 for one with a location. allocated and zero are the halves of the
    bitmaps, four bytes each: the first bytes of all entries, their second ones, and so on.
    """
    return combined(
        compressed,
        combined(*allocated).translate(_ANY_ALLOCATED),
        common(*allocated).translate(_ALL_ALLOCATED),
        combined(*zero).translate(_ANY_ZERO),
        common(*zero).translate(_ALL_ZERO),
        stored.translate(_STORED),
    )


def unfolded(stored: bytes, zero: bytes) -> bytes:
    """Return one byte of kind, HOLE, ZERO or DATA, for each subcluster with a bit in the bitmaps."""
    return combined(
        b"".join(map(_ALLOCATED_BITS.__getitem__, stored)), b"".join(map(_ZERO_BITS.__getitem__, zero))
    ).translate(_SUBCLUSTER)
