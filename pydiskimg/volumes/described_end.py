# SPDX-License-Identifier: MIT
"""The smallest size of a disk by its own beginning, to detect raw bytes that ended early."""

from __future__ import annotations

from pydiskimg.fs.probe.size import stated_size
from pydiskimg.partitions.layout import GPT_HEADER, GPT_SIGNATURE, has_protective, is_partitioned, mbr_entries
from pydiskimg.partitions.partition import SECTOR_SIZES, has_mbr

# The bytes of a disk that described_end() reads: up to the superblock of btrfs.
LOOK_AT = 68 << 10


def described_end(beginning: bytes) -> int:
    """Return the byte up to which the partition table or file system in a disk's first LOOK_AT bytes reaches.

    That is the end of a GPT's backup, or of the last of an MBR's primary partitions, assuming sectors of 512 bytes;
    without a table, the end of an ext2, ext3, ext4, xfs or btrfs file system. 0 means none of these. The numbers are
    unchecked and may be anything up to 2**80: use them for comparisons only.
    """
    return _table_end(beginning) or stated_size(beginning)


def _table_end(beginning: bytes) -> int:
    if not has_mbr(beginning):
        return 0
    entries = mbr_entries(beginning)
    if not is_partitioned(entries):
        return 0
    if has_protective(entries):
        return _gpt_end(beginning)
    used = [entry for entry in entries if entry["OSType"] and entry["SizeInLBA"]]
    return max((512 * (entry["StartingLBA"] + entry["SizeInLBA"]) for entry in used), default=0)


def _gpt_end(beginning: bytes) -> int:
    for sector_size in SECTOR_SIZES:
        header = beginning[sector_size : sector_size + GPT_HEADER.size]
        if header.startswith(GPT_SIGNATURE) and len(header) == GPT_HEADER.size:
            return int(GPT_HEADER.unpack(header)["AlternateLBA"] + 1) * sector_size
    return 0
