# SPDX-License-Identifier: MIT
"""FAT12, FAT16 and FAT32, recognised by their boot sector and root directory.

The boot sector of a partitioned disk may begin like that of a file system. It is a FAT file system if the numbers of
the BPB describe one.
"""

from __future__ import annotations

from pydiskimg.fs.fat import (
    BOOT_SECTOR,
    DELETED,
    DIRECTORY,
    ENTRY,
    FAT32_BOOT_SECTOR,
    FSINFO,
    LONG,
    LONG_MASK,
    SIGNATURE_WORD,
    VOLUME_ID,
)
from pydiskimg.fs.probe.kind import FileSystemKind, label_text
from pydiskimg.protocols import Source, read_bytes
from pydiskimg.startup import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

_FOREIGN = (b"JFS     ", b"HPFS    ")  # OS/2 put a BPB in front of them too
_LARGEST = {12: 0xFF4, 16: 0xFFF4, 32: 0x0FFFFFF6}  # clusters

# The valid bytes of an entry with the volume's name, as tables for bytes.translate().
_IS_ZERO = bytes(value == 0 for value in range(256))
_IS_NAMED = bytes(value != DELETED for value in range(256))
_IS_VOLUME_ID = bytes(
    value & (VOLUME_ID | DIRECTORY) == VOLUME_ID and value & LONG_MASK != LONG for value in range(256)
)
_FIRST_CLUSTER = (ENTRY.offsets["DIR_FstClusHI"], ENTRY.offsets["DIR_FstClusLO"])
_CONDITIONS = (
    (ENTRY.offsets["DIR_Name"], _IS_NAMED),
    (ENTRY.offsets["DIR_Attr"], _IS_VOLUME_ID),
    *((at + byte, _IS_ZERO) for at in _FIRST_CLUSTER for byte in (0, 1)),
)
_ROOT_CLUSTERS = 100  # of the root directory in FAT32: libblkid reads no more
_LARGEST_DIRECTORY = (1 << 16) * ENTRY.size  # bytes


class FatGeometry:
    """The BPB's numbers, checked; sizes are bytes."""

    bits: int  # bits of an entry of the allocation table: 12, 16 or 32
    sector: int
    cluster: int
    clusters: int  # that the allocation table has entries for
    table: int  # offset of the first allocation table
    table_size: int
    root: int  # FAT12 and FAT16: offset of the root directory
    root_size: int
    data: int  # offset of cluster 2
    root_cluster: int
    info: int  # offset of the FSInfo sector; 0: none
    serial: int  # 0: none

    def __init__(self, **numbers: int) -> None:
        vars(self).update(numbers)


def probe(source: Source, head: bytes) -> FileSystemKind | None:
    """Return the FAT file system whose boot sector begins head; its label is that of the root directory."""
    geometry = fat_geometry(head)
    if geometry is None or not _info_sector_holds(source, geometry):
        return None
    label = next((name for name in _volume_names(source, geometry) if name is not None), b"")
    return FileSystemKind("vfat", _serial(geometry), None if label == b"NO NAME    " else label_text(label))


def fat_geometry(head: bytes) -> FatGeometry | None:
    """Return the layout of the FAT file system whose boot sector is at the start of head; None if there is none."""
    if len(head) < BOOT_SECTOR.size:
        return None
    older, newer = BOOT_SECTOR.unpack(head), FAT32_BOOT_SECTOR.unpack(head)
    return _geometry(older, newer) if _may_be_fat(older, newer) else None


def _may_be_fat(older: dict[str, Any], newer: dict[str, Any]) -> bool:
    if newer["BS_FilSysType"].startswith((b"MSWIN", b"FAT32   ")):
        return True
    kind = older["BS_FilSysType"]
    if kind.startswith((b"MSDOS", b"FAT16   ", b"FAT12   ", b"FAT     ")):
        return True
    return bool(older["Signature_word"] == SIGNATURE_WORD and kind not in _FOREIGN)


def _is_plausible(fields: dict[str, Any]) -> bool:
    sector, media = fields["BPB_BytsPerSec"], fields["BPB_Media"]
    if not (fields["BPB_NumFATs"] and fields["BPB_RsvdSecCnt"] and (media >= 0xF8 or media == 0xF0)):
        return False
    return 512 <= sector <= 4096 and _power_of_two(sector) and _power_of_two(fields["BPB_SecPerClus"])


def _geometry(older: dict[str, Any], newer: dict[str, Any]) -> FatGeometry | None:
    if not _is_plausible(older):
        return None
    sector, per_cluster = older["BPB_BytsPerSec"], older["BPB_SecPerClus"]
    reserved, tables, root_entries = older["BPB_RsvdSecCnt"], older["BPB_NumFATs"], older["BPB_RootEntCnt"]
    table = older["BPB_FATSz16"] or newer["BPB_FATSz32"]
    root_sectors = -(-root_entries * ENTRY.size // sector)
    allocated = reserved + tables * table
    first_data = allocated + root_sectors
    clusters = ((older["BPB_TotSec16"] or older["BPB_TotSec32"]) - first_data) // per_cluster
    bits = (16 if clusters > _LARGEST[12] else 12) if older["BPB_FATSz16"] else 32
    if not table or not 0 <= clusters <= _LARGEST[bits]:
        return None
    has_serial = bits == 32 or older["BS_BootSig"] in (0x28, 0x29)
    return FatGeometry(
        bits=bits,
        sector=sector,
        cluster=per_cluster * sector,
        clusters=max(0, min(clusters, table * sector * 8 // bits - 2)),
        table=reserved * sector,
        table_size=table * sector,
        root=allocated * sector,
        root_size=root_entries * ENTRY.size,
        data=(allocated if bits == 32 else first_data) * sector,
        root_cluster=newer["BPB_RootClus"],
        info=newer["BPB_FSInfo"] * sector if bits == 32 else 0,
        serial=(newer if bits == 32 else older)["BS_VolID"] if has_serial else 0,
    )


def _power_of_two(number: int) -> bool:
    return number > 0 and not number & (number - 1)


def _part(source: Source, offset: int, length: int) -> bytes:
    """The bytes of the range that exist: a boot sector may promise more than the source has."""
    length = min(length, max(0, source.size - offset))
    return read_bytes(source, offset, length) if length else b""


def _info_sector_holds(source: Source, geometry: FatGeometry) -> bool:
    """FAT32's FSInfo sector must have its two signatures; some makers leave them zero."""
    if not geometry.info:
        return True
    sector = _part(source, geometry.info, FSINFO.size)
    if len(sector) < FSINFO.size:
        return False
    fields = FSINFO.unpack(sector)
    leading, inner = fields["FSI_LeadSig"], fields["FSI_StrucSig"]
    return leading in (b"RRaA", b"RRdD", bytes(4)) and inner in (b"rrAa", bytes(4))


def _serial(geometry: FatGeometry) -> str | None:
    """The volume's serial number, as the DIR command of DOS prints it."""
    return f"{geometry.serial >> 16:04X}-{geometry.serial & 0xFFFF:04X}" if geometry.serial else None


def _volume_names(source: Source, geometry: FatGeometry) -> Iterator[bytes | None]:
    """Yield the volume's name if a part of the root directory has it, None for each part without it."""
    if geometry.bits != 32:
        yield _volume_name(_part(source, geometry.root, geometry.root_size))
        return
    cluster = geometry.root_cluster
    for _ in range(min(_ROOT_CLUSTERS, _LARGEST_DIRECTORY // geometry.cluster)):
        if not 2 <= cluster < geometry.table_size // 4:
            return
        yield _volume_name(_part(source, geometry.data + (cluster - 2) * geometry.cluster, geometry.cluster))
        entry = _part(source, geometry.table + 4 * cluster, 4)
        cluster = int.from_bytes(entry, "little") & 0x0FFFFFFF


def _volume_name(directory: bytes) -> bytes | None:
    """Return the first volume name in a part of a directory, None if the directory ends before one.

    Each condition is checked for all entries at once: a loop over 65536 of them takes a hundred times as long.
    """
    size = ENTRY.size
    count = len(directory) // size
    end = directory[: count * size : size].find(0)
    count = count if end < 0 else end
    marks = -1
    for offset, holds in _CONDITIONS:
        marks &= int.from_bytes(directory[offset : count * size : size].translate(holds), "little")
    index = marks.to_bytes(count, "little").find(1)
    if index < 0:
        return None
    name: bytes = ENTRY.unpack(directory, index * size)["DIR_Name"]
    return b"\xe5" + name[1:] if name[0] == 0x05 else name
