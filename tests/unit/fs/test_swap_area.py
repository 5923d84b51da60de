# SPDX-License-Identifier: MIT
"""Swap areas, and the places where old signatures are wiped."""

from __future__ import annotations

import struct
from uuid import UUID

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from pydiskimg.disks.memory import MemoryDisk
from pydiskimg.errors import DoesNotFitError, FileSystemError
from pydiskimg.fs.swap import make_swap
from pydiskimg.fs.wipe import signature_ranges
from pydiskimg.units import KIB, MIB, TIB

ONE = UUID("a3c1f2d4-0b1e-4c55-9a6f-1234567890ab")


def test_the_header() -> None:
    disk = MemoryDisk(1 * MIB + 100, fill=0xFF)
    info = make_swap(disk, label="swap", uuid=ONE)
    assert (info.uuid, info.label, info.pages, info.size) == (ONE, "swap", 255, 1 * MIB)
    assert disk.data[:1024] == bytes(1024)
    assert struct.unpack_from("<III16s16s", disk.data, 1024) == (1, 255, 0, ONE.bytes, b"swap".ljust(16, b"\0"))
    assert disk.data[1068:4086] == bytes(4086 - 1068)
    assert disk.data[4086:4096] == b"SWAPSPACE2"


def test_ten_pages_are_the_least() -> None:
    assert make_swap(MemoryDisk(40960)).pages == 9
    disk = MemoryDisk(40959, fill=0xFF)
    with pytest.raises(DoesNotFitError, match=r"at least 40960 bytes .* the disk has 40959") as caught:
        make_swap(disk)
    assert (caught.value.needed, caught.value.available) == (40960, 40959)
    assert disk.data == b"\xff" * 40959


@pytest.mark.parametrize("label", ["x" * 17, "ß" * 9, "a\0b"])
def test_labels_that_do_not_fit(label: str) -> None:
    disk = MemoryDisk(1 * MIB, fill=0xFF)
    with pytest.raises(FileSystemError, match="a label has at most 16"):
        make_swap(disk, label=label)
    assert disk.data == b"\xff" * MIB


def test_a_random_uuid() -> None:
    assert make_swap(MemoryDisk(MIB)).uuid != make_swap(MemoryDisk(MIB)).uuid


# Where libblkid, the kernel and the tools of each format look (their headers and superblock definitions).
FROM_START = {
    "LVM, first four sectors": (0, 2048),
    "md 1.1": (0, 4096),
    "md 1.2": (4096, 4096),
    "swap, pages of 64 KiB": (65526, 10),
    "iso9660, udf": (32 * KIB, 32 * KIB),
    "btrfs": (64 * KIB, 4096),
    "btrfs, second copy": (64 * MIB, 4096),
    "ufs": (256 * KIB, 8192),
    "zfs, two labels": (0, 512 * KIB),
    "LUKS2, second header, smallest": (16 * KIB, 4096),
    "LUKS2, second header at 1 MiB, and VMFS": (MIB, 4096),
    "LUKS2, second header at 2 MiB, VMFS, bcachefs": (2 * MIB, 4096),
    "LUKS2, second header, largest": (4 * MIB, 4096),
}


def end_places(size: int) -> dict[str, tuple[int, int]]:
    return {
        "GPT backup": (size // 512 * 512 - 33 * 512, 33 * 512),
        "md 0.90": (size // 65536 * 65536 - 65536, 4096),
        "md 1.0": ((size // 512 - 16) // 8 * 8 * 512, 4096),
        "DRBD": (size // 4096 * 4096 - 4096, 4096),
        "nilfs2": ((size // 512 - 8) * 512, 1024),
        "bcachefs": (size // 512 * 512 - MIB, 4096),
        "zfs, two labels": (size // (256 * KIB) * (256 * KIB) - 512 * KIB, 512 * KIB),
        "Promise": (size // 512 * 512 - 3087 * 512, 512),
    }


@example(64 * MIB + 4096)  # the end begins before the copy at 64 MiB
@given(st.integers(8 * MIB, 200 * MIB) | st.integers(8 * MIB, 16 * TIB))
def test_every_known_place_is_wiped(size: int) -> None:
    ranges: list[tuple[int, int]] = []
    for start, count in signature_ranges(size):
        follows = bool(ranges) and sum(ranges[-1]) == start
        first, before = ranges.pop() if follows else (start, 0)
        ranges.append((first, before + count))
    for name, (offset, length) in {**FROM_START, **end_places(size)}.items():
        if offset + length <= size:
            assert any(start <= offset and offset + length <= start + count for start, count in ranges), name


@given(st.integers(0, 100 * MIB))
def test_ranges_are_inside_ascending_and_disjoint(size: int) -> None:
    done = 0
    for offset, length in signature_ranges(size):
        assert done <= offset < offset + length <= size
        done = offset + length
    assert done == size, "the end is always wiped"
