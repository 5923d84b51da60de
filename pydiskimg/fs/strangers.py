# SPDX-License-Identifier: MIT
"""Signatures of what takes a partition or disk over and leaves an old file system's or swap area's superblock alone.

fs.probe tells what is to be mounted, by its own superblock. Whether that superblock is still in force is another
question: a member of a RAID, a cache or a pool keeps its own somewhere else, and writes its data over the rest. Where
there is no other superblock these signatures still tell that somebody has data there.
"""

from __future__ import annotations

from pydiskimg.protocols import Source, read_bytes
from pydiskimg.units import KIB

_MD_RAID = (0xA92B4EFC).to_bytes(4, "little")
_HEAD = 68 * KIB
# Offset, bytes, what it is.
_FRONT = (
    (0, b"integrt\0", "dm-integrity"),
    (0, b"dmvdo001", "VDO"),
    (0, b"bluestore block device", "Ceph BlueStore"),
    (0, _MD_RAID, "a member of a RAID (md 1.1)"),
    (3, b"-FVE-FS-", "BitLocker"),
    (3, b"NTFS    ", "NTFS"),
    (3, b"EXFAT   ", "exFAT"),
    (32, b"ORCLDISK", "Oracle ASM"),
    (512, b"!Stra0tis", "Stratis"),
    (512, bytes.fromhex("57455682"), "a BSD disklabel"),
    (512 + 12, bytes.fromhex("eede0d60"), "a Solaris label"),
    (4 * KIB, _MD_RAID, "a member of a RAID (md 1.2)"),
    (4 * KIB + 24, bytes.fromhex("c68573f6"), "bcache or bcachefs"),
    (8 * KIB + 1372, (0x00011954).to_bytes(4, "little"), "UFS"),
    (16 * KIB + 24, b"version\0", "ZFS"),
    (32 * KIB, b"JFS1", "JFS"),
    (32 * KIB + 1, b"CD001", "ISO 9660"),
    (64 * KIB, bytes.fromhex("01161970"), "GFS2"),
    (64 * KIB + 52, b"ReIsEr", "reiserfs"),
    (64 * KIB + 1372, (0x19540119).to_bytes(4, "little"), "UFS2"),
)


def stranger(source: Source) -> str | None:
    """Return what else source may be, in words, or None. 72 KiB are read; raises StorageError as reading does."""
    head = read_bytes(source, 0, min(source.size, _HEAD))
    for offset, signature, what in _FRONT:
        if head.startswith(signature, offset):
            return what
    sectors = source.size // 512
    at_end = (
        ((sectors - 16) // 8 * 8 * 512, "a member of a RAID (md 1.0)"),
        (source.size // (64 * KIB) * 64 * KIB - 64 * KIB, "a member of a RAID (md 0.90)"),
    )
    for offset, what in at_end:
        if 0 <= offset <= source.size - 4 and read_bytes(source, offset, 4) == _MD_RAID:
            return what
    return None
