# SPDX-License-Identifier: MIT
"""Allocate and free blocks and inodes."""

from __future__ import annotations

from collections.abc import Iterator

from pydiskimg.fs.ext4 import layout
from pydiskimg.fs.ext4.bitmaps import Run, runs_of
from pydiskimg.fs.ext4.change.groups import ChangedGroups
from pydiskimg.fs.ext4.file_system import FileSystem


class OutOfSpaceError(Exception):
    """No block, or no inode, is free; the text says which of them."""


class ChangedBlocks:
    """Allocates free clusters near a goal, as an Allocator does, and frees clusters."""

    def __init__(self, fs: FileSystem, groups: ChangedGroups) -> None:
        self._fs = fs
        self._groups = groups
        self.end = fs.geometry.blocks  # none is allocated from here on; a whole number of clusters
        self.kept_free: Run = (0, 0)  # nor of these; whole clusters

    def allocate(self, goal: int, length: int, *, whole: bool = False) -> Run:
        """Allocate whole clusters and return at most length blocks of them, from the first block of a cluster on.

        They are near the block goal, and contiguous if the free space allows that; with whole, all are contiguous.
        Raises OutOfSpaceError if none is free, NotBelievedError for a group that contradicts itself, and as reading
        does.
        """
        geometry = self._fs.geometry
        goal = goal if geometry.first_data_block <= goal < self.end else geometry.first_data_block
        wanted = -(-length // geometry.cluster_blocks)
        first = geometry.group_of(goal)
        for group in self._with_room(first):
            start = geometry.group_start(group)
            near = (goal - start) // geometry.cluster_blocks if group == first else 0
            found = self._find(group, near, wanted)
            if found is not None and (not whole or found[1] - found[0] == wanted):
                low, high = found
                state, bits = self._groups[group], (1 << high) - (1 << low)
                self._groups[group] = state._replace(
                    clusters=state.clusters | bits,
                    fresh=state.fresh | bits,
                    flags=state.flags & ~layout.BLOCK_UNINIT,
                )
                block = start + low * geometry.cluster_blocks
                return block, min(start + high * geometry.cluster_blocks, block + length, geometry.blocks)
        raise OutOfSpaceError(
            "no block is free" if length == 1 or not whole else f"no {length} contiguous blocks are free"
        )

    def free(self, start: int, end: int, *, is_metadata: bool = False) -> None:
        """Free the clusters of the blocks [start, end); they can be allocated again after the next commit.

        Raises NotBelievedError if they are not in use, or contain the file system's own metadata unless is_metadata.
        """
        geometry = self._fs.geometry
        while start < end:
            group = geometry.group_of(start)
            first, stop = geometry.group_start(group), min(end, geometry.group_end(group))
            low, high = (start - first) // geometry.cluster_blocks, -(-(stop - first) // geometry.cluster_blocks)
            state, bits = self._groups[group], (1 << high) - (1 << low)
            if bits & ~state.clusters or (not is_metadata and bits & self._groups.metadata(group)):
                raise self._fs.not_believed(f"a file has blocks {start} to {stop}, which do not belong to a file")
            self._groups[group] = state._replace(
                clusters=state.clusters & ~bits,
                held=state.held | bits,
                flags=state.flags & ~layout.BLOCK_UNINIT,
            )
            start = stop

    def is_fresh(self, block: int) -> bool:
        """True for a block that was allocated since the last commit."""
        geometry = self._fs.geometry
        if block < geometry.first_data_block:
            return False
        group = geometry.group_of(block)
        state = self._groups.states.get(group)
        return state is not None and bool(
            state.fresh >> (block - geometry.group_start(group)) // geometry.cluster_blocks & 1
        )

    def _with_room(self, first: int) -> Iterator[int]:
        for groups in (range(first, self._fs.geometry.group_of(self.end - 1) + 1), range(first)):
            for group in groups:
                if self._groups.free_blocks(group):
                    yield group

    def _find(self, group: int, near: int, wanted: int) -> Run | None:
        """Return a run of at most wanted free clusters: the first long enough from near on, or else the longest."""
        state = self._groups[group]
        geometry = self._fs.geometry
        clusters = geometry.clusters_in(min(self.end - geometry.group_start(group), geometry.group_size(group)))
        free = ~(state.clusters | state.held) & (1 << clusters) - 1 & ~self._kept_free_in(group)
        best: Run | None = None
        for low, high in runs_of(free):
            start = max(low, near) if near < high else low
            length = min(high - start, wanted)
            if length == wanted and start >= near:
                return start, start + length
            if best is None or length > best[1] - best[0]:
                best = (start, start + length)
        return best

    def _kept_free_in(self, group: int) -> int:
        """Return the bits of a group's clusters that must not be allocated."""
        geometry = self._fs.geometry
        start, end = geometry.group_start(group), geometry.group_end(group)
        low, high = (min(max(block, start), end) - start for block in self.kept_free)
        return (1 << geometry.clusters_in(high)) - (1 << geometry.clusters_in(low))


class ChangedInodes:
    """Allocates inodes, first in the parent's group, and frees inodes."""

    def __init__(self, fs: FileSystem, groups: ChangedGroups) -> None:
        self._fs = fs
        self._groups = groups
        self.groups = fs.geometry.groups  # only the first inodes are allocated
        self._first = fs.superblock.first_inode
        self._own = fs.superblock.own_files  # e2fsck removes other files with these numbers

    def beside(self, number: int) -> int | None:
        """Allocate an inode in the same block of the table as another one, which is written with it."""
        geometry = self._fs.geometry
        group, index = divmod(number - 1, geometry.inodes_per_group)
        per_block = geometry.block_size // geometry.inode_size
        start = index // per_block * per_block
        free = ~self._in_use(group) >> start & (1 << min(per_block, geometry.inodes_per_group - start)) - 1
        if not free or group >= self.groups:
            return None
        return self._take(group, start + (free & -free).bit_length() - 1, is_directory=False)

    def allocate(self, parent: int, *, is_directory: bool) -> int:
        """Return a free inode's number. Raises as ChangedBlocks.allocate() does."""
        count = self._fs.geometry.inodes_per_group
        first = (parent - 1) // count
        if first >= self.groups:
            first = 0
        for groups in (range(first, self.groups), range(first)):
            for group in groups:
                if not self._groups.free_inodes(group):
                    continue
                in_use = self._in_use(group)
                index = (~in_use & in_use + 1).bit_length() - 1
                if index < count:
                    return self._take(group, index, is_directory=is_directory)
        raise OutOfSpaceError("no inode is free")

    def _in_use(self, group: int) -> int:
        """Return the bits of a group's inodes that must not be allocated, including the file system's own."""
        count = self._fs.geometry.inodes_per_group
        first = group * count + 1
        bits = self._groups[group].inodes | (1 << min(max(self._first - first, 0), count)) - 1
        for number in self._own:
            if first <= number < first + count:
                bits |= 1 << number - first
        return bits

    def _take(self, group: int, index: int, *, is_directory: bool) -> int:
        state, count = self._groups[group], self._fs.geometry.inodes_per_group
        never_used = count - index - 1
        if not state.flags & layout.INODE_UNINIT:
            never_used = min(state.unused_inodes, never_used)
        self._groups[group] = state._replace(
            inodes=state.inodes | 1 << index,
            directories=state.directories + is_directory,
            unused_inodes=never_used,
            # As the kernel does: a group with inodes has both bitmaps.
            flags=state.flags & ~(layout.INODE_UNINIT | layout.BLOCK_UNINIT),
        )
        return group * count + index + 1

    def free(self, number: int, *, is_directory: bool) -> None:
        """Free an inode. Raises NotBelievedError if its group does not have it in use."""
        group, index = divmod(number - 1, self._fs.geometry.inodes_per_group)
        state = self._groups[group]
        if not state.inodes >> index & 1 or state.directories < is_directory:
            raise self._fs.not_believed(f"inode {number} is in a directory and not in use")
        self._groups[group] = state._replace(
            inodes=state.inodes & ~(1 << index), directories=state.directories - is_directory
        )
