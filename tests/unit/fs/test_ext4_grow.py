# SPDX-License-Identifier: MIT
"""Growing file systems that a hostile guest has written: refused with a message, or grown within the disk."""

from __future__ import annotations

import random
import struct
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pydiskimg.crc32c import crc32c
from pydiskimg.disks.memory import MemoryDisk
from pydiskimg.errors import DiskImageError, DoesNotFitError, FileSystemError
from pydiskimg.fs.ext4 import layout
from pydiskimg.fs.ext4.features import Compat, Incompat, RoCompat
from pydiskimg.fs.ext4.file_system import read_file_system
from pydiskimg.fs.ext4.grow import plan_ext_growth
from pydiskimg.fs.ext4.grow_geometry import larger
from pydiskimg.fs.ext4.make import make_ext
from pydiskimg.fs.ext4.usage import ExtUsage
from pydiskimg.protocols import Buffer
from pydiskimg.regions.region import Region
from pydiskimg.units import MIB
from tests.fixtures.journals import JournalWriter
from tests.fixtures.stopping_disk import StoppingDisk

OLD, NEW = 10 * MIB, 20 * MIB
IMAGES: dict[str, bytes] = {}


def image(kind: str) -> MemoryDisk:
    if kind not in IMAGES:
        made = MemoryDisk(OLD)
        make_ext(made, kind=kind, block_size=1024)
        IMAGES[kind] = bytes(made.data)
    disk = MemoryDisk(NEW)
    disk.data[:OLD] = IMAGES[kind]
    return disk


def with_two_copies(disk: MemoryDisk, copies: tuple[int, int] = (0, 1)) -> MemoryDisk:
    """Make the file system one with sparse_super2: of its two groups the second has the copy, as by sparse_super."""
    compat = layout.SUPERBLOCK.unpack(disk.data, 1024)["s_feature_compat"] | Compat.SPARSE_SUPER2
    layout.SUPERBLOCK.put(disk.data, {"s_backup_bgs": struct.pack("<2I", *copies)}, 1024)
    put_superblock(disk, {"s_feature_compat": compat})
    return disk


def put_superblock(disk: MemoryDisk, fields: dict[str, int]) -> None:
    """Change fields as a guest with its own kernel can: the checksum holds."""
    raw = disk.data[1024:2048]
    layout.SUPERBLOCK.put(raw, fields)
    layout.SUPERBLOCK.put(raw, {"s_checksum": crc32c(raw[:0x3FC])})
    disk.data[1024:2048] = raw


NUMBERS = [name for name, code in layout.SUPERBLOCK.codes.items() if not code.endswith("s") and name != "s_checksum"]
WIDTHS = {"B": 8, "H": 16, "h": 15, "I": 32, "Q": 64}


@settings(max_examples=150)
@given(
    kind=st.sampled_from(("ext2", "ext4")),
    changes=st.lists(st.tuples(st.sampled_from(NUMBERS), st.integers(0, (1 << 64) - 1)), min_size=1, max_size=3),
    small=st.booleans(),
    two_copies=st.booleans(),
)
def test_any_number_in_the_superblock(kind: str, changes: list[tuple[str, int]], small: bool, two_copies: bool) -> None:
    disk = with_two_copies(image(kind)) if two_copies else image(kind)
    most = {name: 1 << WIDTHS[layout.SUPERBLOCK.codes[name]] for name, _ in changes}
    put_superblock(disk, {name: value % (min(most[name], 64) if small else most[name]) for name, value in changes})
    attempt(disk)


@settings(max_examples=100)
@given(kind=st.sampled_from(("ext2", "ext3", "ext4")), seed=st.integers(0, 1 << 32), flips=st.integers(1, 12))
def test_any_damage(kind: str, seed: int, flips: int) -> None:
    """Bytes of the first blocks: superblock, descriptors, resize inode's map, bitmaps, inodes."""
    disk = image(kind)
    rng = random.Random(seed)
    used = [at for at in range(0, 600 * 1024, 16) if any(disk.data[at : at + 16])]
    for _ in range(flips):
        disk.data[rng.choice(used) + rng.randrange(16)] = rng.randrange(256)
    attempt(disk)


def attempt(disk: MemoryDisk) -> None:
    start = time.process_time()
    try:
        growth = plan_ext_growth(disk)
    except DiskImageError as error:
        said = str(error)
    else:
        said = "memory: "
        assert growth.size <= NEW
        growth.write()
    assert said.startswith("memory: ")
    assert time.process_time() - start < 10


@pytest.mark.parametrize("kind", ["ext2", "ext3", "ext4"])
def test_planning_writes_nothing(kind: str) -> None:
    growth = plan_ext_growth(StoppingDisk(image(kind), 0))
    assert growth.gains
    assert growth.size == NEW


class WatchedDisk(MemoryDisk):
    """Counts the writes to the log of a journal, and refuses them while the journal says that the log is in use."""

    def watch(self, writer: JournalWriter) -> None:
        self.journal, self.log, self.seen = writer.at(0), writer.at(1), 0

    def write(self, offset: int, data: Buffer) -> None:
        if offset == self.log:
            self.seen += 1
            assert layout.JOURNAL_SUPERBLOCK.unpack(self.data, self.journal)["s_start"] == 0
        super().write(offset, data)


@pytest.mark.parametrize("revoked", [False, True])
def test_a_log_that_changes_nothing_is_emptied_first(revoked: bool) -> None:
    """What is written where it begins would be taken for a part of it after an interruption."""
    disk = WatchedDisk(0, name="disk")
    disk.data = image("ext4").data
    writer = JournalWriter(disk, layout.JOURNAL_CSUM_V3)
    writer.write({7000: bytes(1024)})
    if revoked:
        writer.revoke([7000])
        writer.commit()
    writer.close()
    disk.watch(writer)
    plan_ext_growth(disk).write()
    assert disk.seen == 1
    assert ExtUsage(disk).fs.geometry.blocks * 1024 == NEW


@pytest.mark.parametrize("features", [layout.JOURNAL_CSUM_V2, layout.JOURNAL_CSUM_V3])
@pytest.mark.parametrize("number", range(3))
def test_a_damaged_copy_in_the_log_is_found_while_planning(features: int, number: int) -> None:
    """Not between the blocks that are put in their places: half of a journal would have been replayed."""
    disk = image("ext4")
    writer = JournalWriter(disk, features)
    writer.write(dict.fromkeys((7000, 7001, 7002), bytes(range(256)) * 4))
    writer.commit()
    writer.close()
    disk.data[writer.at(2 + number) + 900] ^= 1
    with pytest.raises(FileSystemError) as caught:
        plan_ext_growth(StoppingDisk(disk, 0))
    assert str(caught.value) == (
        f"memory: its ext file system cannot be grown: its journal: the checksum of the copy in block {2 + number} "
        "is wrong; check it (e2fsck -f)"
    )


def test_a_log_with_the_superblock_in_it() -> None:
    """Growing writes its own transaction where the copy was, and the superblock after that."""
    disk = image("ext4")
    writer = JournalWriter(disk, layout.JOURNAL_CSUM_V3)
    writer.write({1: bytes(disk.data[1024:2048])})
    writer.commit()
    writer.close()
    plan_ext_growth(disk).write()
    assert ExtUsage(disk).fs.geometry.blocks * 1024 == NEW


@pytest.mark.parametrize("kind", ["ext2", "ext3", "ext4"])
def test_nothing_is_gained_twice(kind: str) -> None:
    disk = image(kind)
    plan_ext_growth(disk).write()
    once = bytes(disk.data)
    again = plan_ext_growth(disk)
    again.write()
    assert (again.gains, again.size) == (False, NEW)
    assert disk.data == once


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"s_feature_ro_compat": 0x40000000}, "features that are not known here"),
        ({"s_state": 3}, "the kernel has seen errors"),
        ({"s_reserved_gdt_blocks": 300}, "300 reserved descriptor blocks, expected at most 256"),
        ({"s_inodes_count": 3}, "it has 3 inodes"),
    ],
)
def test_what_is_refused(fields: dict[str, int], message: str) -> None:
    disk = image("ext4")
    before = dict(layout.SUPERBLOCK.unpack(disk.data, 1024))
    changed = {**fields}
    if "s_feature_ro_compat" in changed:
        changed["s_feature_ro_compat"] |= int(before["s_feature_ro_compat"])
    put_superblock(disk, changed)
    with pytest.raises(FileSystemError, match=message):
        plan_ext_growth(disk)


def test_a_feature_with_which_none_grows() -> None:
    geometry = read_file_system(image("ext4")).geometry
    features = geometry.features.with_(RoCompat.READONLY)
    with pytest.raises(FileSystemError, match=r"^disk: its ext file system has the feature read-only; its size cannot"):
        larger(geometry.replaced(features=features), NEW, "disk")


@pytest.mark.parametrize(
    ("groups", "copies", "expected"),
    [
        (1, (0, 0), (1, 2)),
        (2, (0, 1), (0, 2)),  # mke2fs sorts the two
        (2, (1, 0), (1, 2)),
        (2, (0, 0), (0, 2)),
        (3, (1, 2), (1, 2)),  # nothing but a longer last group
        (3, (0, 1), (0, 1)),
    ],
)
def test_groups_of_the_copies(groups: int, copies: tuple[int, int], expected: tuple[int, int]) -> None:
    """From one to three groups to three or a part of them."""
    disk = MemoryDisk(min(groups * 8, 22) * MIB)
    make_ext(disk, kind="ext4", block_size=1024)
    grown = larger(read_file_system(with_two_copies(disk, copies)).geometry, 24 * MIB, "disk")
    assert (grown.groups, grown.two_copies) == (3, expected)


def test_the_second_copy_moves_to_the_last_group() -> None:
    disk = with_two_copies(image("ext4"))
    old = ExtUsage(disk).fs.geometry
    plan_ext_growth(disk).write()
    usage = ExtUsage(disk)
    new = usage.fs.geometry
    assert list(new.copies) == [2]
    used = list(usage.ranges())
    assert usage.first_doubt is None
    start = old.group_start(1) * 1024
    assert not any(first < start + old.group_head(1) * 1024 and last > start for first, last in used)
    assert layout.SUPERBLOCK.unpack(disk.data, new.group_start(2) * 1024)["s_block_group_nr"] == 2


def test_a_resize_inode_with_other_blocks() -> None:
    """Block 3 is the first reserved one, and names the copies."""
    disk = image("ext4")
    disk.data[3 * 1024 + 4] ^= 1
    with pytest.raises(FileSystemError, match="its resize inode does not hold the blocks reserved"):
        plan_ext_growth(disk)


def test_inodes_are_counted_in_32_bits() -> None:
    disk = MemoryDisk(10 * MIB)
    make_ext(disk, kind="ext4", block_size=1024, bytes_per_inode=1024)
    layout.SUPERBLOCK.put(disk.data, {"s_feature_compat": 0x2C, "s_reserved_gdt_blocks": 0}, 1024)
    put_superblock(disk, {})
    geometry = read_file_system(disk).geometry
    with pytest.raises(DoesNotFitError, match="could not be counted") as caught:
        larger(geometry, 1 << 50, "disk")
    grown = larger(geometry, caught.value.available, "disk")
    assert grown.blocks * 1024 <= caught.value.available
    assert grown.groups > geometry.groups


def test_32_bits_end() -> None:
    """Without 64bit there are no blocks from 2^32 on, even on a larger disk."""
    disk = MemoryDisk(10 * MIB)
    make_ext(Region(disk, 0, 10 * MIB), kind="ext2", block_size=4096)
    geometry = read_file_system(disk).geometry
    assert Incompat.BIT64 not in geometry.features
    grown = larger(geometry, 1 << 60, "disk")
    assert grown.blocks == (1 << 32) - 1
    assert grown.first_meta_bg == geometry.desc_blocks + geometry.reserved_gdt_blocks
    assert (grown.reserved_gdt_blocks, Compat.RESIZE_INODE in grown.features) == (0, False)
