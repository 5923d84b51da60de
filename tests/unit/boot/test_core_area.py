# SPDX-License-Identifier: MIT
"""Where a boot loader goes on a disk with partitions, and what there is not overwritten."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pydiskimg.boot import (
    CoreArea,
    CoreImage,
    check_core_area,
    find_core_area,
    install_core,
    make_core,
    write_boot_loader,
)
from pydiskimg.disks.memory import MemoryDisk
from pydiskimg.errors import BootLoaderError, DiskImageError, DoesNotFitError
from pydiskimg.partitions.make import Content, NewPartition, plan_partition_table
from pydiskimg.protocols import read_bytes
from pydiskimg.units import MIB
from tests.fixtures.grub_files import grub_files
from tests.unit.boot.test_grub import CONFIG, MODULES, PREFIX, FilesOnly

SIZE = 4 * MIB
GRUB = FilesOnly(grub_files())
CORE = make_core(GRUB, MODULES, config=CONFIG, prefix=PREFIX)
LABELS = ["dos", "gpt"]


def disk(label: str) -> MemoryDisk:
    made = MemoryDisk(SIZE)
    plan_partition_table(SIZE, 512, [NewPartition(Content.LINUX)], label=label).write(made)
    return made


def with_mbr(*entries: tuple[int, int, int], code: bytes = b"") -> MemoryDisk:
    """An MBR with entries (type, first sector, sectors)."""
    made = MemoryDisk(SIZE)
    sector = bytearray(512)
    sector[: len(code)] = code
    for slot, (kind, start, count) in enumerate(entries):
        struct.pack_into("<B3xB3xII", sector, 446 + 16 * slot, 0, kind, start, count)
    sector[510:] = b"\x55\xaa"
    made.write(0, bytes(sector))
    return made


def core_of(size: int) -> CoreImage:
    """An image of at least size bytes."""
    return CoreImage(CORE.first, CORE.rest + b"\x77" * (-(-size // 512) * 512))


def test_the_gap_after_an_mbr() -> None:
    assert find_core_area(disk("dos")) == CoreArea(512, MIB - 512, is_partition=False)
    assert find_core_area(with_mbr((0x83, 100, 10), (0x83, 63, 10))) == CoreArea(512, 62 * 512, is_partition=False)


def test_an_extended_partition_ends_the_gap() -> None:
    made = with_mbr((0x83, 4096, 10), (0x05, 34, 100))
    made.write(34 * 512 + 510, b"\x55\xaa")
    assert find_core_area(made).length == 33 * 512


def test_the_bios_boot_partition_of_a_gpt() -> None:
    assert find_core_area(disk("gpt")) == CoreArea(MIB, MIB, is_partition=True)


def test_a_gpt_without_one() -> None:
    made = disk("gpt")
    entries = bytearray(read_bytes(made, 1024, 128 * 128))
    entries[:128] = bytes(128)
    header = bytearray(read_bytes(made, 512, 92))
    header[88:92] = struct.pack("<I", zlib.crc32(entries))
    header[16:20] = bytes(4)
    header[16:20] = struct.pack("<I", zlib.crc32(header))
    made.write(1024, bytes(entries))
    made.write(512, bytes(header))
    with pytest.raises(BootLoaderError, match="has no BIOS boot partition for GRUB; make one of 1 MiB, type 21686148"):
        find_core_area(made)


@pytest.mark.parametrize("made", [MemoryDisk(SIZE), with_mbr()], ids=["no table", "an empty one"])
def test_a_disk_without_partitions(made: MemoryDisk) -> None:
    with pytest.raises(BootLoaderError, match="has no partitions"):
        find_core_area(made)


@pytest.mark.parametrize("label", LABELS)
def test_it_is_written_and_written_again(label: str) -> None:
    made = disk(label)
    table = read_bytes(made, 440, 72)
    area = find_core_area(made)
    for core in (core_of(60_000), core_of(0), core_of(100)):
        write_boot_loader(made, core, area, GRUB)
        held = read_bytes(made, area.start, 100_000)
        assert held == core.at(area.start // 512).ljust(100_000, b"\0")  # nothing of a larger one before
        assert read_bytes(made, 440, 72) == table
        assert struct.unpack("<Q", read_bytes(made, 0x5C, 8)) == (area.start // 512,)


def test_a_grub_in_several_pieces_is_replaced() -> None:
    """grub-bios-setup goes around sectors that others marked; its block list has an entry for each piece."""
    made = disk("dos")
    write_boot_loader(made, core_of(0), find_core_area(made), GRUB)
    first = bytearray(read_bytes(made, 512, 512))
    first[-12:] = struct.pack("<QHH", 2, 3, 0x820)
    first[-24:-12] = struct.pack("<QHH", 9, 30, 0x880)
    made.write(512, bytes(first))
    made.write(1024, bytes(core_of(0).size))
    made.write(1024, b"x" * 3 * 512)
    made.write(9 * 512, b"y" * 30 * 512)
    check_core_area(made, find_core_area(made), 20_000)
    made.write(8 * 512 + 511, b"!")
    with pytest.raises(BootLoaderError, match=r"the bytes 21 00.* at byte 4607 are neither zero nor GRUB's"):
        check_core_area(made, find_core_area(made), 20_000)


@pytest.mark.parametrize("label", LABELS)
def test_a_core_image_that_nothing_loads_yet_is_replaced(label: str) -> None:
    """The first sector of a disk that is being installed is written last, and without it the core image is there."""
    made = disk(label)
    area = find_core_area(made)
    install_core(made, core_of(60_000), area, GRUB)
    write_boot_loader(made, CORE, area, GRUB)
    assert read_bytes(made, area.start, 100_000) == CORE.at(area.start // 512).ljust(100_000, b"\0")


MD = struct.pack("<I", 0xA92B4EFC)
FOREIGN = {
    "a RAID": (4096, MD, r"the gap before the first partition contains .*: a member of a RAID \(md 1\.2\)"),
    "LVM": (1024, b"LABELONE" + bytes(16) + b"LVM2 001", "an LVM physical volume"),
    "a text": (1000, b"FlexNet", r"the bytes 46 6c 65 78 4e 65 74 .* at byte 1000 are neither zero nor GRUB's"),
    "the last byte": (512 + CORE.size - 1, b"\1", "at byte 4607 are"),
}


@pytest.mark.parametrize("name", FOREIGN)
def test_what_others_put_into_the_gap(name: str) -> None:
    offset, data, expected = FOREIGN[name]
    made = disk("dos")
    made.write(offset, data)
    written = made.bytes_written
    with pytest.raises(BootLoaderError, match=expected):
        write_boot_loader(made, CORE, find_core_area(made), GRUB)
    assert made.bytes_written == written


def test_what_lies_beyond_the_core_image_stays() -> None:
    made = disk("dos")
    made.write(512 + CORE.size, b"somebody's")
    write_boot_loader(made, CORE, find_core_area(made), GRUB)
    assert read_bytes(made, 512 + CORE.size, 10) == b"somebody's"


def test_a_bios_boot_partition_is_a_boot_loaders() -> None:
    made = disk("gpt")
    made.write(MIB, b"an older, larger GRUB" * 1000)
    write_boot_loader(made, CORE, find_core_area(made), GRUB)
    made = disk("gpt")
    made.write(MIB + 4096, MD)
    with pytest.raises(BootLoaderError, match=r"the BIOS boot partition contains .*: a member of a RAID \(md 1\.2\)"):
        write_boot_loader(made, core_of(20_000), find_core_area(made), GRUB)


@pytest.mark.parametrize(
    ("code", "name"),
    [
        (b"\xfa\xeb\x21\x01\xb4\x01LILO", "LILO"),
        (b"\xeb\x48\x90".ljust(0x180, b"\x90") + b"GRUB \0Geom\0Hard Disk\0Read\0 Error", "GRUB Legacy"),
        (
            b"\x33\xc0\x8e".ljust(300, b"\x90") + b"Invalid partition table",
            "a boot manager as DOS and Windows write it",
        ),
        (b"\x33\xc0\x8e", r"an unknown boot manager \(found 33 c0 8e 00"),
    ],
)
def test_another_boot_manager_is_named(code: bytes, name: str) -> None:
    made = with_mbr((0x83, 2048, 100), code=code)
    with pytest.raises(BootLoaderError, match=f"the first sector contains {name}.*nothing was written"):
        write_boot_loader(made, CORE, find_core_area(made), GRUB)


def test_the_gap_before_a_partition_of_dos_is_too_small() -> None:
    made = with_mbr((0x83, 63, 10))
    with pytest.raises(DoesNotFitError, match=r"the gap before the first partition has 31744 bytes"):
        write_boot_loader(made, core_of(40_000), find_core_area(made), GRUB)
    write_boot_loader(made, CORE, find_core_area(made), GRUB)


@pytest.mark.parametrize("start", [0, 1])
def test_partitions_without_a_gap(start: int) -> None:
    made = with_mbr((0x83, start, 10))
    with pytest.raises(DoesNotFitError, match="has 0 bytes"):
        write_boot_loader(made, CORE, find_core_area(made), GRUB)


@settings(max_examples=60)
@given(st.lists(st.tuples(st.integers(0, 5000), st.binary(max_size=16)), max_size=5))
def test_mutated_disks(changes: list[tuple[int, bytes]]) -> None:
    """Whatever a guest wrote to its own first sectors: an error, or a boot loader inside its place."""
    made = disk("dos")
    write_boot_loader(made, core_of(0), find_core_area(made), GRUB)
    for offset, data in changes:
        made.write(offset, data)
    before = read_bytes(made, 0, SIZE)
    try:
        area = find_core_area(made)
        write_boot_loader(made, CORE, area, GRUB)
    except DiskImageError:
        assert read_bytes(made, 0, SIZE) == before
        return
    after = read_bytes(made, 0, SIZE)
    end = area.start + area.length
    assert after[end:] == before[end:]
    assert after[440:512] == before[440:512][:70] + b"\x55\xaa"


def test_the_code_is_in_the_finished_table_only(tmp_path: Path) -> None:
    for label in LABELS:
        made = MemoryDisk(SIZE)
        table = plan_partition_table(SIZE, 512, [NewPartition(Content.LINUX, bootable=True)], label=label)
        table = table.with_boot_code(b"\xeb\x63 ours")
        table.write(made, provisional=True)
        assert read_bytes(made, 0, 440) == bytes(440)
        table.write(made)
        assert read_bytes(made, 0, 440) == b"\xeb\x63 ours".ljust(440, b"\0")
        table.write(made, provisional=True)
        made.write(0, b"a script's".ljust(440, b"\0"))
        table.write(made)
        assert read_bytes(made, 0, 440) == b"a script's".ljust(440, b"\0")


def test_boot_code_that_would_overwrite_the_table() -> None:
    table = plan_partition_table(SIZE, 512, [NewPartition(Content.LINUX)])
    with pytest.raises(ValueError, match="441 bytes of boot code"):
        table.with_boot_code(bytes(441))


def test_places_of_new_tables() -> None:
    for label, area in (("dos", (512, MIB - 512)), ("gpt", (MIB, MIB))):
        assert plan_partition_table(SIZE, 512, [NewPartition(Content.LINUX)], label=label).boot_area == area
    four = plan_partition_table(SIZE, 4096, [NewPartition(Content.LINUX)])
    assert four.boot_area == (4096, MIB - 4096)
