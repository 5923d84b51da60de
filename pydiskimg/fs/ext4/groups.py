# SPDX-License-Identifier: MIT
"""The descriptors, bitmaps and inode tables of new groups: of a whole file system, or added when one grows."""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from pydiskimg.fs.ext4 import layout
from pydiskimg.fs.ext4.bitmaps import Run, bitmap, total
from pydiskimg.fs.ext4.blocks import BlockWriter, joined
from pydiskimg.fs.ext4.checksums import Checksums
from pydiskimg.fs.ext4.descriptors import descriptor_record, halves
from pydiskimg.fs.ext4.geometry import Geometry
from pydiskimg.fs.ext4.placement import Pattern, Placement
from pydiskimg.protocols import Disk
from pydiskimg.records import Value

_GROUPS_PER_PIECE = 1 << 15  # 2 MiB of descriptors; a multiple of the descriptors in any block
_POINTERS = ("bg_block_bitmap", "bg_inode_bitmap", "bg_inode_table")


def empty_group(
    geometry: Geometry, checksums: Checksums, free_blocks: int, block_bitmap: bytes | None, flags: int = 0
) -> dict[str, Value]:
    """Return the fields of the descriptor of a group without inodes, except the locations of its metadata.

    block_bitmap is None if it is not written; flags are set in addition to the one that says so.
    """
    record = descriptor_record(geometry)
    fields = halves(record, "bg_free_blocks_count", free_blocks)
    fields |= halves(record, "bg_free_inodes_count", geometry.inodes_per_group)
    if checksums.cover_descriptors:
        fields |= halves(record, "bg_itable_unused", geometry.inodes_per_group)
        fields["bg_flags"] = flags | layout.INODE_UNINIT | (0 if block_bitmap else layout.BLOCK_UNINIT)
    return fields | block_bitmap_checksum(geometry, checksums, block_bitmap or b"")


def block_bitmap_checksum(geometry: Geometry, checksums: Checksums, bitmap: bytes) -> dict[str, Value]:
    """Return the fields of a descriptor with the checksum of a block bitmap; b"" if it is not written."""
    value = checksums.bitmap(bitmap[: geometry.clusters_per_group // 8]) if bitmap else 0
    return halves(descriptor_record(geometry), "bg_block_bitmap_csum", value)


@dataclass(frozen=True, slots=True)
class InodeUse:
    """The use of a group's inodes: ascending runs of those in use, from 0 on, and the number of directories."""

    runs: Sequence[Run]
    directories: int


ONLY_ROOT = {0: InodeUse([(0, layout.FIRST_INODE)], 2)}
"""The use of inodes, by group, in a file system with only the directories / and /lost+found."""


@dataclass(frozen=True, slots=True)
class _Prepared:
    """A pattern as bytes: descriptors without block numbers, and bitmaps by block, counted from its start."""

    descriptors: bytes
    pattern: Pattern
    bitmaps: list[tuple[int, bytes]]
    free_blocks: int


class Groups:
    """Writes every group's descriptor, bitmaps and (without lazy initialisation) empty inode table.

    tables_are_zero means that unwritten inode tables read as zero, so that the kernel need not clear them. inode_use is
    by group; the caller writes these inodes.
    """

    def __init__(
        self,
        geometry: Geometry,
        placement: Placement,
        checksums: Checksums,
        writer: BlockWriter,
        *,
        tables_are_zero: bool,
        inode_use: Mapping[int, InodeUse] = ONLY_ROOT,
    ) -> None:
        self._geometry = geometry
        self._placement = placement
        self._checksums = checksums
        self._writer = writer
        self._lazy = checksums.cover_descriptors
        self._flags = layout.INODE_ZEROED if tables_are_zero else 0
        self._record = descriptor_record(geometry)
        self._inode_use = inode_use
        self._prepared: dict[int, _Prepared] = {}
        self.metadata_blocks = geometry.blocks - geometry.first_data_block
        """Blocks in use by the groups themselves; right after write()."""

    def zero_tables(self) -> None:
        """Zero the inode tables that the descriptors will not mark as uninitialised, before inodes are written."""
        if self._lazy:
            return
        for flex in range(self._placement.flex_groups):
            start = self._placement.flex_start(flex)
            for block in self._placement.pattern(flex).inode_tables:
                self._writer.zero(start + block, self._geometry.inode_blocks)

    def write(self) -> None:
        """Write all groups except their inode tables. Memory does not depend on their number."""
        geometry = self._geometry
        per_piece = _GROUPS_PER_PIECE // geometry.flex_size
        changed = self._changed_groups()
        for first in range(0, self._placement.flex_groups, per_piece):
            flexes = range(first, min(first + per_piece, self._placement.flex_groups))
            table = self._piece(flexes)
            first_group = first * geometry.flex_size
            for group, values in changed.items():
                at = (group - first_group) * self._record.size
                if 0 <= at < len(table):
                    self._record.put(table, values, at)
            self._checksums.descriptors(table, self._record.size, first_group)
            self._write_table(table, first_group // geometry.desc_per_block)
        for group in changed:
            self._write_bitmaps(group)

    def _piece(self, flexes: range) -> bytearray:
        """Write the bitmaps of some flex groups and return their descriptors."""
        parts: list[bytes] = []
        pointers: tuple[list[int], list[int], list[int]] = ([], [], [])
        for flex in flexes:
            prepared = self._prepare(self._placement.pattern(flex))
            start = self._placement.flex_start(flex)
            parts.append(prepared.descriptors)
            pattern = prepared.pattern
            pointers[0].extend([start + block for block in pattern.block_bitmaps])
            pointers[1].extend([start + block for block in pattern.inode_bitmaps])
            pointers[2].extend([start + block for block in pattern.inode_tables])
            self.metadata_blocks -= prepared.free_blocks
            for block, data in prepared.bitmaps:
                self._writer.write(start + block, data)
        table = bytearray(b"".join(parts))
        for name, column in zip(_POINTERS, pointers, strict=True):
            self._put_pointers(table, name, column)
        return table

    def _put_pointers(self, table: bytearray, name: str, blocks: list[int]) -> None:
        size = self._record.size
        numbers = struct.pack(f"<{len(blocks)}Q", *blocks)
        suffixes = [suffix for suffix in ("_lo", "_hi") if name + suffix in self._record.offsets]
        for half, suffix in enumerate(suffixes):
            at = self._record.offsets[name + suffix]
            for index in range(4):
                table[at + index :: size] = numbers[4 * half + index :: 8]

    def _write_table(self, table: bytearray, first_block: int) -> None:
        size = self._geometry.block_size
        table.extend(bytes(-len(table) % size))
        view, end = memoryview(table), first_block + len(table) // size
        for numbers in self._geometry.descriptor_pieces(end - first_block, first_block):
            if numbers.start >= end:
                break
            data = view[(numbers.start - first_block) * size : (numbers.stop - first_block) * size]
            for copy in self._geometry.descriptor_copies(numbers.start):
                self._writer.write(copy, data)

    def _prepare(self, pattern: Pattern) -> _Prepared:
        found = self._prepared.get(id(pattern))
        if found is None:
            found = self._prepared[id(pattern)] = self._prepare_new(pattern)
        return found

    def _prepare_new(self, pattern: Pattern) -> _Prepared:
        geometry = self._geometry
        descriptors, bitmaps, free = [], {}, 0
        empty = bitmap([], geometry.inodes_per_group, geometry.block_size)
        for group, size in enumerate(pattern.sizes):
            runs = pattern.used_in(group, geometry.blocks_per_group)
            free += size - total(runs)
            data = bitmap(runs, size, geometry.block_size)
            written = pattern.initialised[group] or not self._lazy
            if written:
                bitmaps[pattern.block_bitmaps[group]] = data
            if not self._lazy:
                bitmaps[pattern.inode_bitmaps[group]] = empty
            descriptors.append(self._record.pack(**self._values(size - total(runs), data if written else None)))
        return _Prepared(b"".join(descriptors), pattern, [*joined(bitmaps, geometry.block_size)], free)

    def _values(self, free_blocks: int, block_bitmap: bytes | None) -> dict[str, Value]:
        return empty_group(self._geometry, self._checksums, free_blocks, block_bitmap, self._flags)

    def _block_bitmap(self, group: int) -> bytes:
        geometry = self._geometry
        return bitmap(self._placement.used_in(group), geometry.group_size(group), geometry.block_size)

    def _inode_bitmap(self, use: InodeUse) -> bytes:
        return bitmap(use.runs, self._geometry.inodes_per_group, self._geometry.block_size)

    def _changed_groups(self) -> dict[int, dict[str, Value]]:
        """Return the descriptor fields of the groups where something was allocated or has an inode."""
        changed = {
            group: self._values(self._placement.free_in(group), self._block_bitmap(group))
            for group in sorted({*self._inode_use, *self._placement.touched()})
        }
        for group, use in self._inode_use.items():
            changed[group] |= self._inode_values(use)
        return changed

    def _inode_values(self, use: InodeUse) -> dict[str, Value]:
        inodes = self._geometry.inodes_per_group
        values = halves(self._record, "bg_free_inodes_count", inodes - total(use.runs))
        values |= halves(self._record, "bg_used_dirs_count", use.directories)
        if self._lazy:
            checksum = self._checksums.bitmap(self._inode_bitmap(use)[: inodes // 8])
            values |= halves(self._record, "bg_itable_unused", inodes - use.runs[-1][1])
            values |= halves(self._record, "bg_inode_bitmap_csum", checksum) | {"bg_flags": self._flags}
        return values

    def _write_bitmaps(self, group: int) -> None:
        """Write the bitmaps of a group where something was allocated or has an inode."""
        flex, index = divmod(group, self._geometry.flex_size)
        pattern, start = self._placement.pattern(flex), self._placement.flex_start(flex)
        self._writer.write(start + pattern.block_bitmaps[index], self._block_bitmap(group))
        if group in self._inode_use:
            self._writer.write(start + pattern.inode_bitmaps[index], self._inode_bitmap(self._inode_use[group]))


class AddedGroups:
    """The groups that are added to a file system, from number first on: each holds its own bitmaps and inode table.

        | superblock, descriptors, reserve (some groups) | block bitmap | inode bitmap | inode table | free ...

    The smaller file system uses none of these blocks.
    """

    def __init__(self, grown: Geometry, first: int, checksums: Checksums) -> None:
        self._grown = grown
        self._first = first
        self._checksums = checksums
        self._lazy = checksums.cover_descriptors
        self._bitmaps: dict[tuple[int, int], bytes] = {}

    def free_clusters(self, group: int) -> int:
        grown = self._grown
        return grown.group_clusters(group) - grown.clusters_in(grown.group_overhead(group))

    def descriptor(self, group: int) -> bytes:
        """Return the descriptor of a group, without its checksum."""
        grown, record = self._grown, descriptor_record(self._grown)
        written = self._block_bitmap(group) if self._is_written(group) else None
        fields = empty_group(grown, self._checksums, self.free_clusters(group), written)
        block_bitmap = grown.group_start(group) + grown.group_head(group)
        for distance, name in enumerate(_POINTERS):
            fields |= halves(record, name, block_bitmap + distance)
        return record.pack(**fields).ljust(grown.desc_size, b"\0")

    def write(self, disk: Disk) -> None:
        """Write the bitmaps and inode tables that the descriptors do not mark as uninitialised.

        Errors as for writing.
        """
        grown = self._grown
        no_inodes = bitmap([], grown.inodes_per_group, grown.block_size)
        for group in filter(self._is_written, range(self._first, grown.groups)):
            at = (grown.group_start(group) + grown.group_head(group)) * grown.block_size
            disk.write(at, self._block_bitmap(group) + (b"" if self._lazy else no_inodes))
            if not self._lazy:  # old contents of the disk must not be taken for inodes
                disk.zero(at + 2 * grown.block_size, grown.inode_blocks * grown.block_size)

    def _is_written(self, group: int) -> bool:
        """True if the group's block bitmap is written; that of the last group marks the blocks that do not exist.

        Without a written bitmap, kernel versions differ in which clusters they take as used when metadata shares
        clusters.
        """
        return not self._lazy or group == self._grown.groups - 1 or self._grown.cluster_blocks > 1

    def _block_bitmap(self, group: int) -> bytes:
        grown = self._grown
        key = (grown.clusters_in(grown.group_overhead(group)), grown.group_clusters(group))
        if key not in self._bitmaps:
            self._bitmaps[key] = bitmap([(0, key[0])], key[1], grown.block_size)
        return self._bitmaps[key]
