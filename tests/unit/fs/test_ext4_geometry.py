# SPDX-License-Identifier: MIT
"""The division into groups against figures that mke2fs 1.47 gave, and what is refused."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pydiskimg.errors import DoesNotFitError, FileSystemError
from pydiskimg.fs.ext4.bitmaps import find, insert
from pydiskimg.fs.ext4.features import (
    FEATURES,
    KNOWN_TO_BITMAPS,
    KNOWN_TO_FILES,
    Compat,
    Features,
    Incompat,
    RoCompat,
)
from pydiskimg.fs.ext4.file_map import pointer_blocks, pointer_map
from pydiskimg.fs.ext4.geometry import Geometry, sparse_groups
from pydiskimg.fs.ext4.plan import journal_blocks, plan_geometry
from pydiskimg.units import GIB, MIB, TIB


@pytest.mark.parametrize(
    ("size", "kind", "block_size", "blocks", "inodes", "groups", "reserve", "journal"),
    [
        (8 * MIB, "ext4", 1024, 8192, 2048, 1, 63, 1024),
        (64 * MIB, "ext4", 1024, 65536, 16384, 8, 256, 4096),
        (600 * MIB, "ext4", 4096, 153600, 38400, 5, 74, 4096),
        (1 * TIB, "ext4", 4096, 268435456, 67108864, 8192, 1024, 262144),
        (15 * TIB, "ext4", 4096, 4026531840, 503316480, 122880, 128, 262144),
        (16 * TIB, "ext4", 4096, 4294967296, 268435456, 131072, 0, 262144),
    ],
)
def test_figures(
    size: int, kind: str, block_size: int, blocks: int, inodes: int, groups: int, reserve: int, journal: int
) -> None:
    geometry = plan_geometry(size, kind=kind, where="disk")
    assert geometry.block_size == block_size
    assert (geometry.blocks, geometry.inodes, geometry.groups) == (blocks, inodes, groups)
    assert (geometry.reserved_gdt_blocks, journal_blocks(geometry)) == (reserve, journal)
    assert geometry.reserved_blocks == blocks * 5 // 100


def test_resize_inode_gives_way_at_2_to_the_32_blocks() -> None:
    below = plan_geometry(16 * TIB - 4096, kind="ext4", where="disk")
    assert Compat.RESIZE_INODE in below.features
    above = plan_geometry(16 * TIB, kind="ext4", where="disk")
    assert Compat.RESIZE_INODE not in above.features
    assert Incompat.META_BG not in above.features


def test_descriptors_that_would_fill_a_group_are_spread() -> None:
    geometry = plan_geometry(1 * TIB, kind="ext4", where="disk", block_size=1024)
    assert Incompat.META_BG in geometry.features
    assert Compat.RESIZE_INODE not in geometry.features
    assert [geometry.group_head(group) for group in (0, 1, 2, 3, 15, 16, 17, 18, 31)] == [2, 2, 0, 1, 1, 1, 1, 0, 1]
    assert list(geometry.descriptor_copies(1)) == [1 + 8192 * 16, 1 + 8192 * 17, 1 + 8192 * 31]


def test_a_useless_last_group_is_dropped() -> None:
    geometry = plan_geometry(640 * MIB + 4096 * 10, kind="ext4", where="disk")
    assert (geometry.groups, geometry.blocks, geometry.reserved_blocks) == (5, 163840, 8191)
    geometry = plan_geometry(640 * MIB + 4096 * 4000, kind="ext4", where="disk")
    assert (geometry.groups, geometry.blocks) == (6, 167840)


def test_sectors_of_4096_bytes_need_blocks_of_4096() -> None:
    assert plan_geometry(64 * MIB, kind="ext4", where="disk", sector_size=4096).block_size == 4096
    with pytest.raises(FileSystemError, match="blocks of 1024 bytes are smaller than the disk's sectors of 4096"):
        plan_geometry(64 * MIB, kind="ext4", where="disk", sector_size=4096, block_size=1024)


REFUSED: list[tuple[dict[str, Any], type[FileSystemError] | type[DoesNotFitError], str]] = [
    ({"kind": "xfs"}, FileSystemError, "'xfs' is not a kind of file system made here; expected ext2, ext3, ext4"),
    ({"block_size": 512}, FileSystemError, "512 is not a block size of ext4; expected 1024, 2048 or 4096"),
    ({"sector_size": 8192}, FileSystemError, "the disk has sectors of 8192 bytes"),
    ({"block_size": 8192}, FileSystemError, "8192 is not a block size"),
    ({"bytes_per_inode": 0}, FileSystemError, "0 bytes per inode are outside of 1024 to 67108864"),
    ({"bytes_per_inode": -4096}, FileSystemError, "-4096 bytes per inode are outside"),
    ({"reserved_percent": 51}, FileSystemError, "51 percent cannot be reserved for the super user; expected 0 to 50"),
    ({"reserved_percent": float("nan")}, FileSystemError, "nan percent cannot be reserved"),
    (
        {"size": 8 * MIB - 1},
        DoesNotFitError,
        r"ext4 needs at least 8388608 bytes \(8 MiB\), the disk has 8388607",
    ),
    ({"size": 0}, DoesNotFitError, "ext4 needs at least"),
    ({"size": 16 * TIB + 1}, DoesNotFitError, "ext4 needs at most"),
    ({"size": 16 * TIB, "kind": "ext3"}, DoesNotFitError, "ext3 has at most 4294967295 blocks, .* use ext4"),
    ({"size": 4 * TIB, "kind": "ext2", "block_size": 1024}, DoesNotFitError, "use ext4 or larger blocks"),
    ({"size": 15 * TIB, "kind": "ext3", "bytes_per_inode": 1024}, FileSystemError, "ext3 has at most 4294967295"),
]


@pytest.mark.parametrize(("options", "error", "text"), REFUSED)
def test_refused(options: dict[str, Any], error: type[Exception], text: str) -> None:
    with pytest.raises(error, match=f"^sda1: .*{text}.*nothing was written$"):
        plan_geometry(**{"size": 64 * MIB, "kind": "ext4", "where": "sda1", **options})


@given(
    size=st.integers(8 * MIB, 16 * TIB),
    kind=st.sampled_from(["ext2", "ext3", "ext4"]),
    block_size=st.sampled_from([None, 1024, 2048, 4096]),
    bytes_per_inode=st.none() | st.integers(1024, 64 * MIB),
)
def test_every_geometry_is_sound(size: int, kind: str, block_size: int | None, bytes_per_inode: int | None) -> None:
    try:
        geometry = plan_geometry(size, kind=kind, where="disk", block_size=block_size, bytes_per_inode=bytes_per_inode)
    except (FileSystemError, DoesNotFitError):
        assert kind != "ext4", "ext4 fits every size and ratio"
        return
    assert geometry.blocks * geometry.block_size <= size
    assert geometry.group_start(geometry.groups - 1) < geometry.blocks == geometry.group_end(geometry.groups - 1)
    assert 16 <= geometry.inodes_per_group <= 8 * geometry.block_size
    assert geometry.inodes_per_group % 8 == 0
    assert geometry.inodes < 1 << 32
    assert geometry.blocks_per_group % 8 == 0
    assert geometry.group_head(0) + 2 + geometry.inode_blocks <= geometry.blocks_per_group


def test_backups_lie_in_powers_of_three_five_and_seven() -> None:
    assert sparse_groups(130) == [1, 3, 5, 7, 9, 25, 27, 49, 81, 125]
    assert sparse_groups(1) == []


def divided(features: Features, groups: int, **more: Any) -> Geometry:
    return Geometry(features, 1024, 1 + 256 * groups, 256, 32, 32, **more)


def test_copies_and_heads_of_each_feature() -> None:
    """One group in three blocks of descriptors each of 32; the boot block is not part of group 0."""
    old, sparse = Features(), Features().with_(RoCompat.SPARSE_SUPER)
    assert list(divided(old, 5).copies) == [1, 2, 3, 4]
    assert list(divided(sparse, 5).copies) == [1, 3]
    two = divided(sparse.with_(Compat.SPARSE_SUPER2), 70, two_copies=(1, 69))
    assert list(two.copies) == [1, 69]
    assert [two.has_superblock(group) for group in (0, 1, 3, 69)] == [True, True, False, True]
    assert list(two.descriptor_copies(1)) == [3, 256 + 3, 69 * 256 + 3]
    assert (two.group_head(1), two.group_head(3)) == (4, 0)
    assert list(two.descriptor_pieces(2)) == [range(2), range(2, 3)]


def test_descriptors_are_packed_up_to_the_first_meta_bg() -> None:
    features = Features().with_(RoCompat.SPARSE_SUPER, Incompat.META_BG)
    geometry = divided(features, 100, first_meta_bg=2)
    assert [list(geometry.descriptor_copies(number))[:3] for number in (0, 1)] == [[2, 258, 770], [3, 259, 771]]
    assert list(geometry.descriptor_copies(2)) == [1 + 64 * 256, 1 + 65 * 256, 1 + 95 * 256]
    assert list(geometry.descriptor_copies(3)) == [1 + 96 * 256, 1 + 97 * 256]
    assert max(geometry.descriptor_copies(1)) == 1 + 49 * 256 + 2, "group 81 is spread"
    assert list(geometry.descriptor_pieces(9)) == [range(2), range(2, 3), range(3, 4)]
    assert [geometry.group_head(group) for group in (0, 1, 2, 64, 66, 81, 95)] == [3, 3, 0, 1, 0, 1, 1]


def test_bigalloc_leaves_a_boot_block_before_the_superblock() -> None:
    geometry = Geometry(Features(), 1024, 8192, 4096, 32, 32, cluster_blocks=16)
    assert (geometry.first_data_block, geometry.groups, geometry.descriptor_block(0)) == (0, 2, 2)
    assert (geometry.group_head(0), geometry.group_head(1)) == (3, 2)


def test_features_are_three_sets() -> None:
    features = FEATURES["ext4"]
    assert {name: kind.kind for name, kind in FEATURES.items()} == {name: name for name in FEATURES}
    assert features.without(Incompat.EXTENTS).with_(Incompat.EXTENTS) == features
    assert features.with_(Incompat.JOURNAL_DEV).beyond(KNOWN_TO_BITMAPS) == (Incompat.JOURNAL_DEV, 0)
    assert features.with_(Incompat.JOURNAL_DEV).kind is None
    assert Features(1 << 30, 1 << 30, 1 << 30).beyond(KNOWN_TO_BITMAPS) == (1 << 30, 1 << 30)
    assert Features(1 << 30, 1 << 30, 1 << 30).beyond(KNOWN_TO_FILES) == (1 << 30, 0)
    assert features.fields["s_feature_ro_compat"] == features.ro_compat


@pytest.mark.parametrize(
    ("size", "blocks"),
    [(8 * MIB, 0), (128 * MIB - 4096, 1024), (128 * MIB, 4096), (16 * GIB, 32768), (128 * GIB, 262144)],
)
def test_journal_steps(size: int, blocks: int) -> None:
    geometry = divided(FEATURES["ext3"], 1)
    assert journal_blocks(geometry.replaced(blocks=size // 4096 - (size == 8 * MIB))) == blocks
    assert journal_blocks(geometry.replaced(features=FEATURES["ext2"])) == 0


@given(st.integers(1, 80000), st.sampled_from([256, 512, 1024]))
def test_pointer_trees_use_every_block_once(blocks: int, per_block: int) -> None:
    pointers = pointer_blocks(blocks, per_block)
    mapping = pointer_map([(1000, 1000 + 7), (2000, 2000 + blocks + pointers - 7)], per_block * 4, blocks)
    assert len(mapping.nodes) == pointers
    assert mapping.blocks == blocks + pointers


@given(st.lists(st.tuples(st.integers(0, 60), st.integers(1, 9))), st.integers(0, 60), st.integers(1, 9))
def test_runs_against_a_bitmap(taken: list[tuple[int, int]], start: int, length: int) -> None:
    runs: list[tuple[int, int]] = []
    used: set[int] = set()
    for first, count in taken:
        block = find(runs, first, 80, count, 80)
        free = [b for b in range(first, 81 - count) if used.isdisjoint(range(b, b + count))]
        assert block == (free[0] if free else None)
        if block is not None:
            insert(runs, block, block + count)
            used |= set(range(block, block + count))
    assert {block for first, last in runs for block in range(first, last)} == used
    assert all(last < runs[index + 1][0] for index, (_, last) in enumerate(runs[:-1])), "neighbours are joined"
