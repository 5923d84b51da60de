# SPDX-License-Identifier: MIT
"""GPTs that Linux ignores, or that are for other sectors: not read here, named, and copied as a whole."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from pydiskimg.disks.memory import MemoryDisk
from pydiskimg.errors import PartitionError
from pydiskimg.extents import Kind
from pydiskimg.fs.ext4.make import make_ext
from pydiskimg.partitions.read import gpt_sector_size, read_partition_table
from pydiskimg.regions.region import Region
from pydiskimg.units import MIB
from pydiskimg.volumes.described_end import LOOK_AT, described_end
from pydiskimg.volumes.used import used_source
from tests.fixtures.partition_tables import LINUX, entry, gpt, record

SIZE = 12 * MIB
START, END = MIB, 10 * MIB


def disk_with(*, sector_size: int = 512, **changes: int) -> MemoryDisk:
    """A disk with one ext4 in a GPT's partition; changes are those of gpt(), to the first header."""
    disk = MemoryDisk(SIZE, sector_size=sector_size, name="disk")
    sectors = SIZE // sector_size
    gpt(disk, [(START // sector_size, END // sector_size - 1)], sectors=sectors, **changes)
    make_ext(Region(disk, START, END - START))
    return disk


def free(disk: MemoryDisk) -> int:
    return disk.size - used_source(disk).used_bytes


def with_mbr(*entries: bytes, signature: bytes = b"\x55\xaa") -> MemoryDisk:
    disk = disk_with()
    disk.write(0, record(*entries)[:510] + signature)
    return disk


IGNORED: dict[str, tuple[Callable[[], MemoryDisk], str]] = {
    "entry at 63": (
        lambda: disk_with(protective=63),
        "disk: Linux ignores the GPT: its protective MBR entry starts at sector 63, expected 1",
    ),
    "entry at 0": (lambda: disk_with(protective=0), "its protective MBR entry starts at sector 0, expected 1"),
    "not the first entry": (
        lambda: with_mbr(entry(LINUX, 2048, 8192), entry(0xEE, 63, 100)),
        "its protective MBR entry starts at sector 63, expected 1",
    ),
    "my_lba": (lambda: disk_with(my=2), "header of sector 2, found in sector 1"),
    "first usable": (lambda: disk_with(first_usable=1 << 40), "usable sectors 1099511627776 to "),
    "last usable": (lambda: disk_with(last_usable=SIZE // 512), "usable sectors 34 to 24576"),
    "turned": (lambda: disk_with(first_usable=9000, last_usable=8000), "usable sectors 9000 to 8000"),
    "size of entries": (lambda: disk_with(size=256), "entries of 256 bytes, stated at byte 512; Linux takes 128"),
    "size of the header": (lambda: disk_with(header_size=91), "header size 91 at byte 512"),
    "larger header": (lambda: disk_with(header_size=513), "header size 513 at byte 512"),
    "number of entries": (lambda: disk_with(stated_count=1025), "1025 entries of 128 bytes, stated at byte 512"),
    "crc of the header": (lambda: disk_with(crc=1), "header at byte 512: CRC"),
    "crc of the entries": (lambda: disk_with(array_crc=1), "partition entries at byte 1024: CRC"),
}


def test_a_good_one() -> None:
    disk = disk_with()
    assert [(found.start, found.start + found.length) for found in read_partition_table(disk)] == [(START, END)]
    assert free(disk) > 7 * MIB


@pytest.mark.parametrize("name", IGNORED)
def test_what_linux_ignores_is_copied_as_a_whole(name: str) -> None:
    make, words = IGNORED[name]
    disk = make()
    with pytest.raises(PartitionError) as caught:
        read_partition_table(disk, backup=False)
    assert words in str(caught.value)
    source = used_source(disk)
    assert [extent.kind for extent in source.extents()] == [Kind.DATA]
    assert source.notes == [f"the partition table is not believed: {caught.value}; the whole disk counts as in use"]


@pytest.mark.parametrize("signature", [b"\0\0", b"\xaa\x55"])
def test_without_the_signature_of_an_mbr(signature: bytes) -> None:
    """Linux treats it as a disk without a table, and so do we; what the whole disk contains is just as uncertain."""
    disk = with_mbr(entry(0xEE, 1, SIZE // 512 - 1), signature=signature)
    assert read_partition_table(disk) == []
    assert free(disk) == 0


@pytest.mark.parametrize("sector_size", [2048, 4096])
def test_a_gpt_behind_the_superblock_of_an_older_ext(sector_size: int) -> None:
    """The table for large sectors leaves byte 1024 as it is; its MBR is gone, so that nothing else tells of it."""
    disk = MemoryDisk(SIZE, sector_size=sector_size, name="disk")
    make_ext(disk)
    before = bytes(disk.data[1024:2048])
    gpt(disk, [(START // sector_size, END // sector_size - 1)], sectors=SIZE // sector_size)
    disk.zero(0, 512)
    assert bytes(disk.data[1024:2048]) == before
    source = used_source(disk)
    assert [extent.kind for extent in source.extents()] == [Kind.DATA]
    assert source.notes == ["the whole disk (ext4): has a GPT of its own as well; all of it counts as in use"]


def test_a_hybrid_mbr() -> None:
    """The same partition in both tables is believed, another one is a contradiction."""
    protective = entry(0xEE, 1, 2047)
    assert free(with_mbr(protective, entry(LINUX, START // 512, (END - START) // 512))) > 7 * MIB
    disk = with_mbr(protective, entry(LINUX, 4096, 8192))
    assert len(read_partition_table(disk)) == 1
    assert free(disk) == 0
    assert (
        "entry 2 of the MBR (type 0x83, sectors 4096 to 12288) is not a partition of the GPT"
        in (used_source(disk).notes[0])
    )


@pytest.mark.parametrize("own", [512, 4096])
@pytest.mark.parametrize("other", [512, 1024, 2048, 4096])
def test_a_gpt_for_other_sectors_is_named(own: int, other: int) -> None:
    disk = disk_with(sector_size=other)
    assert gpt_sector_size(disk) == other
    assert described_end(bytes(disk.data[:LOOK_AT])) == SIZE
    assert bool(free(disk)) == (other in (512, 4096)), "those two are read, whatever the sectors of the disk"
    if own == other:
        assert read_partition_table(disk, sector_size=own)
        return
    with pytest.raises(PartitionError) as caught:
        read_partition_table(disk, sector_size=own)
    assert str(caught.value) == f"disk: has a GPT for sectors of {other} bytes, while the disk has sectors of {own}"
