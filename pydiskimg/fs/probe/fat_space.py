# SPDX-License-Identifier: MIT
"""The number of free clusters of a FAT file system: zero entries of its allocation table, as Linux counts them.

The number that FAT32 keeps in its FSInfo sector is a hint; Linux does not rely on it unless it is told to (usefree).
"""

from __future__ import annotations

import sys
from array import array

from pydiskimg.errors import FileSystemError
from pydiskimg.fs.probe.vfat import FatGeometry
from pydiskimg.protocols import Source, read_bytes

_PIECE = 3 << 18  # bytes: whole entries of 12, 16 and 32 bits
_RESERVED = 2  # entries before the first cluster's
_IN_USE = {16: 0xFFFF, 32: 0x0FFF_FFFF}  # the bits of an entry that tell how its cluster is used


def free_clusters(source: Source, geometry: FatGeometry) -> int:
    """Return the number of free clusters. Raises FileSystemError if source ends before its allocation table."""
    end = -(-(geometry.clusters + _RESERVED) * geometry.bits // 8)
    if geometry.table + end > source.size:
        raise FileSystemError(
            f"{source.name}: its space cannot be counted: the allocation table ends at byte {geometry.table + end} of "
            f"{source.size}"
        )
    count = free = 0  # entries
    for offset in range(0, end, _PIECE):
        piece = read_bytes(source, geometry.table + offset, min(_PIECE, end - offset))
        entries = _entries(piece, geometry.bits)[: geometry.clusters + _RESERVED - count]
        free += entries.count(0) - (entries[:_RESERVED].count(0) if not offset else 0)
        count += len(entries)
    return free


def _entries(piece: bytes, bits: int) -> array[int]:
    """Return the entries of a piece of the table."""
    if bits == 12:
        pairs = (int.from_bytes(piece[at : at + 3], "little") for at in range(0, len(piece), 3))
        return array("H", (entry for pair in pairs for entry in (pair & 0xFFF, pair >> 12)))
    kept = _IN_USE[bits].to_bytes(bits // 8, "little") * (len(piece) * 8 // bits)
    masked = int.from_bytes(piece, "little") & int.from_bytes(kept, "little")
    entries = array("H" if bits == 16 else "I")
    entries.frombytes(masked.to_bytes(len(piece), "little"))
    if sys.byteorder == "big":
        entries.byteswap()
    return entries
