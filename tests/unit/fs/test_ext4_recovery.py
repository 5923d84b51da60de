# SPDX-License-Identifier: MIT
"""The journal, replayed in memory: every kind of log; damaged and invalid logs are not believed."""

from __future__ import annotations

import functools
import random
from collections.abc import Callable
from uuid import UUID

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pydiskimg.disks.memory import MemoryDisk
from pydiskimg.errors import FileSystemError
from pydiskimg.fs.ext4 import layout
from pydiskimg.fs.ext4.change.tree import open_changed_tree
from pydiskimg.fs.ext4.file_system import NotBelievedError, read_file_system
from pydiskimg.fs.ext4.grow import plan_ext_growth
from pydiskimg.fs.ext4.make import make_ext
from pydiskimg.fs.ext4.recovery import after_recovery
from pydiskimg.fs.ext4.shrink import shrink_ext
from pydiskimg.fs.ext4.usage import ExtUsage
from pydiskimg.protocols import read_bytes
from pydiskimg.units import MIB
from tests.fixtures.journals import JournalWriter, needs_recovery, random_log
from tests.fixtures.limits import limits

ONE = UUID("a3c1f2d4-0b1e-4c55-9a6f-1234567890ab")
B64, V2, V3 = layout.JOURNAL_64BIT, layout.JOURNAL_CSUM_V2, layout.JOURNAL_CSUM_V3
REVOKE = layout.JOURNAL_HAS_REVOKE
FEATURES = tuple(REVOKE | features for features in (0, B64, V2, V2 | B64, V3, V3 | B64))
TARGETS = list(range(7000, 7008))  # free, and in the first group
BLOCK = b"new ".ljust(1024, b"x")


@functools.cache
def image(kind: str) -> bytes:
    disk = MemoryDisk(8 * MIB)
    make_ext(disk, kind=kind, block_size=1024, uuid=ONE, hash_seed=ONE, now=1700000000)
    return bytes(disk.data)


def disk_of(kind: str) -> MemoryDisk:
    disk = MemoryDisk(0, name="disk")
    disk.data = bytearray(image(kind))
    return disk


def check(writer: JournalWriter) -> None:
    """Each block reads as recovery leaves it, in parts, alone and with its neighbours."""
    disk = writer.disk
    source, count = after_recovery(read_file_system(disk))
    assert count == len(writer.expected)
    expected = bytearray(disk.data[7000 * 1024 : 7008 * 1024])
    for target, data in writer.expected.items():
        expected[(target - 7000) * 1024 : (target - 6999) * 1024] = data
    assert read_bytes(source, 7000 * 1024, 8 * 1024) == expected
    for offset, length in ((1, 1), (1000, 48), (1024, 1024), (3 * 1024 + 5, 2048)):
        assert read_bytes(source, 7000 * 1024 + offset, length) == expected[offset : offset + length]


@settings(max_examples=150)
@given(
    kind=st.sampled_from(["ext3", "ext4"]),
    features=st.sampled_from(FEATURES),
    seed=st.integers(0, 1 << 32),
    start=st.integers(1, 1023),
    first=st.sampled_from([1, 77, (1 << 31) - 2, (1 << 32) - 2]),
    transactions=st.integers(0, 12),
)
def test_any_log(kind: str, features: int, seed: int, start: int, first: int, transactions: int) -> None:
    writer = JournalWriter(disk_of(kind), features, start=start, first=first)
    random_log(writer, random.Random(seed), TARGETS, transactions)
    check(writer)


def test_nothing_to_recover() -> None:
    disk = disk_of("ext4")
    assert after_recovery(read_file_system(disk)) == (disk, 0)
    needs_recovery(disk)
    assert after_recovery(read_file_system(disk)) == (disk, 0)
    writer = JournalWriter(disk)
    writer.close()
    check(writer)


def test_bitmaps_are_those_after_recovery() -> None:
    """A group becomes full by a transaction: its bitmap and descriptor, on an ext3 without checksums."""
    disk = disk_of("ext3")
    before = list(ExtUsage(disk).ranges())
    writer = JournalWriter(disk)
    descriptors = bytearray(disk.data[2048:3072])
    bitmap = int(layout.GROUP_DESCRIPTOR_32.unpack(descriptors)["bg_block_bitmap_lo"])
    layout.GROUP_DESCRIPTOR_32.put(descriptors, {"bg_free_blocks_count_lo": 0})
    writer.write({bitmap: b"\xff" * 1024, 2: bytes(descriptors)})
    writer.commit()
    writer.close()
    usage = ExtUsage(disk)
    assert list(usage.ranges()) == [(0, 8 * MIB)] != before
    assert (usage.replayed_blocks, usage.doubtful_groups) == (2, 0)


def not_believed(disk: MemoryDisk, reason: str) -> None:
    with pytest.raises(NotBelievedError) as caught:
        list(ExtUsage(disk).ranges())
    assert reason in caught.value.reason


def log(features: int = V3, *, bitmap: bool = False) -> JournalWriter:
    """A log of three transactions at blocks 1 to 3, 4 to 7 and 8 to 9 of the journal."""
    disk = disk_of("ext4")
    writer = JournalWriter(disk, features)
    block = int(layout.GROUP_DESCRIPTOR_64.unpack(disk.data, 2048)["bg_block_bitmap_lo"]) if bitmap else 7000
    writer.write({block: bytes(disk.data[block * 1024 :][:1024])})
    writer.commit()
    writer.write({7001: BLOCK, 7002: BLOCK})
    writer.commit()
    writer.revoke([7001])
    writer.commit()
    return writer


Damage = Callable[[JournalWriter], object]


def flip(writer: JournalWriter, block: int, offset: int) -> None:
    writer.disk.data[writer.at(block) + offset] ^= 1


@pytest.mark.parametrize("features", [V2, V3, V3 | B64])
@pytest.mark.parametrize(("block", "transaction"), [(1, 1), (3, 1), (4, 2), (7, 2), (8, 3), (9, 3)], ids=str)
def test_a_complete_transaction_that_is_damaged(features: int, block: int, transaction: int) -> None:
    writer = log(features)
    writer.close()
    flip(writer, block, 900)
    not_believed(writer.disk, f"its journal: transaction {transaction}, which ends at block")


def test_a_copy_that_is_damaged_and_needed() -> None:
    writer = log(bitmap=True)
    writer.close()
    flip(writer, 2, 900)
    not_believed(writer.disk, "the checksum of the copy in block 2 is wrong")


def test_a_copy_that_is_damaged_and_not_needed() -> None:
    writer = log()
    writer.close()
    flip(writer, 2, 900)
    assert list(ExtUsage(writer.disk).ranges()) == list(ExtUsage(disk_of("ext4")).ranges())


@pytest.mark.parametrize("block", [10, 11])
def test_an_incomplete_transaction_may_be_damaged(block: int) -> None:
    writer = log()
    writer.write({7003: BLOCK})
    writer.close()
    flip(writer, block, 900)
    check(writer)


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"h_magic": 1}, "not a superblock of a journal"),
        ({"h_blocktype": 2}, "not a superblock of a journal"),
        ({"s_blocksize": 4096}, "its blocks have 4096 bytes, not 1024"),
        ({"s_maxlen": 1 << 30}, "it has 1024 blocks, expected 1073741824"),
        ({"s_maxlen": 0}, "it has 1024 blocks, expected 0"),
        ({"s_start": 1024}, "its log starts at block 1024, outside of 1 to 1024"),
        ({"s_first": 9}, "its log starts at block 1, outside of 9 to 1024"),
        ({"s_first": 0}, "outside of 0 to 1024"),
        ({"s_errno": 5}, "the kernel has seen errors in it"),
        ({"s_feature_incompat": V3 | layout.JOURNAL_FAST_COMMIT}, "fast commits"),
        ({"s_feature_incompat": V3 | 0x80000000}, "not known here (incompat 0x80000000)"),
        ({"s_feature_compat": 1}, "transaction 1, which ends at block 3, is damaged"),
    ],
)
def test_a_journal_that_is_not_believed(fields: dict[str, int], reason: str) -> None:
    writer = log()
    writer.close(**fields)
    not_believed(writer.disk, reason)


def test_the_checksum_of_the_journal() -> None:
    writer = log()
    writer.close()
    flip(writer, 0, 0x60)
    not_believed(writer.disk, "the checksum of its superblock is wrong")


def test_changes_that_the_superblock_denies() -> None:
    writer = log()
    clean = bytes(writer.disk.data[1024:2048])
    writer.close()
    writer.disk.data[1024:2048] = clean
    not_believed(writer.disk, "its journal has changes, although its superblock says that it has none")


def test_a_log_without_an_end() -> None:
    disk = disk_of("ext3")
    writer = JournalWriter(disk)
    for _ in range(1023):
        writer.commit()
    writer.close()
    not_believed(disk, "its log is circular and has no end")


def test_a_log_of_more_blocks_than_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each takes memory; the real bound is one million."""
    writer = log()
    writer.close()
    monkeypatch.setattr("pydiskimg.fs.ext4.journal_reader._MAX_COPIES", 3)
    assert after_recovery(read_file_system(writer.disk))[1] == 2
    monkeypatch.setattr("pydiskimg.fs.ext4.journal_reader._MAX_COPIES", 2)
    not_believed(writer.disk, "its journal: its log has more than 2 blocks")


def test_a_log_of_more_transactions_than_are_read(monkeypatch: pytest.MonkeyPatch) -> None:
    """The checksum of each block of the log's own takes time; there are six, and the real bound is half a million."""
    writer = log()
    writer.close()
    monkeypatch.setattr("pydiskimg.fs.ext4.journal_reader._MAX_OWN_BLOCKS", 6)
    check(writer)
    monkeypatch.setattr("pydiskimg.fs.ext4.journal_reader._MAX_OWN_BLOCKS", 5)
    not_believed(writer.disk, "its journal: its log has more than 5 blocks of its own")


def test_a_revoke_block_that_says_it_is_longer() -> None:
    writer = JournalWriter(disk_of("ext3"))
    writer.write({7000: BLOCK})
    writer.revoke([7000])
    writer.commit()
    writer.close()
    at = writer.at(3) + 12
    writer.disk.data[at : at + 4] = (1025).to_bytes(4, "big")
    not_believed(writer.disk, "a revoke block has 1025 bytes, more than the 1024 that fit")


@pytest.mark.parametrize("block", [8192, (1 << 32) - 1, (1 << 63) + 7])
def test_a_copy_of_a_block_beyond_the_disk(block: int) -> None:
    """A kernel that enlarges a file system logs blocks beyond its end, but never beyond that of the disk."""
    writer = JournalWriter(disk_of("ext4"), V3 | B64)
    writer.write({block: BLOCK})
    writer.commit()
    writer.close()
    disk, before = writer.disk, bytes(writer.disk.data)
    not_believed(disk, f"its journal: its log has a copy of block {block}, and the disk has 8192")
    for change in (open_changed_tree, shrink_ext, plan_ext_growth):
        with pytest.raises(FileSystemError, match=f"a copy of block {block}"):
            change(disk)
    assert disk.data == before
    if block == 8192:
        disk.data += bytes(2048)
        assert after_recovery(read_file_system(disk))[1] == 1


def edit_inode(disk: MemoryDisk, **fields: int | bytes) -> None:
    """Change the inode of the journal of an ext3, which has no checksum."""
    table = int(layout.GROUP_DESCRIPTOR_32.unpack(disk.data, 2048)["bg_inode_table_lo"])
    layout.INODE.put(disk.data, fields, table * 1024 + 7 * layout.INODE_SIZE)


def pointers(*numbers: int) -> bytes:
    return b"".join(number.to_bytes(4, "little") for number in numbers).ljust(60, b"\0")


def root(depth: int, *entries: bytes, count: int | None = None) -> bytes:
    number = len(entries) if count is None else count
    header = layout.EXTENT_HEADER.pack(eh_magic=layout.EXTENT_MAGIC, eh_entries=number, eh_max=4, eh_depth=depth)
    return (header + b"".join(entries)).ljust(60, b"\0")


@pytest.mark.parametrize(
    ("flags", "i_block", "reason"),
    [
        (0, pointers(), "it has no first block"),
        (0, pointers(1 << 31), "it names block 2147483648 of 8192"),
        (0, pointers(0, 5), "it has no first block"),
        (0, pointers(*range(100, 112), 1 << 31), "it names block 2147483648 of 8192"),
        (layout.EXTENTS_FLAG, bytes(60), "no sound header"),
        (layout.EXTENTS_FLAG, root(0, count=5), "no sound header"),
        (layout.EXTENTS_FLAG, root(6), "no sound header"),
        (layout.EXTENTS_FLAG, root(0), "it has no first block"),
        (layout.EXTENTS_FLAG, root(0, layout.EXTENT.pack(ee_len=0)), "an extent of length 0"),
        (layout.EXTENTS_FLAG, root(0, layout.EXTENT.pack(ee_start_lo=9)), "an extent of length 0"),
        (layout.EXTENTS_FLAG, root(0, layout.EXTENT.pack(ee_len=9, ee_start_lo=8190)), "it names block 8190"),
        (layout.EXTENTS_FLAG, root(1, layout.EXTENT_INDEX.pack(ei_leaf_hi=1)), "it names block 4294967296"),
        (layout.EXTENTS_FLAG, root(1, layout.EXTENT_INDEX.pack(ei_leaf_lo=2)), "no sound header"),
    ],
)
def test_an_inode_of_the_journal_that_lies(flags: int, i_block: bytes, reason: str) -> None:
    disk = disk_of("ext3")
    edit_inode(disk, i_flags=flags, i_block=i_block)
    not_believed(disk, reason)


def test_the_checksum_of_the_inode() -> None:
    disk = disk_of("ext4")
    table = int(layout.GROUP_DESCRIPTOR_64.unpack(disk.data, 2048)["bg_inode_table_lo"])
    disk.data[table * 1024 + 7 * 256 + 4] ^= 1
    not_believed(disk, "the checksum of inode 8 (the journal) is wrong")


def test_a_map_that_goes_round_ends() -> None:
    """A triple indirect block whose pointers name itself: 256 to the third power of them."""
    disk = disk_of("ext3")
    disk.data[7000 * 1024 : 7001 * 1024] = (7000).to_bytes(4, "little") * 256
    edit_inode(disk, i_block=pointers(*[100] * 12, 7000, 7000, 7000))
    with limits():
        not_believed(disk, "")


@settings(max_examples=300)
@given(
    features=st.sampled_from(FEATURES),
    changes=st.lists(st.tuples(st.integers(0, 12), st.integers(0, 1023), st.integers(0, 255)), min_size=1, max_size=5),
)
def test_damage_is_read_or_refused(features: int, changes: list[tuple[int, int, int]]) -> None:
    writer = _scratch(features)
    before = [bytes(writer.disk.data[writer.at(block) : writer.at(block) + 1024]) for block in range(13)]
    for block, offset, value in changes:
        writer.disk.data[writer.at(block) + offset] = value
    try:
        list(ExtUsage(writer.disk).ranges())
    except NotBelievedError:
        pass
    finally:
        for block, data in enumerate(before):
            writer.disk.data[writer.at(block) : writer.at(block) + 1024] = data


@functools.cache
def _scratch(features: int) -> JournalWriter:
    writer = log(features)
    writer.close()
    return writer
