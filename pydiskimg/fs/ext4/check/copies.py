# SPDX-License-Identifier: MIT
"""The copies of the superblock and of the group descriptors, which are used when the primary ones are lost."""

from __future__ import annotations

from pydiskimg.fs.ext4.check.checking import Checking
from pydiskimg.fs.ext4.check.report import FindingKind
from pydiskimg.fs.ext4.descriptors import descriptor_record
from pydiskimg.fs.ext4.layout import SUPERBLOCK
from pydiskimg.fs.ext4.superblock import parse_superblock
from pydiskimg.protocols import read_bytes

# Fields that nothing changes in only one copy of the superblock.
_SHARED = (
    "s_inodes_count",
    "s_blocks_count_lo",
    "s_first_data_block",
    "s_log_block_size",
    "s_blocks_per_group",
    "s_inodes_per_group",
    "s_inode_size",
    "s_desc_size",
    "s_uuid",
)
_LOCATIONS = ("bg_block_bitmap_lo", "bg_inode_bitmap_lo", "bg_inode_table_lo")
_MOST_BLOCKS = 1 << 14  # of copies of descriptors that are compared


def check_copies(checking: Checking) -> None:
    """Compare the copies of superblock and descriptors with the primary ones: the fields that give locations."""
    fs, report = checking.fs, checking.report
    own = fs.superblock.fields
    for group in fs.geometry.copies:
        at = fs.geometry.group_start(group) * fs.geometry.block_size
        copy = parse_superblock(read_bytes(fs.source, at, SUPERBLOCK.size))
        if copy is None:
            report.add(FindingKind.COPY, f"group {group}: there is no copy of the superblock")
            continue
        if copy.expected_checksum != copy.number("s_checksum"):
            report.add(FindingKind.COPY, f"group {group}: the checksum of its copy of the superblock is wrong")
        different = next((name for name in _SHARED if own[name] != copy.fields[name]), None)
        if different:
            report.add(FindingKind.COPY, f"group {group}: its copy of the superblock has another {different}")
    _check_descriptors(checking)


def _check_descriptors(checking: Checking) -> None:
    fs, geometry, left = checking.fs, checking.fs.geometry, _MOST_BLOCKS
    record = descriptor_record(geometry)
    for number in range(geometry.desc_blocks):
        first, *others = geometry.descriptor_copies(number)
        data = fs.read(first)
        count = min(geometry.desc_per_block, geometry.groups - number * geometry.desc_per_block)
        wanted = [record.unpack(data, index * geometry.desc_size) for index in range(count)]
        for block in others:
            left -= 1
            if left < 0:
                checking.report.notes.append(f"{_MOST_BLOCKS} blocks of copies of group descriptors were compared")
                return
            copy = fs.read(block)
            for index, fields in enumerate(wanted):
                stored = record.unpack(copy, index * geometry.desc_size)
                if any(stored[name] != fields[name] for name in _LOCATIONS):
                    group = number * geometry.desc_per_block + index
                    checking.report.add(
                        FindingKind.COPY, f"group {group}: a copy of its descriptor, in block {block}, differs"
                    )
