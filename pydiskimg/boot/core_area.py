# SPDX-License-Identifier: MIT
"""The area for a core image: the gap between an MBR and the first partition, or the BIOS boot partition of a GPT.

RAIDs and boot managers use the gap, too, so bytes that are neither zero nor GRUB's own are never overwritten.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from pydiskimg.boot.boot_sector import SECTOR, names_core
from pydiskimg.boot.core_image import BLOCKS
from pydiskimg.errors import BootLoaderError
from pydiskimg.fs.signatures import trace
from pydiskimg.partitions.layout import MBR, has_protective, mbr_entries
from pydiskimg.partitions.read import read_partition_table
from pydiskimg.protocols import Disk, Source, read_bytes
from pydiskimg.regions.region import SourceRegion

BIOS_BOOT_TYPE = "21686148-6449-6E6F-744E-656564454649"
# libparted writes this into a new MBR: code that only prints that the disk does not boot.
_NOTHING_BOOTS = bytes.fromhex("fa b8 00 10 8e d0 bc 00 b0")
# Boot managers, recognised by bytes of their first sector.
_OTHERS = (
    (b"LILO", "LILO"),
    (b"\0Geom\0Hard Disk\0", "GRUB Legacy"),
    (b"BOOTMGR", "Windows's boot manager"),
    (b"Invalid partition table", "a boot manager as DOS and Windows write it"),
    (b"Missing operating system", "a boot manager as DOS and syslinux write it"),
)
_SHOWN = 16  # bytes


@dataclass(frozen=True, slots=True)
class CoreArea:
    """start and length are bytes, multiples of 512; is_partition is True for a BIOS boot partition, not the gap."""

    start: int
    length: int
    is_partition: bool

    @property
    def name(self) -> str:
        return "the BIOS boot partition" if self.is_partition else "the gap before the first partition"


def find_core_area(disk: Source) -> CoreArea:
    """Return the area for a core image on a disk with a partition table (512-byte sectors).

    Raises BootLoaderError if there is no such area, PartitionError for a table that cannot be read.
    """
    partitions = read_partition_table(disk)
    entries = mbr_entries(read_bytes(disk, 0, SECTOR)) if partitions else []
    if has_protective(entries):
        for partition in partitions:
            if partition.type == BIOS_BOOT_TYPE:
                return CoreArea(partition.start, partition.length // SECTOR * SECTOR, is_partition=True)
        raise BootLoaderError(
            f"{disk.name}: its GPT has no BIOS boot partition for GRUB; make one of 1 MiB, type {BIOS_BOOT_TYPE}"
        )
    # An extended partition counts: it begins with a table of its own.
    starts = [entry["StartingLBA"] for entry in entries if entry["OSType"]]
    if not starts:
        raise BootLoaderError(f"{disk.name}: has no partitions, so it has no area for a boot loader")
    return CoreArea(SECTOR, max(0, min(starts) - 1) * SECTOR, is_partition=False)


def check_core_area(disk: Source, area: CoreArea, length: int, *, loader: bytes | None = None) -> None:
    """Raise BootLoaderError when length bytes of area, or the code in the first sector, must not be overwritten.

    A GRUB that the first sector loads may be replaced, and a core image in area that begins with this loader: see
    own_ranges(). In a BIOS boot partition only data with a known signature is kept: the rest is a boot loader's, as the
    partition's type says.
    """
    sector = read_bytes(disk, 0, SECTOR)
    _check_code(disk, sector)
    held = bytearray(read_bytes(disk, area.start, length))
    for start, end in own_ranges(disk, area, loader=loader):
        first, last = max(0, start - area.start), min(len(held), end - area.start)
        if first < last:
            held[first:last] = bytes(last - first)
    foreign = next((index for index, byte in enumerate(held) if byte), None) if any(held) else None
    if foreign is None:
        return
    start = area.start if area.is_partition else 0  # offsets of signatures count from the start of their device
    known = trace(SourceRegion(disk, start, area.start + area.length - start))
    if area.is_partition and known is None:
        return
    shown = bytes(held[foreign : foreign + _SHOWN]).hex(" ")
    what = known or f"the bytes {shown} at byte {area.start + foreign} are neither zero nor GRUB's"
    raise BootLoaderError(
        f"{disk.name}: {area.name} contains something other than a boot loader: {what}; nothing was written"
    )


def _check_code(disk: Source, sector: bytes) -> None:
    code = sector[MBR.slice_of("BootCode")]
    if not any(code) or code.startswith(_NOTHING_BOOTS) or names_core(sector) is not None:
        return
    name = next((name for mark, name in _OTHERS if mark in code), "an unknown boot manager")
    raise BootLoaderError(
        f"{disk.name}: the first sector contains {name} (found {code[:_SHOWN].hex(' ')}, expected GRUB 2 or zeros); "
        "nothing was written"
    )


def own_ranges(disk: Source, area: CoreArea, *, loader: bytes | None = None) -> Iterator[tuple[int, int]]:
    """Yield the ranges (first byte, byte after the last) of area that contain a GRUB's core image, if any.

    That is the core image that the first sector loads, or else one at the start of area whose first sector equals
    loader (a diskboot.img) except for its block list: on a disk that is being installed the first sector is written
    last.
    """
    core = names_core(read_bytes(disk, 0, SECTOR))
    if core is None and loader is not None and area.length >= SECTOR and _begins_with(disk, area, loader):
        core = area.start // SECTOR
    end = (area.start + area.length) // SECTOR
    if core is None or not area.start // SECTOR <= core < end:
        return
    first = read_bytes(disk, core * SECTOR, SECTOR)
    yield core * SECTOR, (core + 1) * SECTOR
    # The list grows from the end of the sector towards its code.
    for offset in range(SECTOR - BLOCKS.size, SECTOR // 2, -BLOCKS.size):
        blocks = BLOCKS.unpack(first, offset)
        start = blocks["start"]
        if not start:
            return
        if area.start // SECTOR <= start < end:
            yield start * SECTOR, min(start + blocks["len"], end) * SECTOR


def _begins_with(disk: Source, area: CoreArea, loader: bytes) -> bool:
    code = loader[: -BLOCKS.size]
    return read_bytes(disk, area.start, len(code)) == code


def check_sectors(disk: Disk) -> None:
    """Raise BootLoaderError for a disk that a BIOS cannot boot: its sectors do not have 512 bytes."""
    if disk.sector_size != SECTOR:
        raise BootLoaderError(
            f"{disk.name}: has sectors of {disk.sector_size} bytes; a BIOS boots from sectors of {SECTOR} bytes only"
        )
