# SPDX-License-Identifier: MIT
"""The space in use in an ext2, ext3 or ext4 file system, by its block bitmaps, which are believed if consistent.

    superblock ─ journal ─ group 0, root directory, copy ─ bitmap of each group ─> ranges of bytes in use
        │           │                   │                       │
        └───────────┴───────────────────┴── wrong: everything   └── wrong: the whole group

docs/adr/0024 defines consistent, 0025 the role of a journal.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterator

from pydiskimg.fs.ext4.beginning import check_beginning
from pydiskimg.fs.ext4.bitmaps import bits_in_use, runs_of
from pydiskimg.fs.ext4.descriptors import Descriptor, location_problem, locations, read_descriptor, read_descriptors
from pydiskimg.fs.ext4.file_system import FileSystem, read_file_system, state_problem
from pydiskimg.fs.ext4.geometry import Geometry
from pydiskimg.fs.ext4.layout import BLOCK_UNINIT, GROUP_DESCRIPTOR_64
from pydiskimg.fs.ext4.recovery import after_recovery
from pydiskimg.protocols import Source
from pydiskimg.ranges import MAX_RANGES, RangeList


class ExtUsage:
    """The space in use by the file system at the beginning of source.

    groups counts the groups, replayed_blocks the blocks that the journal has yet to write back. doubtful_groups counts
    the groups that count as fully used because they contradict themselves, first_doubt is the reason for the first of
    them; both are complete when ranges() is exhausted.
    """

    def __init__(self, source: Source, *, is_ours: bool = False) -> None:
        """Read all but the bitmaps.

        is_ours says that the caller has marked the file system as not clean, which otherwise forbids believing it.
        Raises NotBelievedError if the used space cannot be determined, and as reading source does.
        """
        self._size = source.size
        fs = read_file_system(source)
        recovered, self.replayed_blocks = after_recovery(fs)
        if self.replayed_blocks:
            fs = read_file_system(recovered)
        elif recovered is not source:
            fs = fs.replaced(source=recovered)
        problem = state_problem(fs)
        if problem is not None and not is_ours:
            raise fs.not_believed(problem)
        self.fs = fs
        self._metadata_ranges = metadata_ranges(fs)
        self.doubtful_groups = 0
        self.first_doubt: str | None = None
        first = self.clusters_in_use(read_descriptor(fs, 0))
        if isinstance(first, str):
            raise fs.not_believed(f"group 0: {first}")
        check_beginning(fs)

    @property
    def groups(self) -> int:
        return self.fs.geometry.groups

    def ranges(self) -> Iterator[tuple[int, int]]:
        """Yield the used ranges, each as its first byte and the byte after its last; lazily, one group at a time.

        They ascend and do not touch each other. Bytes of source after the file system are in use. Errors are those of
        reading source, and NotBelievedError if its journal turns out to be damaged.
        """
        start = end = 0
        for first, last in self._pieces():
            if first > end:
                if end > start:
                    yield start, end
                start = first
            end = max(end, last)
        if end > start:
            yield start, end

    def _pieces(self) -> Iterator[tuple[int, int]]:
        """Yield the ranges that ranges() joins, ascending."""
        geometry = self.fs.geometry
        size = geometry.block_size
        self.doubtful_groups, self.first_doubt = 0, None
        yield 0, geometry.first_data_block * size
        for descriptor in read_descriptors(self.fs):
            start, end = geometry.group_start(descriptor.group), geometry.group_end(descriptor.group)
            used = self.clusters_in_use(descriptor)
            if isinstance(used, str):
                self.doubtful_groups += 1
                self.first_doubt = self.first_doubt or f"group {descriptor.group}: {used}"
                yield start * size, end * size
                continue
            for first, last in runs_of(used):
                last_block = min(start + last * geometry.cluster_blocks, end)
                yield (start + first * geometry.cluster_blocks) * size, last_block * size
        yield geometry.blocks * size, self._size

    def clusters_in_use(self, descriptor: Descriptor) -> int | str:
        """Return the bits of a group's clusters in use (the first is bit 0), or why they are not believed.

        Raises as ranges() does.
        """
        geometry = self.fs.geometry
        problem = location_problem(geometry, descriptor)
        if problem is not None:
            return problem
        clusters = geometry.group_clusters(descriptor.group)
        metadata = self.metadata_clusters(descriptor.group)
        if not descriptor.flags & BLOCK_UNINIT:
            bits = self._bitmap(descriptor, clusters)
        else:
            bits = metadata if descriptor.group else "it is the first group, and its block bitmap was never written"
        if isinstance(bits, str):
            return bits
        free = clusters - bits.bit_count()
        if free != descriptor.free_blocks:
            return f"{free} of its clusters are free, while its descriptor says {descriptor.free_blocks}"
        if bits & metadata != metadata:
            return "its block bitmap marks bitmaps, inode tables or copies of the superblock as free"
        return bits

    def _bitmap(self, descriptor: Descriptor, clusters: int) -> int | str:
        geometry, checksums = self.fs.geometry, self.fs.checksums
        data = self.fs.read(descriptor.block_bitmap)
        if checksums.active:
            width = 0xFFFFFFFF if geometry.desc_size >= GROUP_DESCRIPTOR_64.size else 0xFFFF
            if checksums.bitmap(data[: geometry.clusters_per_group // 8]) & width != descriptor.bitmap_checksum:
                return "the checksum of its block bitmap is wrong"
        bits = bits_in_use(data, clusters)
        return "its block bitmap marks blocks beyond its end as free" if bits is None else bits

    def metadata_clusters(self, group: int) -> int:
        """Return the bits of a group's clusters that contain metadata of this and other groups."""
        geometry = self.fs.geometry
        start, end = geometry.group_start(group), geometry.group_end(group)
        head = min(geometry.group_head(group), end - start)
        return (1 << geometry.clusters_in(head)) - 1 | self.table_clusters(group)

    def table_clusters(self, group: int) -> int:
        """Return the bits of a group's clusters that contain bitmaps and inode tables of this and other groups."""
        return clusters_of(self._metadata_ranges, self.fs.geometry, group)


def clusters_of(ranges: RangeList, geometry: Geometry, group: int) -> int:
    """Return the bits of a group's clusters that contain blocks of ranges."""
    start, end = geometry.group_start(group), geometry.group_end(group)
    ratio = geometry.cluster_blocks
    bits = 0
    for first, last in ranges.within(start, end):
        bits |= (1 << -(-(last - start) // ratio)) - (1 << (first - start) // ratio)
    return bits


# In all that mke2fs and resize2fs make, tables of groups are neighbours: 16 TiB of ext4 have about 25000 runs.
_MOST = MAX_RANGES


def metadata_ranges(fs: FileSystem, groups: range | None = None) -> RangeList:
    """Return the runs of blocks with the bitmaps and inode tables of all groups, or of some of them.

    Raises NotBelievedError when two groups name one block, and as reading does.
    """
    starts, ends = array("Q"), array("Q")
    last = [-1, -1, -1]  # the last run of each kind
    for descriptor in read_descriptors(fs):
        is_left_out = groups is not None and descriptor.group not in groups
        if is_left_out or location_problem(fs.geometry, descriptor) is not None:
            continue
        for kind, (_, block, count) in enumerate(locations(fs.geometry, descriptor)):
            if last[kind] >= 0 and ends[last[kind]] == block:
                ends[last[kind]] += count
                continue
            last[kind] = len(starts)
            starts.append(block)
            ends.append(block + count)
        if len(starts) > _MOST:
            raise fs.not_believed(f"its bitmaps and inode tables are in more than {_MOST} places")
    return RangeList(_ascending(starts, ends, fs))


def _ascending(starts: array[int], ends: array[int], fs: FileSystem) -> Iterator[tuple[int, int]]:
    behind = 0
    for index in sorted(range(len(starts)), key=starts.__getitem__):
        if starts[index] < behind:
            raise fs.not_believed(f"two bitmaps or inode tables are at block {starts[index]}")
        behind = ends[index]
        yield starts[index], behind
