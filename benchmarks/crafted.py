# SPDX-License-Identifier: MIT
"""qcow2 images taken apart and put together byte by byte, as no program makes them."""

from __future__ import annotations

import random
import struct
from collections.abc import Iterable
from pathlib import Path

CLUSTER = 1 << 16
ENTRIES = CLUSTER // 8
_COMPRESSED = 1 << 62
_OFFSET = 0x00FF_FFFF_FFFF_FE00
# With clusters of 64 KiB a compressed one has 54 bits of offset, then 8 bits of further sectors.
_OFFSET_BITS = 54


def scatter(path: Path, size: int) -> None:
    """Make an image with 1 % of its clusters allocated, at random places; their contents are holes of the file."""
    rng = random.Random(1)
    clusters, tables = size // CLUSTER, size // CLUSTER // ENTRIES
    chosen = rng.sample(range(clusters), clusters // 100)
    first_data = 3 + tables
    used = first_data + len(chosen)
    blocks = -(-used // (CLUSTER // 2 - 1))
    head = struct.pack(">4sIQIIQIIQQIIQ", b"QFI\xfb", 3, 0, 0, 16, size, 0, tables, 2 * CLUSTER, CLUSTER, 1, 0, 0)
    offsets = dict(zip(chosen, range(first_data, used), strict=True))
    with path.open("wb") as file:
        file.write((head + struct.pack(">QQQII", 0, 0, 0, 4, 104)).ljust(CLUSTER, b"\0"))
        file.write(_numbers((used + block) * CLUSTER for block in range(blocks)).ljust(CLUSTER, b"\0"))
        file.write(_numbers((3 + table) * CLUSTER | 1 << 63 for table in range(tables)).ljust(CLUSTER, b"\0"))
        for table in range(tables):
            span = range(table * ENTRIES, (table + 1) * ENTRIES)
            file.write(_numbers(offsets[index] * CLUSTER | 1 << 63 if index in offsets else 0 for index in span))
        file.seek(used * CLUSTER)
        file.write((b"\0\1" * (used + blocks)).ljust(blocks * CLUSTER, b"\0"))


def _numbers(values: Iterable[int]) -> bytes:
    return b"".join(value.to_bytes(8, "big") for value in values)


def clusters_of(image: Path, path: Path) -> None:
    """Write the compressed clusters of an image with clusters of 64 KiB, each after its length in four bytes."""
    with image.open("rb") as source, path.open("wb") as target:
        tables, table_offset = struct.unpack(">36xIQ", source.read(48))
        source.seek(table_offset)
        for entry in struct.unpack(f">{tables}Q", source.read(8 * tables)):
            if not entry & _OFFSET:
                continue
            source.seek(entry & _OFFSET)
            for cluster in struct.unpack(f">{ENTRIES}Q", source.read(CLUSTER)):
                if cluster & _COMPRESSED:
                    offset = cluster & (1 << _OFFSET_BITS) - 1
                    sectors = 1 + (cluster >> _OFFSET_BITS & 0xFF)
                    here = source.tell()
                    source.seek(offset)
                    found = source.read(sectors * 512 - offset % 512)
                    source.seek(here)
                    target.write(len(found).to_bytes(4, "big") + found)
