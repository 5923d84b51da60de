# SPDX-License-Identifier: MIT
"""ext2, ext3 and ext4, told apart by their features as libblkid does."""

from __future__ import annotations

from pydiskimg.fs.ext4.layout import SUPERBLOCK_OFFSET
from pydiskimg.fs.ext4.superblock import Superblock, parse_superblock
from pydiskimg.fs.probe.kind import FileSystemKind, label_text, uuid_text
from pydiskimg.protocols import Source

_TEST_FILESYS = 0x4  # s_flags: from the time when ext4 was under development


def probe(_source: Source, head: bytes) -> FileSystemKind | None:
    """Return the kind of ext file system whose superblock is in head, the first bytes of the source."""
    superblock = parse_superblock(head[SUPERBLOCK_OFFSET:])
    if superblock is None or not _is_plausible(superblock):
        return None
    if superblock.expected_checksum != superblock.number("s_checksum"):
        return None
    name = superblock.features.kind
    if name is None or (name == "ext4" and superblock.number("s_flags") & _TEST_FILESYS):
        return None
    return FileSystemKind(name, uuid_text(superblock.uuid), label_text(superblock.fields["s_volume_name"]))


def _is_plausible(superblock: Superblock) -> bool:
    """True for a superblock rather than two bytes that happen to be the magic: no driver accepts one without these."""
    counts = ("s_inodes_count", "s_blocks_count_lo", "s_blocks_per_group", "s_inodes_per_group")
    return all(map(superblock.number, counts)) and superblock.block_size is not None
