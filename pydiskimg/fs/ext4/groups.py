# SPDX-License-Identifier: MIT
"""The group descriptors and bitmaps of the whole file system, written piece by piece."""

from __future__ import annotations

import struct
from dataclasses import dataclass

from pydiskimg.fs.ext4 import layout
from pydiskimg.fs.ext4.blockwriter import BlockWriter
from pydiskimg.fs.ext4.checksums import Checksums
from pydiskimg.fs.ext4.geometry import Geometry
from pydiskimg.fs.ext4.placement import Pattern, Placement, Run, total

_GROUPS_PER_PIECE = 1 << 15  # 2 MiB of descriptors; a multiple of the descriptors in any block
_POINTERS = ("bg_block_bitmap", "bg_inode_bitmap", "bg_inode_table")


def bitmap(runs: list[Run], count: int, block_size: int) -> bytes:
    """Return a bitmap block with the bits of runs set, and those from count on, which stand for nothing."""
    bits = (1 << block_size * 8) - (1 << count)
    for first, last in runs:
        bits |= (1 << last) - (1 << first)
    return bits.to_bytes(block_size, "little")


@dataclass(frozen=True, slots=True)
class _Prepared:
    """A pattern as bytes: descriptors without block numbers, and bitmaps and tables by block from its start."""

    descriptors: bytes
    pattern: Pattern
    bitmaps: list[tuple[int, bytes]]
    tables: list[tuple[int, int]]
    free_blocks: int


class Groups:
    """Writes every group's descriptor, bitmaps and (without lazy initialisation) empty inode table.

    tables_are_zero says that unwritten inode tables read as zero, so that the kernel need not clear them.
    """

    def __init__(
        self,
        geometry: Geometry,
        placement: Placement,
        checksums: Checksums,
        writer: BlockWriter,
        *,
        tables_are_zero: bool,
    ) -> None:
        self._geometry = geometry
        self._placement = placement
        self._checksums = checksums
        self._writer = writer
        self._lazy = geometry.features.checksums
        self._flags = (layout.INODE_ZEROED if tables_are_zero else 0) if self._lazy else 0
        self._record = layout.GROUP_DESCRIPTOR_64 if geometry.features.bits64 else layout.GROUP_DESCRIPTOR_32
        self._prepared: dict[int, _Prepared] = {}
        self.metadata_blocks = geometry.blocks - geometry.first_data_block
        """Blocks in use by the groups themselves; right after write()."""

    def write(self) -> None:
        """Write all groups. Memory does not depend on their number."""
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
        """Write the bitmaps and tables of some flex groups and return their descriptors."""
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
            for block, count in prepared.tables:
                self._writer.zero(start + block, count)
        table = bytearray(b"".join(parts))
        for name, column in zip(_POINTERS, pointers, strict=True):
            self._put_pointers(table, name, column)
        return table

    def _put_pointers(self, table: bytearray, name: str, blocks: list[int]) -> None:
        size = self._record.size
        numbers = struct.pack(f"<{len(blocks)}Q", *blocks)
        halves = ("_lo", "_hi") if size == 64 else ("_lo",)
        for half, suffix in enumerate(halves):
            at = self._record.offsets[name + suffix]
            for index in range(4):
                table[at + index :: size] = numbers[4 * half + index :: 8]

    def _write_table(self, table: bytearray, first_block: int) -> None:
        geometry = self._geometry
        table.extend(bytes(-len(table) % geometry.block_size))
        if not geometry.features.meta_bg:
            for copy in geometry.descriptor_copies(first_block):
                self._writer.write(copy, table)
            return
        view = memoryview(table)
        for index in range(len(table) // geometry.block_size):
            data = view[index * geometry.block_size : (index + 1) * geometry.block_size]
            for copy in geometry.descriptor_copies(first_block + index):
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
        tables = [] if self._lazy else [(block, geometry.inode_blocks) for block in pattern.inode_tables]
        return _Prepared(b"".join(descriptors), pattern, _joined(bitmaps, geometry.block_size), tables, free)

    def _values(self, free_blocks: int, block_bitmap: bytes | None) -> dict[str, int | bytes]:
        """Return a descriptor's fields for a group without inodes; no bitmap: it is not written."""
        geometry = self._geometry
        values: dict[str, int | bytes] = {
            "bg_free_blocks_count_lo": free_blocks,
            "bg_free_inodes_count_lo": geometry.inodes_per_group,
        }
        if self._lazy:
            values["bg_itable_unused_lo"] = geometry.inodes_per_group
            values["bg_flags"] = self._flags | layout.INODE_UNINIT | (0 if block_bitmap else layout.BLOCK_UNINIT)
            values |= self._bitmap_checksum("block", block_bitmap, geometry.blocks_per_group)
        return values

    def _bitmap_checksum(self, what: str, data: bytes | None, bits: int) -> dict[str, int | bytes]:
        value = self._checksums.bitmap(data[: bits // 8]) if data else 0
        fields: dict[str, int | bytes] = {f"bg_{what}_bitmap_csum_lo": value & 0xFFFF}
        if self._record.size == 64:
            fields[f"bg_{what}_bitmap_csum_hi"] = value >> 16
        return fields

    def _block_bitmap(self, group: int) -> bytes:
        geometry = self._geometry
        size = geometry.group_end(group) - geometry.group_start(group)
        return bitmap(self._placement.used_in(group), size, geometry.block_size)

    def _inode_bitmap(self) -> bytes:
        """The inode bitmap of group 0."""
        return bitmap([(0, layout.FIRST_INODE)], self._geometry.inodes_per_group, self._geometry.block_size)

    def _changed_groups(self) -> dict[int, dict[str, int | bytes]]:
        """Return the descriptor fields of the groups where something was allocated, group 0 among them."""
        geometry = self._geometry
        changed = {
            group: self._values(self._placement.free_in(group), self._block_bitmap(group))
            for group in sorted({0, *self._placement.touched()})
        }
        free_inodes = geometry.inodes_per_group - layout.FIRST_INODE
        changed[0] |= {"bg_free_inodes_count_lo": free_inodes, "bg_used_dirs_count_lo": 2}
        if self._lazy:
            changed[0] |= {"bg_itable_unused_lo": free_inodes, "bg_flags": self._flags}
            changed[0] |= self._bitmap_checksum("inode", self._inode_bitmap(), geometry.inodes_per_group)
        return changed

    def _write_bitmaps(self, group: int) -> None:
        """Write the bitmaps of a group where something was allocated."""
        flex, index = divmod(group, self._geometry.flex_size)
        pattern, start = self._placement.pattern(flex), self._placement.flex_start(flex)
        self._writer.write(start + pattern.block_bitmaps[index], self._block_bitmap(group))
        if not group:
            self._writer.write(start + pattern.inode_bitmaps[index], self._inode_bitmap())


def _joined(blocks: dict[int, bytes], block_size: int) -> list[tuple[int, bytes]]:
    """Join the contents of neighbouring blocks, so that each run is one write."""
    runs: list[tuple[int, bytearray]] = []
    for block in sorted(blocks):
        if runs and runs[-1][0] + len(runs[-1][1]) // block_size == block:
            runs[-1][1].extend(blocks[block])
        else:
            runs.append((block, bytearray(blocks[block])))
    return [(block, bytes(data)) for block, data in runs]
