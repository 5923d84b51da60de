# SPDX-License-Identifier: MIT
"""FAT12, FAT16 and FAT32 (Microsoft FAT specification, "Boot Sector and BPB"); little-endian.

A boot sector of a partitioned disk may begin like one of a file system. What decides is whether the numbers of the
BPB describe a FAT file system.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass

from pydiskimg.fs.probe.kind import FileSystemKind, label_text
from pydiskimg.protocols import Source, read_bytes

BPB = struct.Struct(
    "<"
    "11x"  #  0  BS_jmpBoot, BS_OEMName
    "H"  #   11  BPB_BytsPerSec
    "B"  #   13  BPB_SecPerClus
    "H"  #   14  BPB_RsvdSecCnt
    "B"  #   16  BPB_NumFATs
    "H"  #   17  BPB_RootEntCnt     0 in FAT32
    "H"  #   19  BPB_TotSec16       0: see BPB_TotSec32
    "B"  #   21  BPB_Media
    "H"  #   22  BPB_FATSz16        0 in FAT32
    "8x"  #  24  BPB_SecPerTrk, BPB_NumHeads, BPB_HiddSec
    "I"  #   32  BPB_TotSec32
    "I"  #   36  BPB_FATSz32        FAT32 only, as the next two
    "4x"  #  40  BPB_ExtFlags, BPB_FSVer
    "I"  #   44  BPB_RootClus
    "H"  #   48  BPB_FSInfo         sector; 0: none
)
assert BPB.size == 50

DIRECTORY_ENTRY = struct.Struct(
    "<"
    "11s"  #  0  DIR_Name
    "B"  #   11  DIR_Attr
    "8x"  #  12
    "H"  #   20  DIR_FstClusHI
    "4x"  #  22
    "H"  #   26  DIR_FstClusLO
    "4x"  #  28  DIR_FileSize
)
assert DIRECTORY_ENTRY.size == 32

_NAMES = {0x52: (b"MSWIN", b"FAT32   "), 0x36: (b"MSDOS", b"FAT16   ", b"FAT12   ", b"FAT     ")}
_FOREIGN = (b"JFS     ", b"HPFS    ")  # at 0x36: OS/2 put a BPB in front of them too
_LARGEST = {12: 0xFF4, 16: 0xFFF4, 32: 0x0FFFFFF6}  # clusters

_VOLUME_ID = 0x08
_DIRECTORY = 0x10
_LONG_NAME = 0x0F
# What the bytes of an entry with the volume's name have to be, as tables for bytes.translate().
_IS_ZERO = bytes(value == 0 for value in range(256))
_IS_NAMED = bytes(value != 0xE5 for value in range(256))  # else it is deleted
_IS_VOLUME_ID = bytes(
    value & (_VOLUME_ID | _DIRECTORY) == _VOLUME_ID and value & 0x3F != _LONG_NAME for value in range(256)
)
_CONDITIONS = ((0, _IS_NAMED), (11, _IS_VOLUME_ID), *((at, _IS_ZERO) for at in (20, 21, 26, 27)))
_ROOT_CLUSTERS = 100  # of the root directory in FAT32, as far as libblkid looks
_LARGEST_DIRECTORY = (1 << 16) * DIRECTORY_ENTRY.size  # bytes


@dataclass(frozen=True, slots=True)
class _Geometry:
    """The BPB's numbers, checked; sizes are bytes."""

    bits: int  # of an entry of the allocation table: 12, 16 or 32
    sector: int
    cluster: int
    table: int  # offset of the first allocation table
    table_size: int
    root: int  # FAT12 and FAT16: offset of the root directory
    root_size: int
    data: int  # offset of cluster 2
    root_cluster: int
    info: int  # offset of the FSInfo sector; 0: none


def probe(source: Source, head: bytes) -> FileSystemKind | None:
    """Return the FAT file system whose boot sector head begins with; its label is that of the root directory."""
    if len(head) < 512 or not _may_be_fat(head):
        return None
    geometry = _geometry(head)
    if geometry is None or not _info_sector_holds(source, geometry):
        return None
    label = next((name for name in _volume_names(source, geometry) if name is not None), b"")
    return FileSystemKind("vfat", _serial(head, geometry), None if label == b"NO NAME    " else label_text(label))


def _may_be_fat(head: bytes) -> bool:
    for offset, names in _NAMES.items():
        if head[offset : offset + 8].startswith(names):
            return True
    return head[510:512] == b"\x55\xaa" and head[0x36:0x3E] not in _FOREIGN


def _geometry(head: bytes) -> _Geometry | None:
    (
        sector,
        per_cluster,
        reserved,
        tables,
        root_entries,
        total_16,
        media,
        table_16,
        total_32,
        table_32,
        root_cluster,
        info,
    ) = BPB.unpack_from(head)
    if not (tables and reserved and (media >= 0xF8 or media == 0xF0) and 512 <= sector <= 4096):
        return None
    if not (_power_of_two(sector) and _power_of_two(per_cluster)):
        return None
    table = table_16 or table_32
    root_sectors = -(-root_entries * DIRECTORY_ENTRY.size // sector)
    allocated = reserved + tables * table
    first_data = allocated + root_sectors
    clusters = ((total_16 or total_32) - first_data) // per_cluster
    bits = (16 if clusters > _LARGEST[12] else 12) if table_16 else 32
    if not table or not 0 <= clusters <= _LARGEST[bits]:
        return None
    return _Geometry(
        bits=bits,
        sector=sector,
        cluster=per_cluster * sector,
        table=reserved * sector,
        table_size=table * sector,
        root=allocated * sector,
        root_size=root_entries * DIRECTORY_ENTRY.size,
        data=(allocated if bits == 32 else first_data) * sector,
        root_cluster=root_cluster,
        info=info * sector if bits == 32 else 0,
    )


def _power_of_two(number: int) -> bool:
    return number > 0 and not number & (number - 1)


def _part(source: Source, offset: int, length: int) -> bytes:
    """The bytes that there are of the range: a boot sector may promise more than the source has."""
    length = min(length, max(0, source.size - offset))
    return read_bytes(source, offset, length) if length else b""


def _info_sector_holds(source: Source, geometry: _Geometry) -> bool:
    """FAT32's FSInfo sector must carry its two signatures; some makers leave them zero."""
    if not geometry.info:
        return True
    sector = _part(source, geometry.info, 512)
    return sector[:4] in (b"RRaA", b"RRdD", bytes(4)) and sector[484:488] in (b"rrAa", bytes(4))


def _serial(head: bytes, geometry: _Geometry) -> str | None:
    """The volume's serial number, in the form that the DIR command of DOS gave it."""
    at = 67 if geometry.bits == 32 else 39
    if geometry.bits != 32 and head[38] not in (0x28, 0x29):  # BS_BootSig: no serial number follows
        return None
    raw = head[at : at + 4]
    return f"{raw[3:1:-1].hex()}-{raw[1::-1].hex()}".upper() if any(raw) else None


def _volume_names(source: Source, geometry: _Geometry) -> Iterator[bytes | None]:
    """Yield the volume's name where the root directory has it, None for each part of it without."""
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
    """Return the first name of a volume in a part of a directory, None where there is none before its end.

    Each condition is looked at for all entries at once: a loop over 65536 of them takes a hundred times as long.
    """
    size = DIRECTORY_ENTRY.size
    count = len(directory) // size
    end = directory[: count * size : size].find(0)
    count = count if end < 0 else end
    marks = -1
    for offset, holds in _CONDITIONS:
        marks &= int.from_bytes(directory[offset : count * size : size].translate(holds), "little")
    index = marks.to_bytes(count, "little").find(1)
    if index < 0:
        return None
    name = directory[index * size : index * size + 11]
    return b"\xe5" + name[1:] if name[0] == 0x05 else name
