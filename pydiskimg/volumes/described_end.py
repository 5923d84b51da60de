# SPDX-License-Identifier: MIT
"""How large a disk must be at least, by what its beginning says: all that tells of raw bytes that they ended early."""

from __future__ import annotations

import struct

from pydiskimg.partitions.read import (
    GPT_HEADER,
    GPT_SIGNATURE,
    MBR_SIGNATURE,
    PROTECTIVE,
    SECTOR_SIZES,
    mbr_entries,
)

# As many bytes of a disk as described_end() looks at: up to the superblock of btrfs.
LOOK_AT = 68 << 10

_EXT_SUPERBLOCK = 1024
_EXT_INCOMPAT_64BIT = 0x80
_XFS_MAGIC = b"XFSB"
_BTRFS_SUPERBLOCK = 64 << 10


def described_end(beginning: bytes) -> int:
    """Return the byte that the partition table, or the file system, in a disk's first LOOK_AT bytes reaches to.

    That is the end of a GPT's backup, or of the last of an MBR's primary partitions, taken for sectors of 512 bytes;
    where there is no table, the end of an ext2, ext3, ext4, xfs or btrfs file system. 0: none of these.
    The numbers are the disk's own and may be anything up to 2**80: good for a comparison, and for nothing else.
    """
    return _table_end(beginning) or _ext_end(beginning) or _xfs_end(beginning) or _btrfs_end(beginning)


def _table_end(beginning: bytes) -> int:
    if beginning[510:512] != MBR_SIGNATURE:
        return 0
    entries = mbr_entries(beginning)
    if any(indicator not in (0, 0x80) for indicator, *_ in entries):
        return 0  # a boot sector without a table
    if any(kind == PROTECTIVE for _, _, kind, *_ in entries):
        return _gpt_end(beginning)
    return max((start + length) * 512 if kind and length else 0 for _, _, kind, _, start, length in entries)


def _gpt_end(beginning: bytes) -> int:
    for sector_size in SECTOR_SIZES:
        header = beginning[sector_size : sector_size + GPT_HEADER.size]
        if header.startswith(GPT_SIGNATURE) and len(header) == GPT_HEADER.size:
            alternate = GPT_HEADER.unpack(header)[6]
            return int(alternate + 1) * sector_size
    return 0


def _ext_end(beginning: bytes) -> int:
    """s_blocks_count times the block size (kernel documentation, ext4, "The Super Block")."""
    block = beginning[_EXT_SUPERBLOCK : _EXT_SUPERBLOCK + 1024]
    if len(block) < 1024 or block[0x38:0x3A] != b"\x53\xef":
        return 0
    low, log_block_size = _number("<I", block, 0x4), _number("<I", block, 0x18)
    high = _number("<I", block, 0x150) if _number("<I", block, 0x60) & _EXT_INCOMPAT_64BIT else 0
    return (high << 32 | low) << (10 + log_block_size) if log_block_size <= 6 else 0


def _xfs_end(beginning: bytes) -> int:
    """sb_dblocks times sb_blocksize (XFS Algorithms & Data Structures, "Superblocks")."""
    if not beginning.startswith(_XFS_MAGIC) or len(beginning) < 512:
        return 0
    return _number(">I", beginning, 4) * _number(">Q", beginning, 8)


def _btrfs_end(beginning: bytes) -> int:
    """dev_item.total_bytes: the file system may have more devices (btrfs on-disk format, "Superblock")."""
    block = beginning[_BTRFS_SUPERBLOCK:]
    if block[0x40:0x48] != b"_BHRfS_M" or len(block) < 0x1000:
        return 0
    return _number("<Q", block, 0xC9 + 8)


def _number(form: str, data: bytes, offset: int) -> int:
    return int(struct.unpack_from(form, data, offset)[0])
