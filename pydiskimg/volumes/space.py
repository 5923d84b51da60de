# SPDX-License-Identifier: MIT
"""How much of a file system is in use and how much is free, as statfs(2) reports it for a mounted one.

A superblock's counts date from the last unmount, or from the last journal changes that reached it; ext2, ext3 and ext4
are read as the recovery of their journal would leave them.
"""

from __future__ import annotations

from dataclasses import dataclass

from pydiskimg.errors import FileSystemError
from pydiskimg.fs.ext4.descriptors import read_descriptors
from pydiskimg.fs.ext4.features import KNOWN_TO_FILES, Incompat
from pydiskimg.fs.ext4.file_system import FileSystem, NotBelievedError, read_file_system
from pydiskimg.fs.ext4.geometry import Geometry
from pydiskimg.fs.ext4.recovery import recovered
from pydiskimg.fs.probe import btrfs, xfs
from pydiskimg.fs.probe.fat_space import free_clusters
from pydiskimg.fs.probe.kind import EXT_TYPES
from pydiskimg.fs.probe.vfat import fat_geometry
from pydiskimg.fs.probe.xfs_space import held_back
from pydiskimg.protocols import Source, read_bytes

# Linux reserves a 50th, and 4096 clusters at most, for delayed writes (ext4_calculate_resv_clusters).
_PROMISED_PART, _PROMISED_MOST = 50, 4096
_XFS_INODES_AT_ONCE = 64
_SIZE_IN_JOURNAL_BACKUP = slice(64, 68)  # of s_jnl_blocks: the low half of the journal's i_size


@dataclass(frozen=True, slots=True)
class FileSystemSpace:
    """Space of a file system in bytes, as df(1) counts it. file_system_space() returns it.

    size does not count the file system's own metadata; available is what a user other than root can fill. inodes and
    inodes_used are counts, None for btrfs and FAT, which do not record them.

    >>> from pydiskimg import MemoryDisk, file_system_space, make_ext
    >>> disk = MemoryDisk(16 << 20)
    >>> made = make_ext(disk)
    >>> space = file_system_space(disk, "ext4")
    >>> space.inodes == made.inodes, space.used < space.available < space.size
    (True, True)
    """

    size: int
    used: int
    available: int
    inodes: int | None = None
    inodes_used: int | None = None


def file_system_space(source: Source, fs_type: str) -> FileSystemSpace | None:
    """Return how much of the file system on source is in use and free; None for a type other than those below.

    fs_type is the type that probe() found. ext2, ext3 and ext4 are counted by their group descriptors as the journal
    would leave them, FAT by its allocation table, xfs and btrfs by their superblocks, less what Linux holds back of an
    xfs for its trees. Copies in a btrfs (RAID1, DUP) count once, and one on several devices counts with all of them.
    Linux also holds back a part of a btrfs while it is mounted, by the size of its trees, which are not read.

    Raises FileSystemError if the numbers contradict each other, and StorageError as reading does.

    >>> from pydiskimg import file_system_space, find_volumes, open_image
    >>> with open_image("disk.raw") as source:
    ...     for volume in find_volumes(source):
    ...         space = file_system_space(volume.region(source), volume.content.type)
    ...         print(volume.location, space.used < space.size)
    partition 1 True
    """
    if fs_type in EXT_TYPES:
        space = _of_ext(source)
    elif fs_type == "xfs":
        space = _of_xfs(source, xfs.SUPERBLOCK.unpack(read_bytes(source, 0, xfs.SUPERBLOCK.size)))
    elif fs_type == "vfat":
        space = _of_fat(source)
    elif fs_type == "btrfs":
        fields = btrfs.SUPERBLOCK.unpack(read_bytes(source, btrfs.OFFSET, btrfs.SUPERBLOCK.size))
        size, used = fields["total_bytes"], fields["bytes_used"]
        space = FileSystemSpace(size, used, size - used)
    else:
        return None
    if not 0 <= space.used <= space.size or (space.inodes_used or 0) > (space.inodes or 0):
        raise FileSystemError(
            f"{source.name}: its {fs_type} file system states {space.used} bytes in use of {space.size} and "
            f"{space.inodes_used} inodes of {space.inodes}; check it"
        )
    return space


def _of_ext(source: Source) -> FileSystemSpace:
    try:
        fs = recovered(read_file_system(source, KNOWN_TO_FILES), KNOWN_TO_FILES)
    except NotBelievedError as error:
        raise FileSystemError(f"{source.name}: its space cannot be counted: {error.reason}") from error
    geometry = fs.geometry
    free_clusters = free_inodes = 0
    for descriptor in read_descriptors(fs):
        if not descriptor.is_intact:
            raise FileSystemError(
                f"{source.name}: its space cannot be counted: group {descriptor.group} has a wrong checksum; check it"
            )
        free_clusters += descriptor.free_blocks
        free_inodes += descriptor.free_inodes
    cluster = geometry.block_size * geometry.cluster_blocks
    size = geometry.blocks * geometry.block_size - _overhead(fs) * cluster
    free = free_clusters * cluster
    kept = geometry.reserved_blocks * geometry.block_size + _promised(geometry) * cluster
    return FileSystemSpace(size, size - free, max(0, free - kept), geometry.inodes, geometry.inodes - free_inodes)


def _overhead(fs: FileSystem) -> int:
    """Return the clusters that hold metadata: from the superblock, or if it has no number, by the layout."""
    stated = fs.superblock.number("s_overhead_clusters")
    geometry = fs.geometry
    if 0 < stated <= geometry.clusters_in(geometry.blocks):
        return stated
    journal = 0
    if fs.superblock.journal_inode:
        journal = int.from_bytes(fs.superblock.fields["s_jnl_blocks"][_SIZE_IN_JOURNAL_BACKUP], "little")
    own = sum(geometry.clusters_in(geometry.group_overhead(group)) for group in range(geometry.groups))
    return geometry.first_data_block + own + geometry.clusters_in(journal // geometry.block_size)


def _promised(geometry: Geometry) -> int:
    if Incompat.EXTENTS not in geometry.features:
        return 0
    return min(geometry.blocks // geometry.cluster_blocks // _PROMISED_PART, _PROMISED_MOST)


def _of_fat(source: Source) -> FileSystemSpace:
    geometry = fat_geometry(read_bytes(source, 0, 512))
    if geometry is None:
        raise FileSystemError(f"{source.name}: its space cannot be counted: it has no boot sector of a FAT file system")
    free = free_clusters(source, geometry) * geometry.cluster
    size = geometry.clusters * geometry.cluster
    return FileSystemSpace(size, size - free, free)


def _of_xfs(source: Source, fields: dict[str, int]) -> FileSystemSpace:
    blocks = fields["sb_dblocks"] - (fields["sb_logblocks"] if fields["sb_logstart"] else 0)
    free, block_size = max(0, fields["sb_fdblocks"] - held_back(source, fields)), fields["sb_blocksize"]
    # Inodes are allocated on demand, 64 or a block of them at once, in free blocks, up to a share of all blocks.
    at_once = max(1, _XFS_INODES_AT_ONCE >> fields["sb_inopblog"])
    most = fields["sb_dblocks"] * fields["sb_imax_pct"] // 100 // at_once * at_once << fields["sb_inopblog"]
    inodes = fields["sb_icount"] + (free << fields["sb_inopblog"])
    inodes = max(fields["sb_icount"], min(inodes, most)) if most else inodes
    used_inodes = fields["sb_icount"] - fields["sb_ifree"]
    return FileSystemSpace(blocks * block_size, (blocks - free) * block_size, free * block_size, inodes, used_inodes)
