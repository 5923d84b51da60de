# SPDX-License-Identifier: MIT
"""What is in use of an ext file system: exact where it is sound, everything or a whole group where it is not."""

from __future__ import annotations

import functools
import random
from itertools import pairwise
from uuid import UUID

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pydiskimg.crc32c import crc32c
from pydiskimg.disks.memory import MemoryDisk
from pydiskimg.fs.ext4 import layout
from pydiskimg.fs.ext4.bitmaps import runs_of
from pydiskimg.fs.ext4.checksums import Checksums, crc16
from pydiskimg.fs.ext4.descriptors import read_descriptors
from pydiskimg.fs.ext4.features import FEATURES
from pydiskimg.fs.ext4.file_system import NotBelievedError, read_file_system
from pydiskimg.fs.ext4.inodes import read_inode
from pydiskimg.fs.ext4.make import make_ext
from pydiskimg.fs.ext4.map_reader import file_pieces
from pydiskimg.fs.ext4.usage import ExtUsage
from pydiskimg.units import MIB
from tests.fixtures.limits import limits

ONE = UUID("a3c1f2d4-0b1e-4c55-9a6f-1234567890ab")
SIZE = 26 * MIB + 5 * 1024
KINDS = ("ext2", "ext3", "ext4")
SUPER = layout.SUPERBLOCK


@functools.cache
def image(kind: str, block_size: int = 1024, size: int = SIZE) -> bytes:
    disk = MemoryDisk(size)
    make_ext(disk, kind=kind, block_size=block_size, uuid=ONE, hash_seed=ONE, now=1700000000)
    return bytes(disk.data)


def disk_of(data: bytes) -> MemoryDisk:
    disk = MemoryDisk(0, name="disk")
    disk.data = bytearray(data)
    return disk


@functools.cache
def _scratch(kind: str) -> MemoryDisk:
    return disk_of(image(kind))


def scratch(kind: str) -> MemoryDisk:
    """A disk for small changes in its first 64 KiB and in block bitmaps, which are taken back the next time."""
    disk = _scratch(kind)
    for start in (0, *(bitmap_at(kind, group) for group in range(4))):
        disk.data[start : start + 80 * 1024] = image(kind)[start : start + 80 * 1024]
    return disk


@functools.cache
def truth(kind: str) -> frozenset[int]:
    """The blocks in use."""
    return frozenset(blocks(used(disk_of(image(kind)))))


def used(disk: MemoryDisk) -> list[tuple[int, int]]:
    """The ranges, which keep their contract; everything when nothing is believed."""
    try:
        found = list(ExtUsage(disk).ranges())
    except NotBelievedError:
        return [(0, disk.size)]
    ends = [-1]
    for start, end in found:
        assert ends[-1] < start < end <= disk.size, "ascending, apart, not empty, inside"
        ends.append(end)
    return found


def blocks(ranges: list[tuple[int, int]]) -> set[int]:
    return {block for start, end in ranges for block in range(start // 1024, -(-end // 1024))}


def edit(disk: MemoryDisk, **fields: int) -> None:
    """Change fields of the superblock and make its checksum right."""
    SUPER.put(disk.data, fields, layout.SUPERBLOCK_OFFSET)
    raw = disk.data[layout.SUPERBLOCK_OFFSET : layout.SUPERBLOCK_OFFSET + SUPER.size]
    if int(SUPER.unpack(raw)["s_feature_ro_compat"]) & 0x400:
        SUPER.put(disk.data, {"s_checksum": crc32c(raw[:0x3FC])}, layout.SUPERBLOCK_OFFSET)


@pytest.mark.parametrize("block_size", [1024, 2048, 4096])
@pytest.mark.parametrize("kind", KINDS)
def test_as_many_blocks_as_were_made(kind: str, block_size: int) -> None:
    disk = MemoryDisk(SIZE)
    info = make_ext(disk, kind=kind, block_size=block_size)
    usage = ExtUsage(disk)
    ranges = list(usage.ranges())
    in_use = sum(end - start for start, end in ranges)
    assert SIZE - in_use == info.free_blocks * block_size
    assert (usage.doubtful_groups, usage.first_doubt, usage.replayed_blocks) == (0, None, 0)
    assert ranges[0][0] == 0
    assert ranges[-1][1] == SIZE, "what lies behind the file system is in use"


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_free_can_hold_anything(kind: str) -> None:
    """Nothing of what is found depends on the bytes that are called free."""
    disk = disk_of(image(kind))
    before = used(disk)
    position = 0
    for start, end in before:
        disk.data[position:start] = random.Random(1).randbytes(start - position)
        position = end
    assert used(disk) == before


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"s_magic": 0}, "no magic (found 0x0000, expected 0xef53)"),
        ({"s_rev_level": 2}, "revision 2"),
        ({"s_rev_level": 0}, "revision 0 and features"),
        ({"s_feature_incompat": 0x1 | 0x2C2}, "not known here (incompat 0x1, ro_compat 0x0)"),
        ({"s_feature_ro_compat": 0x80 | 0x46B}, "not known here (incompat 0x0, ro_compat 0x80)"),
        ({"s_checksum_type": 2}, "checksums are of type 2"),
        ({"s_log_block_size": 7}, "block size is 1024 << 7"),
        ({"s_log_cluster_size": 3}, "cluster size is 1024 << 3"),
        ({"s_inode_size": 200}, "inodes have 200 bytes"),
        ({"s_desc_size": 32}, "descriptors have 32 bytes"),
        ({"s_desc_size": 96}, "descriptors have 96 bytes"),
        ({"s_blocks_per_group": 0}, "groups have 0 blocks"),
        ({"s_blocks_per_group": 8200}, "groups have 8200 blocks"),
        ({"s_blocks_per_group": 8}, "groups have 8 blocks"),
        ({"s_first_data_block": 0}, "first data block is 0, expected 1"),
        ({"s_inodes_per_group": 0}, "groups have 0 inodes"),
        ({"s_inodes_per_group": 1 << 30}, "groups have 1073741824 inodes"),
        ({"s_inodes_count": 7}, "7 inodes"),
        ({"s_first_ino": 10}, "first inode that is not reserved is 10"),
        ({"s_first_ino": 0x80000000}, "first inode that is not reserved is 2147483648"),
        ({"s_blocks_count_lo": 26 * 1024 + 6}, "ends at byte"),
        ({"s_blocks_count_hi": 0xFFFFFFFF}, "blocks in groups of"),
        ({"s_blocks_count_lo": 0}, "0 blocks in groups of"),
        ({"s_reserved_gdt_blocks": 8190}, "more than the first group has"),
        ({"s_journal_inum": 1 << 31}, "journal is inode 2147483648"),
        ({"s_state": 0}, "not unmounted cleanly"),
        ({"s_state": 3}, "seen errors"),
        ({"s_state": 0x21}, "fast commits"),
    ],
)
def test_a_superblock_that_is_not_believed(fields: dict[str, int], reason: str) -> None:
    disk = disk_of(image("ext4"))
    edit(disk, **fields)
    with pytest.raises(NotBelievedError) as caught:
        ExtUsage(disk)
    assert reason in caught.value.reason
    assert str(caught.value) == f"disk: {caught.value.reason}; all of it counts as in use"


def test_the_checksum_of_the_superblock() -> None:
    disk = disk_of(image("ext4"))
    SUPER.put(disk.data, {"s_mnt_count": 1}, layout.SUPERBLOCK_OFFSET)
    with pytest.raises(NotBelievedError, match="the superblock's checksum is 0x"):
        ExtUsage(disk)


@pytest.mark.parametrize("size", [0, 1024, 2047, 2048, 1 * MIB])
def test_no_file_system_and_no_room(size: int) -> None:
    with pytest.raises(NotBelievedError, match=r"no room|no magic"):
        ExtUsage(MemoryDisk(size))
    truncated = disk_of(image("ext4")[:size])
    with pytest.raises(NotBelievedError):
        ExtUsage(truncated)


def descriptor_at(kind: str, group: int) -> int:
    return 2048 + group * (64 if kind == "ext4" else 32)


@functools.cache
def bitmap_at(kind: str, group: int) -> int:
    disk = disk_of(image(kind))
    return list(read_descriptors(read_file_system(disk)))[group].block_bitmap * 1024


def doubted(disk: MemoryDisk, kind: str, group: int, reason: str) -> None:
    """One group is taken as a whole, and all others are as they were."""
    usage = ExtUsage(disk)
    found = blocks(list(usage.ranges()))
    assert usage.doubtful_groups == 1
    assert usage.first_doubt is not None
    assert usage.first_doubt.startswith(f"group {group}: ")
    assert reason in usage.first_doubt
    whole = set(range(1 + group * 8192, min(1 + (group + 1) * 8192, SIZE // 1024)))
    assert found == truth(kind) | whole


def test_a_free_bit_too_many() -> None:
    disk = disk_of(image("ext2"))
    at = bitmap_at("ext2", 1)
    assert disk.data[at] == 0xFF
    disk.data[at] = 0xFE
    doubted(disk, "ext2", 1, "of its clusters are free, while its descriptor says")


def test_a_bitmap_of_zeros() -> None:
    """The state after a lost write."""
    disk = disk_of(image("ext2"))
    at = bitmap_at("ext2", 2)
    disk.data[at : at + 1024] = bytes(1024)
    doubted(disk, "ext2", 2, "of its clusters are free, while its descriptor says")


def test_metadata_that_is_free() -> None:
    """The number is right: the bits are at the wrong places."""
    disk = disk_of(image("ext2"))
    at = bitmap_at("ext2", 2)
    disk.data[at : at + 1024] = disk.data[at : at + 1024][::-1]
    doubted(disk, "ext2", 2, "copies of the superblock as free")


def test_bits_behind_the_end() -> None:
    disk = disk_of(image("ext2"))
    at = bitmap_at("ext2", 3) + 1023
    disk.data[at] = 0x7F
    doubted(disk, "ext2", 3, "marks blocks beyond its end as free")


def test_the_checksum_of_a_bitmap() -> None:
    disk = disk_of(image("ext4"))
    at = next(bitmap_at("ext4", group) for group in (1, 2, 3) if not uninitialised("ext4", group))
    group = next(group for group in (1, 2, 3) if not uninitialised("ext4", group))
    disk.data[at : at + 1] = b"\xfd"
    doubted(disk, "ext4", group, "the checksum of its block bitmap is wrong")


def uninitialised(kind: str, group: int) -> bool:
    disk = disk_of(image(kind))
    return bool(list(read_descriptors(read_file_system(disk)))[group].flags & layout.BLOCK_UNINIT)


def test_the_checksum_of_a_descriptor() -> None:
    disk = disk_of(image("ext4"))
    disk.data[descriptor_at("ext4", 3) + 0x1C] ^= 1
    doubted(disk, "ext4", 3, "the checksum of its descriptor is wrong")


@pytest.mark.parametrize("block", [0, 1, 1 + 8192, 1 + 2 * 8192, 1 << 31])
def test_a_bitmap_that_is_elsewhere(block: int) -> None:
    """Without flex_bg a group's bitmap is in the group."""
    disk = disk_of(image("ext2"))
    layout.GROUP_DESCRIPTOR_32.put(disk.data, {"bg_block_bitmap_lo": block}, descriptor_at("ext2", 3))
    doubted(disk, "ext2", 3, f"its block bitmap is at block {block}, outside of 24577 to 26628")


def test_two_structures_at_one_place() -> None:
    disk = disk_of(image("ext2"))
    block = bitmap_at("ext2", 3) // 1024
    layout.GROUP_DESCRIPTOR_32.put(disk.data, {"bg_inode_bitmap_lo": block}, descriptor_at("ext2", 3))
    with pytest.raises(NotBelievedError, match=f"two bitmaps or inode tables are at block {block}"):
        ExtUsage(disk)


def test_the_first_group_has_a_bitmap() -> None:
    disk = disk_of(image("ext4"))
    at, seed = descriptor_at("ext4", 0), crc32c(ONE.bytes)
    record = layout.GROUP_DESCRIPTOR_64
    record.put(disk.data, {"bg_flags": layout.BLOCK_UNINIT, "bg_checksum": 0}, at)
    record.put(disk.data, {"bg_checksum": crc32c(bytes(4) + disk.data[at : at + 64], seed) & 0xFFFF}, at)
    refused(disk, "group 0: it is the first group, and its block bitmap was never written")


def refused(disk: MemoryDisk, reason: str) -> None:
    with pytest.raises(NotBelievedError) as caught:
        ExtUsage(disk)
    assert reason in caught.value.reason


def inode_at(kind: str, number: int) -> int:
    disk = disk_of(image(kind))
    return next(read_descriptors(read_file_system(disk))).inode_table * 1024 + 256 * (number - 1)


def root_block_at(kind: str) -> int:
    disk = disk_of(image(kind))
    fs = read_file_system(disk)
    return next(file_pieces(fs, read_inode(fs, layout.ROOT_INODE), 1))[1] * 1024


def with_root(kind: str, **fields: int | bytes) -> MemoryDisk:
    """A file system whose root directory's inode says something else, with a checksum that holds."""
    disk = disk_of(image(kind))
    at = inode_at(kind, layout.ROOT_INODE)
    inode = disk.data[at : at + 256]
    layout.INODE.put(inode, fields)
    checksums = Checksums(FEATURES[kind], ONE.bytes)
    checksums.inode(checksums.for_inode(layout.ROOT_INODE), inode)
    disk.data[at : at + 256] = inode
    return disk


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"i_mode": 0}, "inode 2 is not the root directory (mode 0o0, 3 links)"),
        ({"i_mode": 0x81A4}, "inode 2 is not the root directory (mode 0o100644, 3 links)"),
        ({"i_links_count": 0}, "inode 2 is not the root directory (mode 0o40755, 0 links)"),
        ({"i_size_lo": 0}, "its root directory has 0 bytes, with blocks of 1024"),
        ({"i_size_lo": 1000}, "its root directory has 1000 bytes, with blocks of 1024"),
        ({"i_block": bytes(60)}, "root directory"),
        ({"i_block": b"\xff" * 60}, "inode 2 (the root directory): it"),
    ],
)
def test_the_root_directory_makes_sense(kind: str, fields: dict[str, int | bytes], reason: str) -> None:
    assert ExtUsage(with_root(kind)).groups == 4
    refused(with_root(kind, **fields), reason)


@pytest.mark.parametrize("kind", KINDS)
def test_the_root_directory_begins_with_itself(kind: str) -> None:
    for offset, value in ((0, 3), (6, 2)):
        disk = disk_of(image(kind))
        disk.data[root_block_at(kind) + offset] = value
        refused(disk, f"block {root_block_at(kind) // 1024} does not begin the root directory")


@pytest.mark.parametrize("kind", KINDS)
def test_reserved_inodes_are_in_use(kind: str) -> None:
    disk = disk_of(image(kind))
    at = next(read_descriptors(read_file_system(disk))).inode_bitmap * 1024
    disk.data[at] &= ~2
    refused(disk, "one of the first 10 inodes, which are reserved, is free")


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("s_magic", 0),
        ("s_uuid", bytes(16)),
        ("s_log_block_size", 2),
        ("s_first_data_block", 0),
        ("s_blocks_per_group", 4096),
        ("s_inodes_per_group", 8),
    ],
)
def test_the_first_copy_of_the_superblock_agrees(kind: str, field: str, value: int | bytes) -> None:
    disk = disk_of(image(kind))
    SUPER.put(disk.data, {field: value}, (1 + 8192) * 1024)
    refused(disk, "copy of its superblock in group 1")


@pytest.mark.parametrize("kind", KINDS)
def test_a_group_without_a_copy_is_not_asked(kind: str) -> None:
    disk = disk_of(image(kind, size=8 * MIB))
    assert ExtUsage(disk).groups == 1


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("what", ["inode table", "root directory", "inode bitmap"])
def test_what_was_written_over(kind: str, what: str) -> None:
    """A new owner left superblock, descriptors and bitmaps unchanged and has put its data somewhere."""
    disk = disk_of(image(kind))
    at = {
        "inode table": inode_at(kind, 1),
        "root directory": root_block_at(kind),
        "inode bitmap": next(read_descriptors(read_file_system(disk))).inode_bitmap * 1024,
    }[what]
    disk.data[at : at + 1024] = random.Random(7).randbytes(1024)
    assert used(disk) == [(0, disk.size)]


@settings(max_examples=300)
@given(kind=st.sampled_from(KINDS), where=st.integers(0, 1 << 30), bit=st.integers(0, 7), data=st.data())
def test_one_flipped_bit_loses_nothing(kind: str, where: int, bit: int, data: st.DataObject) -> None:
    """In the superblock, the descriptors and the block bitmaps: more may be in use than is, never less."""
    group = data.draw(st.integers(0, 3))
    places = (
        (1024, 1024),
        (2048, 4 * (64 if kind == "ext4" else 32)),
        (bitmap_at(kind, group), 1024),
    )
    start, length = data.draw(st.sampled_from(places))
    disk = scratch(kind)
    disk.data[start + where % length] ^= 1 << bit
    assert blocks(used(disk)) >= truth(kind)


@settings(max_examples=300)
@given(
    kind=st.sampled_from(KINDS),
    changes=st.lists(st.tuples(st.integers(1024, 64 * 1024), st.binary(min_size=1, max_size=8)), max_size=6),
    fix=st.booleans(),
)
def test_whatever_is_there_is_read_or_refused(kind: str, changes: list[tuple[int, bytes]], fix: bool) -> None:
    disk = scratch(kind)
    for offset, change in changes:
        disk.data[offset : offset + len(change)] = change
    if fix:
        edit(disk)
    used(disk)


@settings(max_examples=200)
@given(fields=st.dictionaries(st.sampled_from([n for n in SUPER.names if SUPER.codes[n] in "BHI"]), st.integers(0, 7)))
def test_numbers_of_any_size_end_soon(fields: dict[str, int]) -> None:
    choices = {"B": (0, 1, 2, 6, 7, 64, 254, 255), "H": (0, 1, 7, 64, 256, 1024, 32768, 65535)}
    numbers = (0, 1, 8, 255, 8192, 1 << 16, 1 << 31, (1 << 32) - 1)
    disk = scratch("ext4")
    edit(disk, **{name: choices.get(SUPER.codes[name], numbers)[value] for name, value in fields.items()})
    with limits():
        used(disk)


@given(st.lists(st.booleans(), max_size=300))
def test_runs(bits: list[bool]) -> None:
    found = list(runs_of(sum(1 << index for index, bit in enumerate(bits) if bit)))
    assert [index for start, end in found for index in range(start, end)] == [i for i, bit in enumerate(bits) if bit]
    assert all(end < start for (_, end), (start, _) in pairwise(found))


def test_crc16_of_the_catalogue() -> None:
    """CRC-16/MODBUS in the catalogue of parametrised CRC algorithms."""
    assert crc16(b"123456789") == 0x4B37
