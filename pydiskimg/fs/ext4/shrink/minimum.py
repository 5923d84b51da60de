# SPDX-License-Identifier: MIT
"""The smallest possible size of a file system: from the used space of its groups, and the metadata of the remaining
groups.
"""

from __future__ import annotations

from dataclasses import dataclass

from pydiskimg.errors import FileSystemError
from pydiskimg.fs.ext4 import layout
from pydiskimg.fs.ext4.descriptors import locations, read_descriptor, read_descriptors
from pydiskimg.fs.ext4.features import Incompat
from pydiskimg.fs.ext4.file_system import FileSystem, NotBelievedError
from pydiskimg.fs.ext4.geometry import PAGE_SIZE, Geometry
from pydiskimg.fs.ext4.shrink.geometry import smaller
from pydiskimg.fs.ext4.usage import ExtUsage
from pydiskimg.protocols import Source

_SPARE = 4  # clusters, for nodes of a map that is written before the old one is freed


def minimum_size(source: Source) -> int:
    """Return the size in bytes to which the ext2, ext3 or ext4 at the start of source can shrink.

    It is at most the present size. Nothing is written. Raises FileSystemError for a file system that is damaged, not
    clean or has unknown features, and StorageError as reading does.

    >>> from pydiskimg import MemoryDisk, make_ext, minimum_size
    >>> disk = MemoryDisk(64 << 20)
    >>> made = make_ext(disk)
    >>> minimum_size(disk) < made.size
    True
    """
    try:
        return minimum_of(ExtUsage(source))
    except NotBelievedError as error:
        raise not_shrunk(source.name, error) from error


def not_shrunk(name: str, error: NotBelievedError) -> FileSystemError:
    return FileSystemError(f"{name}: its ext file system cannot be shrunk: {error.reason}; check it (e2fsck -f)")


def minimum_of(usage: ExtUsage) -> int:
    """As minimum_size(). Raises NotBelievedError for a file system that is damaged."""
    return steps_to(usage, 0)[-1].size


def steps_to(usage: ExtUsage, size: int) -> list[Geometry]:
    """Return the geometries of a file system on its way to at most size bytes, or to its minimum; the present one
    first.

    With flex_bg the tables of removed groups are among the files and are freed only at the end.
    """
    fs, use = usage.fs, use_of(usage)
    shapes = [fs.geometry]
    while shapes[-1].size > size:
        wanted = _smaller(fs, shapes[-1], size)
        if wanted is None or not use.fits(wanted, shapes[-1]):
            wanted = _least(fs, shapes[-1], use)
        if wanted.blocks >= shapes[-1].blocks:
            break
        shapes.append(wanted)
    return shapes


def _smaller(fs: FileSystem, old: Geometry, size: int) -> Geometry | None:
    """As smaller(), but the last group keeps all its bitmaps and its inode table, which cannot be elsewhere."""
    new = smaller(old, size, fs.name)
    while new is not None and new is not old and Incompat.FLEX_BG not in new.features:
        last = new.groups - 1
        ends = [block + count for _, block, count in locations(new, read_descriptor(fs, last))]
        if max(ends) <= new.blocks:
            break
        new = smaller(old, new.group_start(last) * new.block_size, fs.name) if last else None
    return new


def _least(fs: FileSystem, old: Geometry, use: Use) -> Geometry:
    """Return the smallest geometry that can be reached in one step, or old."""
    low, high, best = 0, -(-old.size // PAGE_SIZE), old  # in pages
    while low + 1 < high:
        middle = (low + high) // 2
        new = _smaller(fs, old, middle * PAGE_SIZE)
        if new is not None and (new is old or use.fits(new, old)):
            high, best = middle, new
        else:
            low = middle
    return best


@dataclass(frozen=True, slots=True)
class Use:
    """The used space: clusters of files and of other data except the groups' own metadata, and inodes."""

    clusters: int
    inodes: int
    spare: int

    def fits(self, new: Geometry, old: Geometry) -> bool:
        """True if all used space fits into the geometry new, reached from old."""
        clusters = new.clusters_in(new.blocks - new.first_data_block)
        needed = self.clusters + self.spare + _metadata(new, old)
        return needed <= clusters and self.inodes <= new.inodes


def use_of(usage: ExtUsage) -> Use:
    """Count the used space. Raises NotBelievedError if the groups contradict themselves."""
    fs, geometry = usage.fs, usage.fs.geometry
    clusters = inodes = 0
    for descriptor in read_descriptors(fs):
        if not descriptor.is_intact:
            raise fs.not_believed(f"the checksum of descriptor {descriptor.group} is wrong")
        in_use = geometry.group_clusters(descriptor.group) - descriptor.free_blocks
        clusters += in_use - usage.metadata_clusters(descriptor.group).bit_count()
        inodes += geometry.inodes_per_group - descriptor.free_inodes
    return Use(clusters, inodes, _SPARE + clusters // _entries(fs))


def _entries(fs: FileSystem) -> int:
    """Return how many pieces of a file fit in a block of its map: the map of a moved file may grow."""
    size = layout.EXTENT.size if Incompat.EXTENTS in fs.geometry.features else 4
    return fs.geometry.block_size // size


def _metadata(new: Geometry, old: Geometry) -> int:
    """Return how many clusters at most the metadata of new takes."""
    groups = old.groups if Incompat.FLEX_BG in old.features else new.groups
    tables = groups * (2 + new.inode_blocks)
    heads = sum(new.clusters_in(new.group_head(group)) for group in _with_heads(new))
    # With bigalloc the tables of neighbours share clusters, except the first and the last of a contiguous run.
    return heads + new.clusters_in(tables) + (groups if new.cluster_blocks > 1 else 0)


def _with_heads(new: Geometry) -> list[int]:
    """Return the groups that begin with metadata, which are few in most file systems."""
    if Incompat.META_BG in new.features:
        return list(range(new.groups))
    return [0, *new.copies]
