# SPDX-License-Identifier: MIT
"""The signatures of file systems, RAID, volume managers and partition tables, with their offsets, as data.

Taken from the descriptions of the on-disk formats. A format that keeps copies has a row for each of them, so that it is
recognised even if the first one is damaged or gone. Offsets are bytes.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from pydiskimg.units import GIB, KIB, MIB, TIB

SECTOR = 512


@dataclass(frozen=True, slots=True)
class End:
    """An offset counted in bytes from the end of the disk, whose size is first rounded down to a multiple of unit."""

    back: int
    unit: int = SECTOR


Offset = int | End
"""An offset from the start of the disk, or from its end."""


@dataclass(frozen=True, slots=True)
class Signature:
    """The disk holds name if each of marks is present, at its distance from offset."""

    what: str
    marks: tuple[tuple[int, bytes], ...]
    offset: Offset

    def start(self, size: int) -> int | None:
        """Return the offset on a disk of size bytes; None if the marks do not fit."""
        at = self.offset
        start = at if isinstance(at, int) else size // at.unit * at.unit - at.back
        fits = all(start + distance >= 0 and start + distance + len(mark) <= size for distance, mark in self.marks)
        return start if fits else None


def _rows(what: str, mark: bytes | Mapping[int, bytes], *offsets: Offset) -> tuple[Signature, ...]:
    marks = ((0, mark),) if isinstance(mark, bytes) else tuple(mark.items())
    return tuple(Signature(what, marks, offset) for offset in offsets)


def _le32(value: int) -> bytes:
    return value.to_bytes(4, "little")


def _be32(value: int) -> bytes:
    return value.to_bytes(4, "big")


_LAST = (End(SECTOR), End(4 * KIB, 4 * KIB))  # the last sector
_MD, _MD_BIG = _le32(0xA92B4EFC), _be32(0xA92B4EFC)
_ZFS_LABELS = (0, 256 * KIB, End(512 * KIB, 256 * KIB), End(256 * KIB, 256 * KIB))
_UFS = (0x00011954, 0x19540119, 0x00195612, 0x00095014, 0x00612195, 0x05231994)
_PROMISE = (16, 63, 255, 256, 399, 591, 675, 735, 911, 951, 974, 991, 3087)  # sectors from the end


def _zfs() -> Iterator[Signature]:
    for label in _ZFS_LABELS:
        offset = label + 16 * KIB if isinstance(label, int) else End(label.back - 16 * KIB, label.unit)
        yield from _rows("ZFS", {24: b"version\0"}, offset)


def _ufs() -> Iterator[Signature]:
    for offset in (0, 8 * KIB, 64 * KIB, 256 * KIB):
        for magic in _UFS:
            what = "UFS2" if magic == _UFS[1] else "UFS"
            yield from (Signature(what, ((1372, mark),), offset) for mark in (_le32(magic), _be32(magic)))


def _udf() -> Iterator[Signature]:
    """The volume recognition sequence: descriptors of 2 KiB, or of one sector each, from 32 KiB on."""
    for size in (2 * KIB, 4 * KIB):
        for number in range(4):
            for name in (b"BEA01", b"NSR02", b"NSR03", b"BOOT2", b"CDW02", b"TEA01"):
                yield from _rows("UDF", name, 32 * KIB + 1 + number * size)


# Owners that may leave bytes 1024 to 2048 of a partition or disk unchanged: they begin elsewhere, or have a header at
# the front or the end and put their data at offsets of their own choice.
TAKES_OVER: tuple[Signature, ...] = (
    *_rows("dm-integrity", b"integrt\0", 0),
    *_rows("dm-verity", b"verity\0\0", 0),
    *_rows("a snapshot's store (device mapper)", b"SnAp", 0),
    *_rows("VDO", b"dmvdo001", 0),
    *_rows("Ceph BlueStore", b"bluestore block device", 0),
    *_rows("the log of a DRBD proxy", b"DRBDdlh*", 0),
    *_rows("a control volume of drbdmanage", b"$DRBDmgr=q", 0),
    *_rows("a member of a RAID (md 1.1)", _MD, 0),
    *_rows("BitLocker", b"-FVE-FS-", 3),
    *_rows("NTFS", b"NTFS    ", 3),
    *_rows("exFAT", b"EXFAT   ", 3),
    *_rows("ReFS", b"\0\0\0ReFS\0", 0),
    *_rows("APFS", b"NXSB", 32),
    *_rows("Oracle ASM", b"ORCLDISK", 32),
    *_rows("BFS", b"\xce\xfa\xad\x1b", 0),
    *_rows("BeFS", b"BFS1", 32, 512 + 32),
    *_rows("BeFS", b"1SFB", 32, 512 + 32),
    *_rows("squashfs", b"hsqs", 0),
    *_rows("squashfs", b"sqsh", 0),
    *_rows("cramfs", b"\x45\x3d\xcd\x28", 0, 512),
    *_rows("cramfs", b"\x28\xcd\x3d\x45", 0, 512),
    *_rows("romfs", b"-rom1fs-", 0),
    *_rows("UBI", b"UBI#", 0),
    *_rows("UBIFS", b"\x31\x18\x10\x06", 0),
    *_rows("zonefs", b"SFOZ", 0),
    *_rows("exfs", b"EXFS", 0),
    *_rows("mpool", b"mpoolDev", 0),
    *_rows("Stratis", b"!Stra0tis\x86\xff\x02^\x41rh", SECTOR + 4, 9 * SECTOR + 4),
    *_rows("a BSD disklabel", b"\x57\x45\x56\x82", SECTOR),
    *_rows("a Solaris label", b"\xee\xde\x0d\x60", SECTOR + 12),
    *_rows("an LVM physical volume", {24: b"LVM2 001"}, *range(0, 4 * SECTOR, SECTOR)),
    *_rows("OCFS2", b"OCFSV2", 2 * KIB, 4 * KIB, 8 * KIB),
    *_rows("OCFS", b"OracleCFS", 8 * KIB),
    *_rows("a member of a RAID (md 1.2)", _MD, 4 * KIB),
    *_rows("bcache or bcachefs", b"\xc6\x85\x73\xf6", 4 * KIB + 24),
    *_rows("a member of a RAID (HighPoint)", b"\xf0\x16\x78\x5a", 9 * SECTOR + 32),
    *_rows("a member of a RAID (HighPoint)", b"\xfd\x16\x78\x5a", 9 * SECTOR + 32),
    *_rows("NSS", b"SPB5", 4 * KIB),
    *_rows("VxFS", b"\xa5\x01\xfc\xf5", 8 * KIB),
    *_rows("HPFS", b"\x49\xe8\x95\xf9", 8 * KIB),
    *_rows("HPFS", b"\x49\x18\x91\xf9", 8 * KIB + SECTOR),
    *_rows("reiserfs", b"ReIsErFs", 8 * KIB + 20, 8 * KIB + 52),
    *_rows("reiserfs", b"ReIsEr", 64 * KIB + 52),
    *_rows("reiser4", b"ReIsEr4", 64 * KIB),
    *_rows("JFS", b"JFS1", 32 * KIB, 60 * KIB),
    *_rows("ISO 9660", b"CD001", 32 * KIB + 1),
    *_rows("ISO 9660", b"CDROM", 32 * KIB + 9),
    *_rows("GFS2", b"\x01\x16\x19\x70", 64 * KIB),
    *_rows("ScoutFS", b"\x8b\x42\x3c\x10", 64 * KIB + 4),
    *_udf(),
    *_ufs(),
    *_zfs(),
    *_rows("VMFS", b"\x0d\xd0\x01\xc0", MIB),
    *_rows("VMFS", b"\x5e\xf1\xab\x2f", 2 * MIB),
    *_rows("a member of a RAID (md 1.0)", _MD, End(8 * KIB, 4 * KIB)),
    *_rows("a member of a RAID (md 0.90)", _MD, End(64 * KIB, 64 * KIB)),
    *_rows("a member of a RAID (md 0.90)", _MD_BIG, End(64 * KIB, 64 * KIB)),
    *_rows("a member of a RAID (DDF)", b"\xde\x11\xde\x11", *_LAST, End(257 * SECTOR)),
    *_rows("a member of a RAID (Intel)", b"Intel Raid ISM Cfg Sig. ", End(2 * SECTOR), End(8 * KIB, 4 * KIB)),
    *_rows("a member of a RAID (LSI)", b"$XIDE$", End(SECTOR)),
    *_rows("a member of a RAID (NVIDIA)", b"NVIDIA  ", End(2 * SECTOR)),
    *_rows("a member of a RAID (Promise)", b"Promise Technology, Inc.", *(End(back * SECTOR) for back in _PROMISE)),
    *_rows("a member of a RAID (HighPoint)", b"\xf3\x16\x78\x5a", End(11 * SECTOR)),
    *_rows("a member of a RAID (HighPoint)", b"\xfd\x16\x78\x5a", End(11 * SECTOR)),
    *_rows("a member of a RAID (Adaptec)", {0: b"\x37\xfc\x4d\x1e"}, End(SECTOR)),
)

_EXT = "ext2, ext3 or ext4"
_EXT_BLOCK_SIZES = (1 * KIB, 2 * KIB, 4 * KIB, 8 * KIB, 16 * KIB, 32 * KIB, 64 * KIB)
_EXT_BACKUPS = (1, 3, 5, 7, 9)  # groups
_EXT_CLUSTER = 16  # blocks in a cluster of bigalloc, unless mke2fs was given another number
_PAGES = (4 * KIB, 8 * KIB, 16 * KIB, 32 * KIB, 64 * KIB)
_SECTORS = (512, 1024, 2048, 4096)
_SWAP = (b"SWAP-SPACE", b"SWAPSPACE2", b"S1SUSPEND", b"S2SUSPEND", b"ULSUSPEND", b"LINHIB0001")
_DRBD = tuple(b"\x83\x74\x02" + version for version in (b"\x6b", b"\x6c", b"\x6d"))
_LUKS_SECOND = (16 * KIB, 32 * KIB, 64 * KIB, 128 * KIB, 256 * KIB, 512 * KIB, 1 * MIB, 2 * MIB, 4 * MIB)
_FAT = {0x36: (b"MSDOS", b"FAT16   ", b"FAT12   ", b"FAT     "), 0x52: (b"MSWIN", b"FAT32   ")}
_FAT_BACKUP = 6  # sectors; every maker uses this value
_BCACHEFS = bytes.fromhex("c68573f666ce90a9d96a60cf803df7ef")


def _ext_group(block_size: int) -> int:
    """Blocks in a group: as many as a block has bits, up to the limit of 16 bits."""
    return min(8 * block_size, (1 << 16) - 8)


def _ext_copy(block_size: int, group: int, cluster: int = 1) -> Signature:
    """A backup of the superblock: s_log_block_size and s_magic at the group's start, after a boot block."""
    start = group * cluster * _ext_group(block_size) * block_size + (KIB if block_size == KIB else 0)
    marks = ((0x18, _le32(block_size.bit_length() - 11)), (0x38, b"\x53\xef"))
    return Signature(_EXT, marks, start)


def _ext() -> Iterator[Signature]:
    yield from _rows(_EXT, {0x38: b"\x53\xef"}, KIB)
    yield from (_ext_copy(4 * KIB, group, _EXT_CLUSTER) for group in _EXT_BACKUPS)
    for block_size in _EXT_BLOCK_SIZES:
        yield from (_ext_copy(block_size, group) for group in _EXT_BACKUPS)
        # in the superblock of an external journal, which follows the block with ext's superblock
        for version in (3, 4):
            offset = max(block_size, KIB) + (KIB if block_size == KIB else 0)
            yield from _rows("a journal of ext3 or ext4", b"\xc0\x3b\x39\x98" + _be32(version), offset)


def _swap() -> Iterator[Signature]:
    for page in _PAGES:
        for magic in _SWAP:
            yield from _rows("a swap area", magic, page - 10)


def _xfs() -> Iterator[Signature]:
    """The superblock, and the headers of the first allocation group in the sectors after it."""
    yield from _rows("XFS", b"XFSB", 0)
    for sector in _SECTORS:
        for number, magic in enumerate((b"XAGF", b"XAGI", b"XAFL"), start=1):
            yield from _rows("XFS", magic, number * sector)
    yield from _rows("an external log of XFS", b"\xfe\xed\xba\xbe", *range(0, 256 * KIB, SECTOR))


def _minix() -> Iterator[Signature]:
    """The two magic bytes and s_log_zone_size, which is always zero: other superblocks may contain the magic alone."""
    for magic in (0x137F, 0x138F, 0x2468, 0x2478):
        mark = magic.to_bytes(2, "little")
        yield from _rows("Minix", {10: b"\0\0", 16: mark}, KIB)
        yield from _rows("Minix", {10: b"\0\0", 16: mark[::-1]}, KIB)
    for mark in (b"\x5a\x4d", b"\x4d\x5a"):
        yield from _rows("Minix", {12: b"\0\0", 24: mark}, KIB)


def _hfs() -> Iterator[Signature]:
    """HFS with the highest and lowest byte of drAlBlkSiz, and HFS+ with its version; the disk ends with a copy."""
    for offset in (KIB, End(KIB)):
        yield from _rows("HFS", {0: b"BD", 20: b"\0", 23: b"\0"}, offset)
        yield from _rows("HFS+", b"H+\0", offset)
        yield from _rows("HFS+", b"HX\0", offset)


def _fat() -> Iterator[Signature]:
    for offset, names in _FAT.items():
        for name in names:
            yield from _rows("FAT", {offset: name}, 0, *(_FAT_BACKUP * sector for sector in _SECTORS))
    for sector in _SECTORS:
        yield from _rows("exFAT", {3: b"EXFAT   "}, 12 * sector)
    for last in _LAST:
        yield from _rows("NTFS", {3: b"NTFS    "}, last)
        yield from _rows("ReFS", b"\0\0\0ReFS\0", last)


def _zfs_uberblocks() -> Iterator[Signature]:
    magic = (0x00BAB10C).to_bytes(8, "little")
    for label in _ZFS_LABELS:
        for slot in range(128 * KIB, 256 * KIB, KIB):
            offset = label + slot if isinstance(label, int) else End(label.back - slot, label.unit)
            yield from _rows("ZFS", magic, offset)
            yield from _rows("ZFS", magic[::-1], offset)


def _udf_anchors() -> Iterator[Signature]:
    """Anchors in block 256 (its tag contains its own location) and in the last block."""
    for block in _SECTORS:
        for version in (2, 3):
            tag = b"\2\0" + bytes((version, 0))
            yield from _rows("UDF", {0: tag, 12: _le32(256)}, 256 * block)
            yield from _rows("UDF", {0: tag, 5: b"\0"}, End(block, block), End(257 * block, block))


# All other formats that may hold data, by their signatures and copies. Signatures of two bytes are checked at one
# offset only, so that only one in 20000 disks full of noise is refused (tests/unit/fs/test_signatures.py).
KNOWN: tuple[Signature, ...] = (
    *_ext(),
    *_xfs(),
    *_rows("btrfs", b"_BHRfS_M", *(start + 64 for start in (64 * KIB, 64 * MIB, 256 * GIB))),
    *_swap(),
    *_rows("a hibernated system", bytes.fromhex("edc302e99856e50c"), 0),
    *_rows("an LVM physical volume", b"LABELONE", *range(0, 4 * SECTOR, SECTOR)),
    *_rows("an LVM physical volume", b"\x20LVM2\x20x[5A%r0N*>", 4 * KIB + 4),
    *_rows("an LVM physical volume", b"HM\1\0", 0),
    *_rows("an LVM physical volume", b"HM\2\0", 0),
    *_rows("LUKS", b"LUKS\xba\xbe", 0),
    *_rows("LUKS", b"SKUL\xba\xbe", *_LUKS_SECOND),
    *(row for magic in _DRBD for row in _rows("DRBD", {60: magic}, 0, End(4 * KIB, 4 * KIB), End(4 * KIB))),
    *_rows("Core Storage (FileVault)", {8: b"\1\0", 88: b"CS"}, 0),
    *_rows("FAT or BitLocker To Go", b"MSWIN4.1", 3),
    *_rows("bcachefs", _BCACHEFS, 2 * MIB + 24, End(MIB - 24)),
    *_rows("F2FS", b"\x10\x20\xf5\xf2", KIB, 5 * KIB),
    *_rows("EROFS", b"\xe2\xe1\xf5\xe0", KIB),
    *_rows("NILFS2", {4: b"\0\0\x34\x34"}, KIB, End(4 * KIB), End(8 * KIB, 4 * KIB)),
    *_rows("OCFS2", b"OCFSV2", KIB, *(start for start in (GIB, 4 * GIB, 16 * GIB, 64 * GIB, 256 * GIB, TIB))),
    *_rows("VxFS", b"\xf5\xfc\x01\xa5", KIB),
    *_rows("Xenix", b"\x2b\x55\x44", 2 * KIB),
    *_rows("Xenix", b"\x44\x55\x2b", 2 * KIB),
    *_rows("System V", {504: b"\x20\x7e\x18\xfd"}, *(number * KIB + SECTOR for number in (0, 9, 15, 18))),
    *_rows("System V", {504: b"\xfd\x18\x7e\x20"}, *(number * KIB + SECTOR for number in (0, 9, 15, 18))),
    *_rows("APFS", b"NXSB", *(number * 4 * KIB + 32 for number in range(1, 16))),
    *_minix(),
    *_hfs(),
    *_fat(),
    *_zfs_uberblocks(),
    *_udf_anchors(),
    *_rows("a member of a RAID (Silicon Image)", {0x60: _le32(0x2F000000)}, End(SECTOR)),
    *(
        row
        for version in (b"\0", b"\1", b"\2")
        for row in _rows("a member of a RAID (VIA)", b"\x55\xaa" + version, End(SECTOR))
    ),
    *(
        row
        for mode in range(6)
        for row in _rows("a member of a RAID (JMicron)", {0: b"JM", 0x30: bytes((mode,))}, End(SECTOR))
    ),
)

_ATARI = (b"GEM", b"BGM", b"LNX", b"SWP", b"RAW", b"XGM")


def _atari() -> Iterator[Signature]:
    for slot in range(4):
        for name in _ATARI:
            yield from _rows("an Atari partition table", b"\1" + name, 0x1C6 + 12 * slot)
            yield from _rows("an Atari partition table", b"\x81" + name, 0x1C6 + 12 * slot)


# Partition tables, by the signatures that Linux, libblkid or their own systems check.
TABLES: tuple[Signature, ...] = (
    *_rows("a GPT", b"EFI PART", *_SECTORS, *(End(sector, sector) for sector in _SECTORS)),
    *_rows("a BSD disklabel", b"\x57\x45\x56\x82", 64, 128),
    *_rows("an SGI label", b"\x0b\xe5\xa9\x41", 0),
    *_rows("an AIX label", b"\xc9\xc2\xd4\xc1", 0),
    *_rows("a Sun label", {508: b"\xda\xbe"}, 0),
    *(row for block in _SECTORS for row in _rows("a Macintosh partition map", {0: b"ER", block: b"PM"}, 0)),
    *(row for block in _SECTORS for row in _rows("a Macintosh partition map", {0: b"ER", block: b"TS"}, 0)),
    *_rows("an Ultrix label", _le32(0x032957) + _le32(1), 16 * KIB - 72),
    *_rows("a UnixWare label", {4: _le32(0xCA5E600D)}, 29 * SECTOR),
    *_rows("a UnixWare label", {156: _le32(0x600DDEEE)}, 29 * SECTOR),
    *_rows("an Amiga partition table", b"RDSK", *range(0, 16 * SECTOR, SECTOR)),
    *_rows("a dynamic disk of Windows", b"PRIVHEAD", 6 * SECTOR, End(SECTOR)),
    *_atari(),
    *_rows("a boot sector or partition table", {510: b"\x55\xaa"}, 0),
)


def known_by_size(size: int) -> Iterator[Signature]:
    """Yield the copies whose offsets follow from the size (bytes) that the file system had when it was made.

    That size is assumed to be the disk's: the last block group of ext (sparse_super2), and the second allocation group
    of XFS, since mkfs.xfs chooses the number of groups by the size.
    """
    for block_size in _EXT_BLOCK_SIZES[:3]:
        last = (size // block_size - int(block_size == KIB) - 1) // _ext_group(block_size)
        if last > 0:
            yield _ext_copy(block_size, last)
    for block_size in (*_SECTORS, *_EXT_BLOCK_SIZES[3:]):
        largest = (TIB // block_size - 1) * block_size
        for count in (2, 4, *range(5, 17), 32, 64) if block_size == 4 * KIB else (2, 4):
            group = -(-(size // block_size) // count) * block_size
            yield from _rows("XFS", b"XFSB" + _be32(block_size), min(group, largest))
