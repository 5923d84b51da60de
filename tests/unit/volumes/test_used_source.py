# SPDX-License-Identifier: MIT
"""A disk without its free space: tables, overlaps, unknown contents, reading."""

from __future__ import annotations

import functools
import os
import random
import struct
import time
import tracemalloc
from collections.abc import Sequence
from pathlib import Path
from uuid import UUID

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pydiskimg.disks.file import FileDisk
from pydiskimg.disks.memory import MemoryDisk
from pydiskimg.extents import Extent, Kind
from pydiskimg.fs.ext4.make import make_ext
from pydiskimg.fs.probe import xfs
from pydiskimg.fs.swap import make_swap
from pydiskimg.images.raw import open_raw
from pydiskimg.protocols import read_bytes
from pydiskimg.ranges import RangeList
from pydiskimg.units import MIB
from pydiskimg.volumes.used import UsedSource, used_source
from tests.fixtures.qcow2_images import assert_contract

ONE = UUID("a3c1f2d4-0b1e-4c55-9a6f-1234567890ab")
Part = tuple[int, int, bytes]
"""Start and length in MiB, and what is in it."""


@functools.cache
def ext(size_mib: int = 9, kind: str = "ext4") -> bytes:
    disk = MemoryDisk(size_mib * MIB)
    make_ext(disk, kind=kind, uuid=ONE, hash_seed=ONE, now=1700000000)
    return bytes(disk.data)


@functools.cache
def swap(size_mib: int = 2) -> bytes:
    disk = MemoryDisk(size_mib * MIB)
    make_swap(disk, uuid=ONE)
    return bytes(disk.data)


def partitioned(parts: Sequence[Part], *, size_mib: int = 24, sector_size: int = 512, fill: int = 0xA5) -> MemoryDisk:
    """A disk with an MBR, full of unneeded data."""
    disk = MemoryDisk(size_mib * MIB, fill=fill, name="disk")
    disk.data[:512] = bytes(510) + b"\x55\xaa"
    for number, (start, length, content) in enumerate(parts):
        first, count = start * MIB // sector_size, length * MIB // sector_size
        struct.pack_into("<B3sB3sII", disk.data, 446 + 16 * number, 0, b"", 0x83, b"", first, count)
        disk.data[start * MIB : start * MIB + len(content)] = content
    return disk


def holes(source: UsedSource) -> list[tuple[int, int]]:
    """What is free, after the checks that hold for every one."""
    extents = assert_contract(source)
    assert source.used_bytes == sum(extent.length for extent in extents if extent.kind is Kind.DATA)
    return [(extent.start, extent.end) for extent in extents if extent.kind is not Kind.DATA]


def free_of(source: UsedSource, start_mib: int, length_mib: int) -> int:
    start, end = start_mib * MIB, (start_mib + length_mib) * MIB
    return sum(max(0, min(last, end) - max(first, start)) for first, last in holes(source))


def test_ext_and_swap() -> None:
    disk = partitioned([(1, 9, ext()), (12, 2, swap())])
    source = used_source(disk)
    assert (source.name, source.size) == ("disk", disk.size)
    assert free_of(source, 1, 9) > 4 * MIB
    assert free_of(source, 12, 2) == 2 * MIB - 4096
    assert sum(end - start for start, end in holes(source)) == free_of(source, 1, 9) + free_of(source, 12, 2)
    assert source.notes == ["partition 2 (swap): its contents are left out"]


@pytest.mark.parametrize("content", [ext(), swap(9)])
def test_a_disk_without_a_table(content: bytes) -> None:
    disk = MemoryDisk(0)
    disk.data = bytearray(content)
    source = used_source(disk)
    assert free_of(source, 0, 9) > 4 * MIB
    assert all(note.startswith("the whole disk (") for note in source.notes)


@pytest.mark.parametrize("sector_size", [512, 4096])
def test_both_sizes_of_sectors(sector_size: int) -> None:
    source = used_source(partitioned([(1, 9, ext())], sector_size=sector_size))
    assert free_of(source, 1, 9) > 4 * MIB


def all_is_used(disk: MemoryDisk, note: str) -> None:
    source = used_source(disk)
    assert holes(source) == []
    assert read_bytes(source, 0, disk.size) == bytes(disk.data)
    assert any(note in found for found in source.notes), source.notes


def test_nothing_known() -> None:
    all_is_used(MemoryDisk(MIB, fill=0xA5), "the disk contains nothing known")
    all_is_used(partitioned([(1, 9, b"")]), "the disk contains nothing known")
    all_is_used(MemoryDisk(0), "the disk contains nothing known")
    all_is_used(
        partitioned([(1, 9, b"LUKS\xba\xbe\0\2" + bytes(4096))]),
        "partition 1 (crypto_LUKS): all of it counts as in use",
    )


def test_what_is_not_known_beside_what_is() -> None:
    source = used_source(partitioned([(1, 9, ext()), (12, 2, b"")]))
    assert free_of(source, 1, 9) == sum(end - start for start, end in holes(source)) > 0
    assert source.notes == ["partition 2 (nothing known): all of it counts as in use"]


def test_a_table_that_is_wrong() -> None:
    disk = partitioned([(1, 9, ext()), (12, 200, swap())])
    all_is_used(disk, "the partition table is not believed: disk: partition 2")


def test_bitmaps_that_are_not_believed() -> None:
    content = bytearray(ext(9, "ext2"))
    content[1024 + 0x3A] = 0
    all_is_used(
        partitioned([(1, 9, bytes(content))]),
        "partition 1 (ext2): its bitmaps are not believed: it was not unmounted cleanly and has no journal to "
        "recover from; all of it counts as in use",
    )


def test_a_group_that_is_not_believed() -> None:
    content = bytearray(ext(9, "ext2"))
    content[2048 + 32 + 0xC] ^= 1
    source = used_source(partitioned([(1, 9, bytes(content))]))
    assert 0 < free_of(source, 1, 9) < free_of(used_source(partitioned([(1, 9, ext(9, "ext2"))])), 1, 9)
    assert source.notes[0].startswith(
        "partition 1 (ext2): 1 of 2 groups are not believed and copied as a whole (group 1: "
    )


def test_swap_that_is_not_believed() -> None:
    content = bytearray(swap())
    content[3000] = 1
    all_is_used(partitioned([(1, 2, bytes(content))]), "partition 1 (swap): its header has bytes that mkswap")


def swap_and_xfs() -> bytes:
    content = bytearray(swap())
    numbers = {"sb_blocksize": 4096, "sb_dblocks": 512, "sb_rextsize": 1, "sb_agblocks": 512, "sb_agcount": 1}
    numbers |= {"sb_versionnum": 4, "sb_sectsize": 512, "sb_inodesize": 256, "sb_imax_pct": 25}
    logs = {"sb_blocklog": 12, "sb_sectlog": 9, "sb_inodelog": 8, "sb_inopblog": 4}
    content[: xfs.SUPERBLOCK.size] = xfs.SUPERBLOCK.pack(sb_magicnum=b"XFSB", sb_uuid=ONE.bytes, **numbers, **logs)
    return bytes(content)


def test_two_signatures_in_one_partition() -> None:
    source = used_source(partitioned([(1, 2, swap_and_xfs()), (4, 9, ext())]))
    assert free_of(source, 1, 2) == 0
    assert free_of(source, 4, 9) > 4 * MIB
    assert "has the signatures of swap and xfs" in source.notes[0]


def test_two_signatures_on_a_disk_without_a_table() -> None:
    disk = MemoryDisk(0, name="disk")
    disk.data = bytearray(swap_and_xfs())
    all_is_used(disk, "has the signatures of swap and xfs")
    assert [note for note in used_source(disk).notes if "signatures" in note] == used_source(disk).notes[:1]


STRANGERS = (
    (0, b"integrt\0", "dm-integrity"),
    (0, b"dmvdo001", "VDO"),
    (0, b"bluestore block device\n", "Ceph BlueStore"),
    (0, bytes.fromhex("fc4e2ba9"), "a member of a RAID (md 1.1)"),
    (3, b"-FVE-FS-", "BitLocker"),
    (3, b"NTFS    ", "NTFS"),
    (3, b"EXFAT   ", "exFAT"),
    (32, b"ORCLDISK", "Oracle ASM"),
    (512 + 4, b"!Stra0tis\x86\xff\x02^\x41rh", "Stratis"),
    (4608 + 4, b"!Stra0tis\x86\xff\x02^\x41rh", "Stratis"),
    (512, bytes.fromhex("57455682"), "a BSD disklabel"),
    (512 + 12, bytes.fromhex("eede0d60"), "a Solaris label"),
    (4096, bytes.fromhex("fc4e2ba9"), "a member of a RAID (md 1.2)"),
    (4096 + 24, bytes.fromhex("c68573f64e1a45ca"), "bcache or bcachefs"),
    (8192 + 1372, bytes.fromhex("54190100"), "UFS"),
    (16384 + 24, b"version\0", "ZFS"),
    (256 * 1024 + 16384 + 24, b"version\0", "ZFS"),
    (9 * MIB - 512 * 1024 + 16384 + 24, b"version\0", "ZFS"),
    (9 * MIB - 256 * 1024 + 16384 + 24, b"version\0", "ZFS"),
    (32768, b"JFS1", "JFS"),
    (32769, b"BEA01", "UDF"),
    (34817, b"NSR02", "UDF"),
    (36865, b"NSR03", "UDF"),
    (0, b"verity\0\0", "dm-verity"),
    (0, b"SnAp", "a snapshot's store (device mapper)"),
    (512 + 24, b"LVM2 001", "an LVM physical volume"),
    (4096, b"OCFSV2", "OCFS2"),
    (8192, b"\x49\xe8\x95\xf9", "HPFS"),
    (65536, b"ReIsEr4", "reiser4"),
    (1 * MIB, b"\x0d\xd0\x01\xc0", "VMFS"),
    (9 * MIB - 512, b"\xde\x11\xde\x11", "a member of a RAID (DDF)"),
    (9 * MIB - 1024, b"Intel Raid ISM Cfg Sig. 1.0", "a member of a RAID (Intel)"),
    (9 * MIB - 3087 * 512, b"Promise Technology, Inc.", "a member of a RAID (Promise)"),
    (32769, b"CD001", "ISO 9660"),
    (65536, bytes.fromhex("01161970"), "GFS2"),
    (65536 + 52, b"ReIsEr2Fs", "reiserfs"),
    (65536 + 1372, bytes.fromhex("19015419"), "UFS2"),
    (9 * MIB - 8192, bytes.fromhex("fc4e2ba9"), "a member of a RAID (md 1.0)"),
    (9 * MIB - 65536, bytes.fromhex("fc4e2ba9"), "a member of a RAID (md 0.90)"),
)


@pytest.mark.parametrize(("offset", "signature", "what"), STRANGERS)
@pytest.mark.parametrize("content", [ext(9, "ext2"), swap(9)], ids=["ext2", "swap"])
def test_what_has_taken_a_partition_over(content: bytes, offset: int, signature: bytes, what: str) -> None:
    taken = bytearray(content)
    taken[offset : offset + len(signature)] = signature
    all_is_used(partitioned([(1, 9, bytes(taken))]), f": looks like {what} as well; all of it counts as in use")


@pytest.mark.parametrize("content", [ext(9, "ext2"), ext(9)], ids=["ext2", "ext4"])
@pytest.mark.parametrize(("kind", "start", "length"), [(0x83, 2048, 4096), (0x8E, 8, 16), (0x05, 2048, 1 << 31)])
def test_a_partition_that_became_another_machines_disk(content: bytes, kind: int, start: int, length: int) -> None:
    """Making an MBR does not change an older superblock at byte 1024."""
    taken = bytearray(content)
    taken[:512] = bytes(510) + b"\x55\xaa"
    struct.pack_into("<B3sB3sII", taken, 446, 0, b"", kind, b"", start, length)
    all_is_used(
        partitioned([(1, 9, bytes(taken))]), ": has a partition table of its own as well; all of it counts as in use"
    )


def test_boot_code_in_a_partition_is_no_table() -> None:
    """GRUB and LILO leave the table's place zero, others have code and text there."""
    for rest in (bytes(64), b"\x0dCould not find kernel image".ljust(64, b"\x90")):
        bootable = bytearray(ext())
        bootable[:512] = (b"\xeb\x63\x90".ljust(446, b"\x90") + rest) + b"\x55\xaa"
        assert free_of(used_source(partitioned([(1, 9, bytes(bootable))])), 1, 9) > 4 * MIB


@pytest.mark.parametrize(("offset", "signature"), [(4096, "fc4e2ba9"), (24 * MIB - 8192, "fc4e2ba9")])
def test_what_has_taken_the_disk_over(offset: int, signature: str) -> None:
    disk = partitioned([(1, 9, ext())])
    disk.data[offset : offset + 4] = bytes.fromhex(signature)
    all_is_used(disk, "the disk has partitions and the signature of a member of a RAID (md 1.")


def test_a_file_system_over_the_whole_disk_as_well() -> None:
    """It is not known which is right: the table may be older than the file system, or newer."""
    disk = partitioned([(2, 9, ext())])
    disk.data[512 : 64 * 1024] = ext(24)[512 : 64 * 1024]
    all_is_used(disk, "the disk has partitions and the signature of ext4 as a whole; all of it counts as in use")


@pytest.mark.parametrize(
    ("parts", "believed"),
    [
        ([(1, 9, ext()), (4, 2, swap())], []),
        ([(4, 2, swap()), (1, 9, ext())], []),
        ([(1, 20, ext(20)), (3, 2, swap()), (6, 2, b""), (22, 2, swap())], [4]),
        ([(1, 9, ext()), (10, 2, swap())], [1, 2]),
    ],
)
def test_overlapping_partitions(parts: list[Part], believed: list[int]) -> None:
    disk = partitioned(parts)
    source = used_source(disk)
    for number, (start, length, _) in enumerate(parts, start=1):
        said = [note for note in source.notes if note.startswith(f"partition {number} ") and "overlaps" in note]
        assert bool(free_of(source, start, length)) == (number in believed)
        assert bool(said) == (number not in believed)


def test_two_tables_in_one() -> None:
    """With sectors of 512 bytes and with sectors of 4096 there is something known in the partitions."""
    disk = partitioned([(1, 2, swap())])
    disk.data[8 * MIB : 10 * MIB] = swap()
    struct.pack_into("<II", disk.data, 446 + 8, 2048, 256)
    disk.data[MIB : MIB + 4096] = bytes(1024) + struct.pack("<3I", 1, 31, 0) + bytes(3050) + b"SWAPSPACE2"
    struct.pack_into("<I", disk.data, 8 * MIB + 1028, 255)
    all_is_used(disk, "the partition table is plausible with two sector sizes")


@settings(max_examples=100)
@given(
    boundaries=st.lists(st.integers(0, 400_000), max_size=30).map(sorted),
    reads=st.lists(st.tuples(st.integers(0, 400_000), st.integers(0, 400_000)), max_size=5),
)
def test_reading_agrees_with_the_extents(boundaries: list[int], reads: list[tuple[int, int]]) -> None:
    disk = MemoryDisk(400_000)
    disk.data = bytearray(random.Random(7).randbytes(400_000))
    ranges = list(zip(boundaries[::2], boundaries[1::2], strict=False))
    source = UsedSource(disk, RangeList(ranges), [])
    expected = bytearray(400_000)
    for start, end in ranges:
        expected[start:end] = disk.data[start:end]
    assert_contract(source)
    assert source.used_bytes == sum(end - start for start, end in ranges)
    for offset, length in [*reads, (0, 400_000)]:
        buffer = bytearray(b"\xee") * min(length, 400_000 - offset)
        source.read_into(offset, buffer)
        assert buffer == expected[offset : offset + len(buffer)]
    with pytest.raises(ValueError, match="outside"):
        source.read_into(400_000, bytearray(1))


def test_holes_of_the_file_stay(tmp_path: Path) -> None:
    path = tmp_path / "disk"
    with path.open("wb") as file:
        file.truncate(64 * MIB)
        file.seek(40 * MIB)
        file.write(b"x" * MIB)
    with open_raw(path) as raw:
        source = UsedSource(raw, RangeList([(0, 40 * MIB + 4096), (50 * MIB, 64 * MIB)]), [])
        assert list(source.extents()) == [
            Extent(0, 40 * MIB, Kind.HOLE),
            Extent(40 * MIB, 4096, Kind.DATA),
            Extent(40 * MIB + 4096, 24 * MIB - 4096, Kind.HOLE),
        ]


@settings(max_examples=150)
@given(changes=st.lists(st.tuples(st.integers(0, 3 * MIB), st.binary(min_size=1, max_size=4)), max_size=8))
def test_damage_anywhere_is_no_crash(changes: list[tuple[int, bytes]]) -> None:
    disk = _damaged()
    for offset, change in changes:
        at = offset % 512 if offset % 3 else offset
        disk.data[at : at + len(change)] = change
    source = used_source(disk)
    holes(source)
    disk.data[: 4 * MIB] = _pristine()


@functools.cache
def _damaged() -> MemoryDisk:
    return partitioned([(1, 9, ext()), (12, 2, swap())])


@functools.cache
def _pristine() -> bytes:
    return bytes(partitioned([(1, 9, ext()), (12, 2, swap())]).data[: 4 * MIB])


def test_it_is_cheap_for_a_large_disk(tmp_path: Path) -> None:
    """64 GiB, 512 groups: time and memory of the bitmaps, not of the disk."""
    path = tmp_path / "disk"
    with path.open("wb") as file:
        file.truncate(64 << 30)
    fd = os.open(path, os.O_RDWR)
    try:
        make_ext(FileDisk(fd, "disk", reads_as_zero=True))
    finally:
        os.close(fd)
    with open_raw(path) as raw:
        start = time.process_time()
        source = used_source(raw)
        assert time.process_time() - start < 2
        assert source.used_bytes < 200 * MIB
        tracemalloc.start()
        used_source(raw)
        assert tracemalloc.get_traced_memory()[1] < 2 * MIB
        tracemalloc.stop()
