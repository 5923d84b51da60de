# SPDX-License-Identifier: MIT
"""The contents of the groups' bitmaps and descriptors, believed if they are consistent, changed and written again."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

from pydiskimg.fs.ext4 import layout
from pydiskimg.fs.ext4.bitmaps import bitmap_of
from pydiskimg.fs.ext4.descriptors import descriptor_record, halves, read_descriptor
from pydiskimg.fs.ext4.groups import block_bitmap_checksum
from pydiskimg.fs.ext4.usage import ExtUsage
from pydiskimg.records import Value

_KEPT_GROUPS = 512  # whose bitmaps stay in memory between commits, each up to 10 KiB with 4 KiB blocks


class GroupState(NamedTuple):
    """Bits of clusters and of inodes that are set are in use; bit 0 is the group's first.

    unused_inodes at the end of the table were never written (if descriptors have checksums). Since the last commit
    fresh clusters were allocated, so that the disk does not refer to them yet, and held ones freed: the disk still
    refers to their contents.
    """

    clusters: int
    inodes: int
    directories: int
    unused_inodes: int
    flags: int
    fresh: int = 0
    held: int = 0


class ChangedGroups:
    """The groups of a file system, read on first use; states are replaced, never changed."""

    def __init__(self, usage: ExtUsage) -> None:
        self._usage = usage
        self._fs = usage.fs
        self._record = descriptor_record(usage.fs.geometry)
        self._stored: dict[int, GroupState] = {}
        self._free_counts: dict[int, tuple[int, int]] = {}
        self.states: dict[int, GroupState] = {}
        self._changed: set[int] = set()
        self._metadata: dict[int, int] = {}

    def __getitem__(self, group: int) -> GroupState:
        """Return the state of a group. Raises NotBelievedError if it contradicts itself, and as reading does."""
        state = self.states.get(group)
        if state is None:
            state = self._stored[group] = self.states[group] = self.stored(group)
        return state

    def __setitem__(self, group: int, state: GroupState) -> None:
        self.states[group] = state
        self._changed.add(group)

    def free_blocks(self, group: int) -> int:
        """Return how many clusters are free according to a group's descriptor; its bitmap is not read for that."""
        state = self.states.get(group)
        if state is None:
            return self._free(group)[0]
        return self.clusters(group) - (state.clusters | state.held).bit_count()

    def free_inodes(self, group: int) -> int:
        state = self.states.get(group)
        if state is None:
            return self._free(group)[1]
        return self._fs.geometry.inodes_per_group - state.inodes.bit_count()

    def _free(self, group: int) -> tuple[int, int]:
        """Return the free blocks and inodes in the descriptor of an unchanged group."""
        found = self._free_counts.get(group)
        if found is None:
            descriptor = read_descriptor(self._fs, group)
            found = self._free_counts[group] = descriptor.free_blocks, descriptor.free_inodes
        return found

    def clusters(self, group: int) -> int:
        """Return how many clusters a group has."""
        return -(-self._fs.geometry.group_size(group) // self._fs.geometry.cluster_blocks)

    def metadata(self, group: int) -> int:
        """Return the bits of the clusters that contain bitmaps, inode tables and copies of the superblock."""
        found = self._metadata.get(group)
        if found is None:
            found = self._metadata[group] = self._usage.metadata_clusters(group)
        return found

    def restore(self, states: dict[int, GroupState]) -> None:
        """Return to earlier states; groups read since then are read again."""
        self.states = states
        self._changed = {group for group, state in states.items() if state is not self._stored[group]}

    def committed(self) -> None:
        """Note that the states are on the disk now; of many, only those that have just changed stay in memory."""
        for group in self._changed:
            state = self.states[group]
            self.states[group] = GroupState(
                state.clusters, state.inodes, state.directories, state.unused_inodes, state.flags
            )
        if len(self.states) > _KEPT_GROUPS:
            for group in self.states.keys() - self._changed:
                del self.states[group]
                self._free_counts.pop(group, None)  # of the descriptor before this group changed
                self._metadata.pop(group, None)
        self._stored = dict(self.states)
        self._changed.clear()

    def blocks(self) -> Iterator[tuple[int, int, bytes]]:
        """Yield the changes as (block, offset in it, bytes); in blocks of descriptors, only the descriptors."""
        for group in sorted(self._changed):
            state, stored = self.states[group], self._stored[group]
            if state != stored:
                yield from self._written(group, state, stored)

    @property
    def changed(self) -> int:
        """How many groups have changed since the last commit."""
        return len(self._changed)

    def counts(self) -> tuple[int, int]:
        """Return the changes of the numbers of free clusters and free inodes since the last commit."""
        blocks = inodes = 0
        for group in self._changed:
            state, stored = self.states[group], self._stored[group]
            blocks += stored.clusters.bit_count() - state.clusters.bit_count()
            inodes += stored.inodes.bit_count() - state.inodes.bit_count()
        return blocks, inodes

    def stored(self, group: int) -> GroupState:
        """Read the current state of a group of the file system, without keeping it. Raises as the subscript does."""
        descriptor = read_descriptor(self._fs, group)
        clusters = self._usage.clusters_in_use(descriptor)
        if isinstance(clusters, str):
            raise self._fs.not_believed(f"group {group}: {clusters}")
        fields = self._fields(group)
        count = self._fs.geometry.inodes_per_group
        inodes = 0
        if not descriptor.flags & layout.INODE_UNINIT:
            inodes = self._inode_bits(group, descriptor.inode_bitmap, fields)
        if count - inodes.bit_count() != descriptor.free_inodes:
            raise self._fs.not_believed(
                f"group {group}: {count - inodes.bit_count()} of its inodes are free, while its descriptor says "
                f"{descriptor.free_inodes}"
            )
        unused = _joined(fields, "bg_itable_unused") if self._fs.checksums.cover_descriptors else 0
        if inodes >> max(count - unused, 0):
            raise self._fs.not_believed(f"group {group}: inodes are in use that its descriptor marks as never used")
        return GroupState(clusters, inodes, _joined(fields, "bg_used_dirs_count"), unused, descriptor.flags)

    def _inode_bits(self, group: int, block: int, fields: dict[str, Any]) -> int:
        count, checksums = self._fs.geometry.inodes_per_group, self._fs.checksums
        data = self._fs.read(block)
        stored = halves(self._record, "bg_inode_bitmap_csum", checksums.bitmap(data[: count // 8]))
        if checksums.active and any(fields[name] != value for name, value in stored.items()):
            raise self._fs.not_believed(f"group {group}: the checksum of its inode bitmap is wrong")
        return int.from_bytes(data, "little") & (1 << count) - 1

    def _fields(self, group: int) -> dict[str, Any]:
        block, offset = self.location(group)
        return self._record.unpack(self._fs.read(block), offset)

    def location(self, group: int) -> tuple[int, int]:
        """Return the block and the offset there of a descriptor."""
        number, index = divmod(group, self._fs.geometry.desc_per_block)
        return self._fs.geometry.descriptor_block(number), index * self._fs.geometry.desc_size

    def _written(self, group: int, state: GroupState, stored: GroupState) -> Iterator[tuple[int, int, bytes]]:
        geometry, checksums = self._fs.geometry, self._fs.checksums
        descriptor = read_descriptor(self._fs, group)
        values: dict[str, Value] = {}
        initialised = stored.flags & ~state.flags
        if state.clusters != stored.clusters or initialised & layout.BLOCK_UNINIT:
            data = bitmap_of(state.clusters, self.clusters(group), geometry.block_size)
            yield descriptor.block_bitmap, 0, data
            free = self.clusters(group) - state.clusters.bit_count()
            values |= halves(self._record, "bg_free_blocks_count", free)
            if checksums.active:
                values |= block_bitmap_checksum(geometry, checksums, data)
        if state.inodes != stored.inodes or initialised & layout.INODE_UNINIT:
            count = geometry.inodes_per_group
            data = bitmap_of(state.inodes, count, geometry.block_size)
            yield descriptor.inode_bitmap, 0, data
            values |= halves(self._record, "bg_free_inodes_count", count - state.inodes.bit_count())
            values |= halves(self._record, "bg_used_dirs_count", state.directories)
            if checksums.active:
                values |= halves(self._record, "bg_inode_bitmap_csum", checksums.bitmap(data[: count // 8]))
        if checksums.cover_descriptors:
            values |= halves(self._record, "bg_itable_unused", state.unused_inodes) | {"bg_flags": state.flags}
        block, offset = self.location(group)
        table = bytearray(self._fs.read(block)[offset : offset + geometry.desc_size])
        self._record.put(table, values)
        checksums.descriptors(table, geometry.desc_size, group)
        yield block, offset, bytes(table)


def _joined(fields: dict[str, Any], name: str) -> int:
    return int(fields[name + "_lo"] | fields.get(name + "_hi", 0) << 16)
