# SPDX-License-Identifier: MIT
"""What of a swap area must be kept, and what is no longer one."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pydiskimg.disks.memory import MemoryDisk
from pydiskimg.fs.probe import probe
from pydiskimg.fs.swap import make_swap, swap_used
from pydiskimg.units import KIB

SIZE = 1024 * KIB


def swap(size: int = SIZE, *, fill: int = 0xFF) -> MemoryDisk:
    """A swap area in use: anything may follow its header."""
    disk = MemoryDisk(size, fill=fill)
    make_swap(disk, label="swap")
    disk.data[4096:] = bytes([fill]) * (size - 4096)
    return disk


def large_pages(page_size: int, order: str) -> MemoryDisk:
    disk = MemoryDisk(SIZE)
    struct.pack_into(f"{order}3I", disk.data, 1024, 1, SIZE // page_size - 1, 0)
    disk.data[page_size - 10 : page_size] = b"SWAPSPACE2"
    return disk


@pytest.mark.parametrize(("size", "tail"), [(SIZE, 0), (SIZE + 1, 1), (SIZE + 4095, 4095)])
def test_the_header_and_what_lies_behind(size: int, tail: int) -> None:
    expected = [(0, 4096)] + ([(SIZE, size)] if tail else [])
    assert swap_used(swap(size)) == expected


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("page_size", [4096, 8192, 16384, 32768, 65536])
def test_pages_of_other_machines(page_size: int, order: str) -> None:
    assert swap_used(large_pages(page_size, order)) == [(0, page_size)]


def test_an_area_in_a_partition_that_has_grown() -> None:
    disk = swap()
    disk.data += b"new" * 1000
    assert swap_used(disk) == [(0, 4096), (SIZE, SIZE + 3000)]


def test_bad_pages() -> None:
    disk = swap()
    struct.pack_into("<I", disk.data, 1032, 2)
    struct.pack_into("<2I", disk.data, 1536, 7, 9)
    assert swap_used(disk) == [(0, 4096)]


@pytest.mark.parametrize(
    ("offset", "data", "reason"),
    [
        (4086, b"S1SUSPEND\0", "no signature"),
        (4086, b"SWAP-SPACE", "no signature"),
        (1024, b"\2", "not of version 1"),
        (1028, struct.pack("<I", SIZE // 4096), f"ends at byte {SIZE + 4096}, its partition at {SIZE}"),
        (1028, bytes(4), "ends at byte 4096"),
        (1032, b"\xff\xff\xff\xff", "mkswap does not write"),
        (1032, struct.pack("<I", 638), "mkswap does not write"),
        (0, b"NTFS", "mkswap does not write"),
        (1100, b"x", "mkswap does not write"),
        (3000, b"x", "mkswap does not write"),
    ],
)
def test_what_is_not_believed(offset: int, data: bytes, reason: str) -> None:
    disk = swap()
    disk.data[offset : offset + len(data)] = data
    found = swap_used(disk)
    assert isinstance(found, str)
    assert reason in found


@settings(max_examples=200)
@given(
    size=st.integers(0, 200 * KIB),
    changes=st.lists(st.tuples(st.integers(0, 5000), st.binary(min_size=1, max_size=6)), max_size=4),
)
def test_any_bytes_and_any_size(size: int, changes: list[tuple[int, bytes]]) -> None:
    disk = swap(max(size, 40960))
    del disk.data[size:]
    for offset, change in changes:
        disk.data[offset : offset + len(change)] = change
    found = swap_used(disk)
    if not isinstance(found, str):
        assert found[0][0] == 0
        assert all(0 <= start < end <= disk.size for start, end in found)
        assert probe(disk) is not None
