# SPDX-License-Identifier: MIT
"""What a superblock may make the kernel do, field by field; what real tools write is not refused."""

from __future__ import annotations

import re
import struct
from collections.abc import Callable, Mapping
from types import MappingProxyType

import pytest

from pydiskimg.disks.memory import MemoryDisk
from pydiskimg.fs.ext4.layout import MMP_CLEAN, MMP_FSCK, MMP_MAGIC, SUPERBLOCK, SUPERBLOCK_OFFSET
from pydiskimg.fs.ext4.make import make_ext
from pydiskimg.fs.probe.xfs import SUPERBLOCK as XFS_SUPERBLOCK
from pydiskimg.host.before_mount import btrfs, ext, xfs

MIB = 1 << 20
COMPAT_JOURNAL, INCOMPAT_JOURNAL_DEV, INCOMPAT_64BIT, INCOMPAT_MMP = 0x4, 0x8, 0x80, 0x100


def changed(kind: str = "ext4", values: Mapping[str, int | bytes] = MappingProxyType({})) -> bytearray:
    disk = MemoryDisk(24 * MIB)
    make_ext(disk, kind=kind)
    SUPERBLOCK.put(disk.data, values, SUPERBLOCK_OFFSET)
    return disk.data


def field(data: bytearray, name: str) -> int:
    return int(SUPERBLOCK.unpack(data, SUPERBLOCK_OFFSET)[name])


def ext_says(data: bytes | bytearray, *, read_only: bool = False) -> str | None:
    return ext.refusal(lambda offset, length: bytes(data[offset : offset + length]), read_only)


@pytest.mark.parametrize("kind", ["ext2", "ext3", "ext4"])
def test_what_we_make_is_mounted(kind: str) -> None:
    assert ext_says(changed(kind)) is None


@pytest.mark.parametrize("read_only", [False, True])
@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"s_journal_inum": 0, "s_journal_dev": 0x0803}, "s_journal_dev is block device 8:3"),
        ({"s_journal_inum": 0, "s_journal_dev": 0x12345678}, r"block device 1110:74616\)"),
        ({"s_journal_inum": 8, "s_journal_dev": 0x0701}, "block device 7:1"),
        ({"s_journal_inum": 0}, "whose number is unknown"),
        ({"s_feature_incompat": INCOMPAT_JOURNAL_DEV}, "is the journal of a file system"),
        ({"s_mount_opts": b"journal_dev=1793"}, "the mount option 'journal_dev=1793'"),
        ({"s_mount_opts": b"acl,journal_path=/dev/sda,commit=5"}, "the mount option 'journal_path=/dev/sda'"),
        ({"s_mount_opts": b"max_batch_time=4294967295"}, "the mount option 'max_batch_time=4294967295'"),
        ({"s_mount_opts": b"noload"}, "the mount option 'noload'"),
        ({"s_mount_opts": b"x" * 64}, "the mount option 'x"),
        ({"s_mount_opts": b"\x1b[2J\xff"}, r"'\\x1b\[2J\\xff'"),
        ({"s_blocks_per_group": 8, "s_blocks_count_lo": 1 << 25}, r"4194304 block groups of 8 blocks, at most 2097152"),
        ({"s_blocks_per_group": 0, "s_blocks_count_lo": 1 << 25}, "block groups of 1 blocks"),
        ({"s_blocks_count_hi": 1 << 30}, "block groups of 8192 blocks"),
    ],
)
def test_what_is_refused(values: dict[str, int | bytes], words: str, read_only: bool) -> None:
    said = ext_says(changed(values=values), read_only=read_only)
    assert said is not None
    assert re.search(words, said), said


@pytest.mark.parametrize(
    "values",
    [
        {"s_mount_opts": b"user_xattr,acl,data=journal,errors=panic,commit=30"},
        {"s_mount_opts": b"discard,nodelalloc,barrier=0,"},
        {"s_journal_inum": 12},
        {"s_errors": 3},
        {"s_magic": 0, "s_journal_dev": 0x0803},
    ],
)
def test_what_is_not(values: dict[str, int | bytes]) -> None:
    assert ext_says(changed(values=values)) is None


def test_what_is_named_as_a_journal_without_one_is_not_opened() -> None:
    data = changed("ext2", {"s_journal_dev": 0x0803})
    assert not field(data, "s_feature_compat") & COMPAT_JOURNAL
    assert ext_says(data) is None


@pytest.mark.parametrize(
    ("sequence", "interval", "in_superblock", "words"),
    [
        (MMP_CLEAN, 65535, 65535, None),
        (MMP_FSCK, 5, 5, "it is being checked or changed, or that a check or change was interrupted"),
        (1, 5, 5, None),  # 22 seconds
        (1, 10, 5, None),  # 42 seconds: what a guest leaves that was killed
        (1, 0, 0, None),
        (1, 15, 5, "wait 62 seconds"),
        (1, 5, 300, "wait 720 seconds"),
        (1, 65535, 5, "wait 131190 seconds"),
    ],
)
def test_multiple_mount_protection(sequence: int, interval: int, in_superblock: int, words: str | None) -> None:
    data = changed(values={"s_mmp_block": 100, "s_mmp_interval": in_superblock})
    SUPERBLOCK.put(data, {"s_feature_incompat": field(data, "s_feature_incompat") | INCOMPAT_MMP}, SUPERBLOCK_OFFSET)
    at = 100 * (1024 << field(data, "s_log_block_size"))
    struct.pack_into("<2I", data, at, MMP_MAGIC, sequence)
    struct.pack_into("<H", data, at + 112, interval)
    said = ext_says(data)
    assert said is None if words is None else said is not None and words in said
    assert ext_says(data, read_only=True) is None, "the kernel does not look at it then"


@pytest.mark.parametrize("block", [0, 1 << 40, (1 << 64) - 1])
def test_multiple_mount_protection_nowhere(block: int) -> None:
    data = changed(values={"s_mmp_block": block})
    SUPERBLOCK.put(data, {"s_feature_incompat": field(data, "s_feature_incompat") | INCOMPAT_MMP}, SUPERBLOCK_OFFSET)
    assert ext_says(data) is None, "the kernel refuses that itself"


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({}, None),
        ({"sb_magicnum": b"xfsb", "sb_logstart": 0}, None),
        ({"sb_logstart": 0}, "its log is on another device"),
        ({"sb_rblocks": 1}, "a realtime device"),
        ({"sb_rextents": 1}, "a realtime device"),
        ({"sb_agcount": 131072}, None),
        ({"sb_agcount": 131073}, "131073 allocation groups"),
    ],
)
def test_xfs(values: dict[str, int | bytes], words: str | None) -> None:
    block = XFS_SUPERBLOCK.pack(**{"sb_magicnum": b"XFSB", "sb_logstart": 8, "sb_agcount": 4, **values})
    said = xfs.refusal(lambda offset, length: block[offset : offset + length], False)
    assert said is None if words is None else said is not None and words in said


@pytest.mark.parametrize("flag", [1 << 35, 1 << 36])
def test_a_btrfs_whose_uuid_is_being_changed(flag: int) -> None:
    data = bytearray(128 << 10)
    struct.pack_into("<Q8s", data, (64 << 10) + 56, flag, b"_BHRfS_M")
    struct.pack_into("<Q", data, (64 << 10) + 136, 1)
    said = btrfs.refusal(lambda offset, length: bytes(data[offset : offset + length]), False)
    assert said is not None
    assert "a change of its UUID was interrupted" in said


@pytest.mark.parametrize("refusal", [ext.refusal, xfs.refusal, btrfs.refusal])
def test_a_device_that_is_too_small_is_left_to_the_kernel(refusal: Callable[..., str | None]) -> None:
    assert refusal(lambda _offset, _length: b"", False) is None
