# SPDX-License-Identifier: MIT
"""How large a disk must be at least, by what its beginning says: all that tells of raw bytes that they ended early."""

from __future__ import annotations

from pydiskimg.fs.probe.size import stated_size
from pydiskimg.partitions.layout import GPT_HEADER, GPT_SIGNATURE, has_protective, is_partitioned, mbr_entries
from pydiskimg.partitions.partition import SECTOR_SIZES, has_mbr

# As many bytes of a disk as described_end() looks at: up to the superblock of btrfs.
LOOK_AT = 68 << 10


def described_end(beginning: bytes) -> int:
    """Return the byte that the partition table, or the file system, in a disk's first LOOK_AT bytes reaches to.

    That is the end of a GPT's backup, or of the last of an MBR's primary partitions, taken for sectors of 512 bytes;
    where there is no table, the end of an ext2, ext3, ext4, xfs or btrfs file system. 0: none of these.
    The numbers are the disk's own and may be anything up to 2**80: good for a comparison, and for nothing else.
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
