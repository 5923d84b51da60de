# SPDX-License-Identifier: MIT
"""How many free blocks of an XFS Linux holds back while it is mounted: statfs(2) does not count them as free.

Part of them is for the trees of each allocation group, which must be able to grow (fs/xfs/xfs_mount.c and
fs/xfs/libxfs/xfs_ag_resv.c of Linux; XFS Algorithms & Data Structures, "Allocation Group Header" chapters; big-endian).
"""

from __future__ import annotations

from pydiskimg.errors import FileSystemError
from pydiskimg.protocols import Source, read_bytes
from pydiskimg.records import Record

AGF = Record("xfs_agf", ">", 92, """
    00 4s  agf_magicnum         XAGF
    04 I   agf_versionnum
    08 I   agf_seqno            the number of this group
    0c I   agf_length           blocks of the group
    10 44s agf_roots            to agf_longest
    3c I   agf_btreeblks        of the trees of free space, and of the reverse mapping, without their roots
    40 16s agf_uuid
    50 I   agf_rmap_blocks      of the tree of the reverse mapping
    54 I   agf_refcount_blocks  of the tree of reference counts
    58 I   agf_refcount_root
""")  # fmt: skip
AGI = Record("xfs_agi", ">", 344, """
    000 4s   agi_magicnum       XAGI
    004 336s agi_versionnum     to agi_iblocks
    154 I    agi_fblocks        of the tree of free inodes, where INOBTCNT says that they are counted
""")  # fmt: skip
_FINOBT, _RMAPBT, _REFLINK, _INOBTCNT = 1, 2, 4, 8  # of sb_features_ro_compat
_VERSION_5 = 5
_TREE_HEADER = {True: 56, False: 16}  # bytes of a block of a tree, by whether blocks have checksums
# Bytes of a record in a leaf and of a key with a pointer above, of the trees of free inodes, references and owners
_INODES, _REFERENCES, _OWNERS = (16, 8), (12, 8), (24, 44)
_INODES_OF_RECORD = 64
_OF_EACH_GROUP = 8  # blocks, for the lists from which the trees of free space grow
_RESERVED_PART, _RESERVED_MOST = 20, 8192  # for an allocation without space: a 20th of all blocks
_OWNERS_PART = 100  # of a group's blocks, at least


def held_back(source: Source, fields: dict[str, int]) -> int:
    """Return the blocks that are free in fields, the superblock of an XFS on source, and not to the mounted one.

    The tree of free inodes counts as one block in a file system that does not count its blocks (before xfsprogs 5.15).
    Raises FileSystemError for a group without its headers, StorageError as reading does.
    """
    is_5 = fields["sb_versionnum"] & 0xF == _VERSION_5
    features = fields["sb_features_ro_compat"] if is_5 else 0
    groups = fields["sb_agcount"]
    blocks = min(fields["sb_dblocks"] // _RESERVED_PART, _RESERVED_MOST) + _OF_EACH_GROUP * groups
    size, sector = fields["sb_blocksize"], fields["sb_sectsize"]
    for group in range(groups):
        start = group * fields["sb_agblocks"] * size
        if start + 2 * sector + AGI.size > source.size:
            raise _not_counted(source, group)
        free = AGF.unpack(read_bytes(source, start + sector, AGF.size))
        inodes = AGI.unpack(read_bytes(source, start + 2 * sector, AGI.size))
        if free["agf_magicnum"] != b"XAGF" or free["agf_seqno"] != group or inodes["agi_magicnum"] != b"XAGI":
            raise _not_counted(source, group)
        blocks += _for_trees(fields, features, group, free, inodes) + free["agf_btreeblks"]
        if features & _RMAPBT:
            blocks -= free["agf_rmap_blocks"] - 1
    return int(blocks)


def _not_counted(source: Source, group: int) -> FileSystemError:
    return FileSystemError(
        f"{source.name}: its space cannot be counted: allocation group {group} has no valid headers; check it"
    )


def _for_trees(fields: dict[str, int], features: int, group: int, free: dict[str, int], inodes: dict[str, int]) -> int:
    """Return what Linux reserves for the trees of a group, less what they have already."""
    length = free["agf_length"]
    if fields["sb_logstart"] and fields["sb_logstart"] >> fields["sb_agblklog"] == group:
        length = max(0, length - fields["sb_logblocks"])
    block = fields["sb_blocksize"] - _TREE_HEADER[fields["sb_versionnum"] & 0xF == _VERSION_5]
    reserved = 0
    if features & _REFLINK:
        reserved += max(0, _tree_blocks(length, block, *_REFERENCES) - free["agf_refcount_blocks"])
    if features & _FINOBT:
        records = length * fields["sb_inopblock"] // _INODES_OF_RECORD
        used = inodes["agi_fblocks"] if features & _INOBTCNT else 1
        reserved += max(0, _tree_blocks(records, block, *_INODES) - used)
    if features & _RMAPBT:
        reserved += max(length // _OWNERS_PART, _tree_blocks(length, block, *_OWNERS))
    return reserved


def _tree_blocks(records: int, block: int, record: int, key: int) -> int:
    """Return the blocks of the largest tree of that many records: each block is half full."""
    total, in_block = 0, max(2, block // record // 2)
    while records > 1:
        records = -(-records // in_block)
        total += records
        in_block = max(2, block // key // 2)
    return total
