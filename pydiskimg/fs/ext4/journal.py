# SPDX-License-Identifier: MIT
"""The journal: where it goes, how its inode maps it, and its superblock (journal.rst)."""

from __future__ import annotations

from pydiskimg.fs.ext4 import layout
from pydiskimg.fs.ext4.geometry import Geometry
from pydiskimg.fs.ext4.new_file_map import FileMap, map_by_extents, map_by_pointers
from pydiskimg.fs.ext4.placement import Placement


def allocate_journal(geometry: Geometry, placement: Placement) -> FileMap:
    """Allocate the journal's blocks; errors as for Placement.allocate()."""
    if geometry.features.extents:
        return map_by_extents(placement, geometry.block_size, _middle(geometry, placement), geometry.journal_blocks)
    return map_by_pointers(placement, geometry.block_size, geometry.first_data_block, geometry.journal_blocks)


def _middle(geometry: Geometry, placement: Placement) -> int:
    """Return the first block of a group in the middle of the file system, so that seeks are short."""
    group = geometry.group_of((geometry.blocks - geometry.first_data_block) // 2)
    if geometry.features.flex_bg and group > geometry.flex_size:
        group -= group % geometry.flex_size
        group = next((other for other in range(group, geometry.groups) if placement.free_in(other)), 0)
        candidates = range(group, min(group + 2, geometry.groups))
    else:
        candidates = range(max(group - 1, 0), min(group + 2, geometry.groups))
    return geometry.group_start(max(candidates, key=placement.free_in))


def journal_superblock(block_size: int, blocks: int, uuid: bytes) -> bytes:
    """Return the first block of an empty journal."""
    record = layout.JOURNAL_SUPERBLOCK.pack(
        h_magic=layout.JOURNAL_MAGIC,
        h_blocktype=layout.JOURNAL_SUPERBLOCK_V2,
        s_blocksize=block_size,
        s_maxlen=blocks,
        s_first=1,
        s_sequence=1,
        s_uuid=uuid,
        s_nr_users=1,
    )
    return record.ljust(block_size, b"\0")
