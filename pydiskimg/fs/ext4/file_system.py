# SPDX-License-Identifier: MIT
"""An existing file system: its source, superblock, geometry and checksums, read once and believed (super.rst).

A guest has written it, so each number must be confirmed by another. Only features that this module fully supports are
accepted; all others raise NotBelievedError.
"""

from __future__ import annotations

from pydiskimg.errors import FileSystemError
from pydiskimg.fs.ext4 import layout
from pydiskimg.fs.ext4.checksums import Checksums
from pydiskimg.fs.ext4.features import KNOWN_TO_BITMAPS, Compat, Features, Incompat, RoCompat
from pydiskimg.fs.ext4.geometry import Geometry
from pydiskimg.fs.ext4.superblock import MAX_LOG_BLOCK_SIZE, Superblock, parse_superblock
from pydiskimg.protocols import Source, read_bytes
from pydiskimg.startup import ValueObject

_MAX_LOG_CLUSTER_SIZE = 19  # 512 MiB, the kernel's limit
_MAX_LOG_FLEX_SIZE = 31  # the kernel rejects more
_MIN_BLOCKS_PER_GROUP = 256  # mke2fs makes no smaller ones
MAX_GROUPS = 1 << 22  # 16 TiB in groups of half the smallest usual size


class NotBelievedError(FileSystemError):
    """The used space of the file system cannot be determined, so all of it counts as in use.

    where names the file system; reason is a clause for the log.
    """

    def __init__(self, where: str, reason: str) -> None:
        super().__init__(f"{where}: {reason}; all of it counts as in use")
        self.where = where
        self.reason = reason


class FileSystem(ValueObject):
    """A sound ext2, ext3 or ext4 at the beginning of source."""

    __slots__ = ("checksums", "geometry", "source", "superblock")

    def __init__(self, source: Source, superblock: Superblock, geometry: Geometry, checksums: Checksums) -> None:
        self.source = source
        self.superblock = superblock
        self.geometry = geometry
        self.checksums = checksums

    @property
    def name(self) -> str:
        return self.source.name

    @property
    def state(self) -> int:
        return self.superblock.number("s_state")

    @property
    def needs_recovery(self) -> bool:
        return Incompat.RECOVER in self.geometry.features

    def read(self, block: int, count: int = 1) -> bytes:
        """Return the contents of blocks; errors as for reading the source."""
        size = self.geometry.block_size
        return read_bytes(self.source, block * size, count * size)

    def not_believed(self, reason: str) -> NotBelievedError:
        return NotBelievedError(self.name, reason)


def read_file_system(source: Source, known: Features = KNOWN_TO_BITMAPS) -> FileSystem:
    """Return the file system at the beginning of source.

    Raises NotBelievedError if its superblock is not that of a sound ext2, ext3 or ext4 that fits into source, or has
    unknown features; StorageError as reading does. s_state is not checked.
    """
    superblock = _read_superblock(source, known)
    geometry = _geometry(superblock)
    problem = (
        _group_problem(geometry, superblock)
        or _count_problem(geometry, superblock)
        or _room_problem(geometry, superblock, source.size)
    )
    if problem is not None:
        raise NotBelievedError(source.name, problem)
    has_seed = Incompat.CSUM_SEED in superblock.features
    seed = superblock.number("s_checksum_seed") if has_seed else None
    return FileSystem(source, superblock, geometry, Checksums(superblock.features, superblock.uuid, seed))


def _read_superblock(source: Source, known: Features) -> Superblock:
    """Return the superblock after checking its features, its checksum and its sizes."""
    if source.size < layout.SUPERBLOCK_OFFSET + layout.SUPERBLOCK.size:
        raise NotBelievedError(source.name, f"there is no room for a superblock in {source.size} bytes")
    raw = read_bytes(source, layout.SUPERBLOCK_OFFSET, layout.SUPERBLOCK.size)
    superblock = parse_superblock(raw)
    if superblock is None:
        found, expected = layout.SUPERBLOCK.unpack(raw)["s_magic"], layout.SUPERBLOCK_MAGIC
        raise NotBelievedError(
            source.name, f"the superblock has no magic (found {found:#06x}, expected {expected:#06x})"
        )
    problem = _unknown(superblock, known) or _checksum_problem(superblock) or _size_problem(superblock)
    if problem is not None:
        raise NotBelievedError(source.name, problem)
    return superblock


def state_problem(fs: FileSystem) -> str | None:
    """Return why s_state forbids believing the bitmaps, or None."""
    if fs.state & layout.ERROR_FS:
        return "the kernel has seen errors in it, and it was not checked since"
    if not fs.state & layout.VALID_FS:
        if Compat.HAS_JOURNAL in fs.geometry.features:
            return "it was not unmounted cleanly, or a change of its size was interrupted"
        return "it was not unmounted cleanly and has no journal to recover from"
    if fs.state & layout.FAST_COMMIT_REPLAY:
        return "a replay of its fast commits was interrupted"
    return None


def _unknown(superblock: Superblock, known: Features) -> str | None:
    revision, features = superblock.number("s_rev_level"), superblock.features
    if revision > 1:
        return f"it has revision {revision}, expected 0 or 1"
    incompat, ro_compat = features.beyond(known)
    if incompat or ro_compat:
        return f"it has features that are not known here (incompat {incompat:#x}, ro_compat {ro_compat:#x})"
    if not revision and any(features.fields.values()):
        return "it has revision 0 and features, which belong to revision 1"
    return None


def _checksum_problem(superblock: Superblock) -> str | None:
    kind, stored = superblock.number("s_checksum_type"), superblock.number("s_checksum")
    if RoCompat.METADATA_CSUM in superblock.features and kind != layout.CHECKSUMS_CRC32C:
        return f"its checksums are of type {kind}, expected 1 (crc32c)"
    found = superblock.expected_checksum
    return None if found == stored else f"the superblock's checksum is {stored:#010x}, expected {found:#010x}"


def _size_problem(superblock: Superblock) -> str | None:
    """Check the sizes by themselves: the computations of _geometry() stay in range after this."""
    number, features = superblock.number, superblock.features
    log_block, log_cluster = number("s_log_block_size"), number("s_log_cluster_size")
    if log_block > MAX_LOG_BLOCK_SIZE:
        return f"its block size is 1024 << {log_block}"
    block_size = 1024 << log_block
    bigalloc = RoCompat.BIGALLOC in features
    if not log_block <= log_cluster <= _MAX_LOG_CLUSTER_SIZE or (log_cluster > log_block and not bigalloc):
        return f"its cluster size is 1024 << {log_cluster}, with blocks of {block_size} bytes"
    inode_size, desc_size = number("s_inode_size"), number("s_desc_size")
    is_fitting = _is_power(inode_size) and layout.GOOD_OLD_INODE_SIZE <= inode_size <= block_size
    if number("s_rev_level") and not is_fitting:
        return f"its inodes have {inode_size} bytes, with blocks of {block_size}"
    bits64 = Incompat.BIT64 in features
    if bits64 and not (_is_power(desc_size) and 64 <= desc_size <= block_size):
        return f"its group descriptors have {desc_size} bytes, with blocks of {block_size}"
    if not bits64 and desc_size not in (0, 32):
        return f"its group descriptors have {desc_size} bytes, expected 32 without 64bit"
    return None


def _is_power(number: int) -> bool:
    return number > 0 and not number & (number - 1)


def _geometry(superblock: Superblock) -> Geometry:
    number, features = superblock.number, superblock.features
    log_flex = number("s_log_groups_per_flex") if Incompat.FLEX_BG in features else 0
    backups = bytes(superblock.fields["s_backup_bgs"])
    return Geometry(
        features,
        block_size=1024 << number("s_log_block_size"),
        blocks=superblock.blocks,
        blocks_per_group=number("s_blocks_per_group"),
        inodes_per_group=number("s_inodes_per_group"),
        desc_size=number("s_desc_size") if Incompat.BIT64 in features else layout.GROUP_DESCRIPTOR_32.size,
        inode_size=number("s_inode_size") if number("s_rev_level") else layout.GOOD_OLD_INODE_SIZE,
        cluster_blocks=1 << number("s_log_cluster_size") - number("s_log_block_size"),
        flex_size=1 << log_flex if log_flex <= _MAX_LOG_FLEX_SIZE else 1,
        reserved_gdt_blocks=number("s_reserved_gdt_blocks"),
        reserved_blocks=superblock.wide("s_r_blocks_count"),
        first_meta_bg=number("s_first_meta_bg"),
        two_copies=(int.from_bytes(backups[:4], "little"), int.from_bytes(backups[4:], "little")),
    )


def _group_problem(geometry: Geometry, superblock: Superblock) -> str | None:
    """Check the size of the groups."""
    per_group, most = geometry.blocks_per_group, 8 * geometry.block_size * geometry.cluster_blocks
    if per_group % 8 or not _MIN_BLOCKS_PER_GROUP <= per_group <= most or per_group % geometry.cluster_blocks:
        return f"its groups have {per_group} blocks, with blocks of {geometry.block_size} bytes"
    clusters = superblock.number("s_clusters_per_group")
    if RoCompat.BIGALLOC in geometry.features and clusters * geometry.cluster_blocks != per_group:
        return f"its groups have {per_group} blocks but {clusters} clusters"
    first = superblock.number("s_first_data_block")
    if first != geometry.first_data_block:
        return f"its first data block is {first}, expected {geometry.first_data_block}"
    return None


def _count_problem(geometry: Geometry, superblock: Superblock) -> str | None:
    """Check the numbers of blocks, groups and inodes against each other."""
    if not 0 < geometry.inodes_per_group <= 8 * geometry.block_size:
        return f"its groups have {geometry.inodes_per_group} inodes, with blocks of {geometry.block_size} bytes"
    if not 0 < geometry.groups <= MAX_GROUPS:
        return f"it has {geometry.blocks} blocks in groups of {geometry.blocks_per_group}"
    inodes = superblock.number("s_inodes_count")
    if inodes != geometry.inodes:
        return f"it has {inodes} inodes, expected {geometry.groups} groups of {geometry.inodes_per_group}"
    if not layout.FIRST_INODE <= superblock.first_inode <= inodes:
        return f"its first inode that is not reserved is {superblock.first_inode}, of {inodes}"
    return None


def _room_problem(geometry: Geometry, superblock: Superblock, size: int) -> str | None:
    end = geometry.blocks * geometry.block_size
    if end > size:
        return f"it ends at byte {end}, its partition or disk at {size}"
    first, most = geometry.first_meta_bg, geometry.desc_blocks
    if Incompat.META_BG in geometry.features and first > most:
        return f"its first group with descriptors of its own is {first}, of {most} blocks"
    head = geometry.group_head(0)
    if head >= geometry.group_size(0):
        return f"its superblock and descriptors take {head} blocks, more than the first group has"
    if superblock.journal_inode > geometry.inodes_per_group:
        return f"its journal is inode {superblock.journal_inode}, which is not in the first group"
    return None
