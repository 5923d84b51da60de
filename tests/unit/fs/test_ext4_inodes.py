# SPDX-License-Identifier: MIT
"""What the fields of an inode say: times, devices, owners; and the checksums of many inodes at once."""

from __future__ import annotations

import random

import pytest

from pydiskimg.fs.ext4 import layout
from pydiskimg.fs.ext4.acl import acl_attribute
from pydiskimg.fs.ext4.checksums import Checksums
from pydiskimg.fs.ext4.features import FEATURES, Features
from pydiskimg.fs.ext4.inode_fields import largest_file
from pydiskimg.fs.ext4.inodes import StoredInode, device_number, time_ns

SECOND = 10**9


@pytest.mark.parametrize(
    ("seconds", "extra", "expected"),
    [  # the table of inodes.rst
        (0x80000000, 0, -(1 << 31)),
        (0xFFFFFFFF, 0, -1),
        (0, 0, 0),
        (0x7FFFFFFF, 0, (1 << 31) - 1),
        (0x80000000, 1, 1 << 31),
        (0xFFFFFFFF, 1, (1 << 32) - 1),
        (0x7FFFFFFF, 1, (1 << 31) - 1 + (1 << 32)),
        (0x80000000, 2, (1 << 31) + (1 << 32)),
        (0x7FFFFFFF, 3, (1 << 31) - 1 + (3 << 32)),
    ],
)
def test_times_until_2446(seconds: int, extra: int, expected: int) -> None:
    assert time_ns(seconds, extra) == expected * SECOND
    assert time_ns(seconds, extra | 999_999_999 << 2) == expected * SECOND + 999_999_999


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        (0x0103, 0, (1, 3)),
        (0xFFFF, 0, (255, 255)),
        (0, 0x0103, (1, 3)),
        (0, 300_000 & 0xFF | 260 << 8 | (300_000 & ~0xFF) << 12, (260, 300_000)),
        (0, 0xFFFFFFFF, (0xFFF, 0xFFFFF)),
    ],
)
def test_devices_of_both_forms(old: int, new: int, expected: tuple[int, int]) -> None:
    assert device_number(old.to_bytes(4, "little") + new.to_bytes(4, "little") + bytes(52)) == expected


@pytest.mark.parametrize(("extra", "expected"), [(0, 0), (4, 0), (8, 0), (12, 7), (32, 7)])
def test_nanoseconds_are_there_where_the_extra_size_says_so(extra: int, expected: int) -> None:
    raw = layout.INODE.pack(i_mtime=5, i_mtime_extra=7 << 2, i_crtime=9, i_extra_isize=extra, i_projid=3)
    inode = StoredInode(12, 0, 0, raw, 0)
    assert inode.time_ns("i_mtime") == 5 * SECOND + expected
    assert inode.time_ns("i_crtime") == (9 * SECOND if extra == 32 else 0)
    assert inode.project == (3 if extra == 32 else 0)


@pytest.mark.parametrize(("size", "extra"), [(128, 0), (256, 0), (256, 3), (256, 4), (512, 32), (1024, 256)])
def test_a_bit_of_an_inode_breaks_its_checksum(size: int, extra: int) -> None:
    checksums, rng = Checksums(FEATURES["ext4"], bytes(range(16))), random.Random(size)
    inode = bytearray(rng.randbytes(size))
    if size > 128:
        inode[128:130] = extra.to_bytes(2, "little")
    seed, another = (checksums.for_inode(number, bytes(inode[100:104])) for number in (70, 71))
    checksums.inode(seed, inode)
    assert checksums.inode_holds(seed, bytes(inode))
    assert not checksums.inode_holds(another, bytes(inode))
    for bit in rng.sample(range(8 * size), 40):
        broken = bytearray(inode)
        broken[bit // 8] ^= 1 << bit % 8
        assert not checksums.inode_holds(seed, bytes(broken))


def test_an_acl_becomes_the_attribute() -> None:
    stored = layout.ACL_HEADER.pack(a_version=1)
    stored += layout.ACL_ENTRY_SHORT.pack(e_tag=1, e_perm=7) + layout.ACL_ENTRY.pack(e_tag=2, e_perm=6, e_id=1000)
    stored += layout.ACL_ENTRY_SHORT.pack(e_tag=4, e_perm=5) + layout.ACL_ENTRY_SHORT.pack(e_tag=16, e_perm=7)
    stored += layout.ACL_ENTRY_SHORT.pack(e_tag=32, e_perm=0)
    none = b"\xff" * 4
    assert acl_attribute(stored) == b"\2\0\0\0" + b"".join(
        (b"\1\0\7\0", none, b"\2\0\6\0\xe8\3\0\0", b"\4\0\5\0", none, b"\x10\0\7\0", none, b"\x20\0\0\0", none)
    )


@pytest.mark.parametrize(
    "stored",
    [b"", b"\2\0\0\0", b"\1\0\0\0\1\0", b"\1\0\0\0\2\0\7\0", b"\1\0\0\0\1\0\x08\0", b"\1\0\0\0\3\0\7\0"],
    ids=["nothing", "version", "half an entry", "no id", "bits", "tag"],
)
def test_an_acl_that_is_malformed(stored: bytes) -> None:
    with pytest.raises(ValueError, match="its ACL is malformed"):
        acl_attribute(stored)


def blocks_of_map(blocks: int, pointers: int) -> int:
    """Count, level by level, the blocks of a map of pointers that a file without holes has."""
    found, left = 0, blocks - 12
    for depth in range(3):
        here = min(max(left, 0), pointers ** (depth + 1))
        found += sum(-(-here // pointers**level) for level in range(1, depth + 2))
        left -= here
    return found


@pytest.mark.parametrize("block_size", [1 << bits for bits in range(10, 17)])
def test_the_largest_file_with_pointers(block_size: int) -> None:
    """It is reached by them, and its blocks and those of its map are 2^32 - 1 sectors at most; nearly all of those."""
    blocks, rest = divmod(largest_file(Features(), block_size), block_size)
    pointers = block_size // 4
    reached = 12 + pointers + pointers**2 + pointers**3
    room = ((1 << 32) - 1) * 512 // block_size
    assert rest == 0
    assert 0 < blocks <= reached
    taken = blocks + blocks_of_map(blocks, pointers)
    assert taken <= room
    assert blocks == reached or taken > room * 0.999
