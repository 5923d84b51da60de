# SPDX-License-Identifier: MIT
"""Read the group descriptors one after another, and define the fields of new ones (group_descr.rst)."""

from __future__ import annotations

from pydiskimg.fs.ext4 import layout
from pydiskimg.fs.ext4.features import Incompat
from pydiskimg.fs.ext4.file_system import FileSystem
from pydiskimg.fs.ext4.geometry import Geometry
from pydiskimg.protocols import read_bytes
from pydiskimg.records import Record, Value
from pydiskimg.startup import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from typing import Any

_BLOCKS_AT_ONCE = 32


class Descriptor:
    """The fields of a descriptor; block_bitmap, inode_bitmap and inode_table are blocks, free_blocks counts clusters.

    is_intact is False if its checksum is wrong; no field can be relied on then.
    """

    __slots__ = (
        *("group", "block_bitmap", "inode_bitmap", "inode_table", "free_blocks", "free_inodes", "flags"),
        *("bitmap_checksum", "is_intact", "directories", "unused_inodes", "inode_bitmap_checksum"),
    )

    def __init__(self, group: int, fields: Mapping[str, Any], *, is_intact: bool, has_flags: bool) -> None:
        """fields are the record's; has_flags says whether its flags, and the fields that depend on them, are used."""
        self.group = group
        self.block_bitmap = _joined(fields, "bg_block_bitmap", 32)
        self.inode_bitmap = _joined(fields, "bg_inode_bitmap", 32)
        self.inode_table = _joined(fields, "bg_inode_table", 32)
        self.free_blocks = _joined(fields, "bg_free_blocks_count", 16)
        self.free_inodes = _joined(fields, "bg_free_inodes_count", 16)
        self.flags = int(fields["bg_flags"]) if has_flags else 0
        self.bitmap_checksum = _joined(fields, "bg_block_bitmap_csum", 16)
        self.is_intact = is_intact
        self.directories = _joined(fields, "bg_used_dirs_count", 16)
        self.unused_inodes = _joined(fields, "bg_itable_unused", 16) if has_flags else 0
        self.inode_bitmap_checksum = _joined(fields, "bg_inode_bitmap_csum", 16)


def descriptor_record(geometry: Geometry) -> Record:
    """Return the record of the file system's descriptors; they may be longer, with zeros at the end."""
    is_long = geometry.desc_size >= layout.GROUP_DESCRIPTOR_64.size
    return layout.GROUP_DESCRIPTOR_64 if is_long else layout.GROUP_DESCRIPTOR_32


def halves(record: Record, name: str, number: int) -> dict[str, Value]:
    """Return a number as the fields of a descriptor that hold it, the low bits first."""
    bits = _HALF_BITS[record.codes[f"{name}_lo"]]
    fields: dict[str, Value] = {f"{name}_lo": number & (1 << bits) - 1}
    if f"{name}_hi" in record.offsets:
        fields[f"{name}_hi"] = number >> bits
    return fields


_HALF_BITS = {"I": 32, "H": 16}


def read_descriptors(fs: FileSystem) -> Iterator[Descriptor]:
    """Yield all descriptors in the order of their groups; a few blocks are held in memory. Raises as reading does."""
    geometry = fs.geometry
    group = 0
    for numbers in geometry.descriptor_pieces(_BLOCKS_AT_ONCE):
        data = fs.read(geometry.descriptor_block(numbers.start), len(numbers))
        table = data[: (geometry.groups - group) * geometry.desc_size]
        for descriptor in _descriptors(table, fs, group):
            yield descriptor
            group += 1


def read_descriptor(fs: FileSystem, group: int) -> Descriptor:
    """Return the descriptor of one group. Raises as reading does."""
    geometry = fs.geometry
    number, index = divmod(group, geometry.desc_per_block)
    at = geometry.descriptor_block(number) * geometry.block_size + index * geometry.desc_size
    return next(_descriptors(read_bytes(fs.source, at, geometry.desc_size), fs, group))


def _descriptors(table: bytes, fs: FileSystem, first_group: int) -> Iterator[Descriptor]:
    size, record = fs.geometry.desc_size, descriptor_record(fs.geometry)
    for index, is_intact in enumerate(fs.checksums.descriptors_hold(table, size, first_group)):
        fields = record.unpack(table, index * size)
        yield Descriptor(first_group + index, fields, is_intact=is_intact, has_flags=fs.checksums.cover_descriptors)


def _joined(fields: Mapping[str, Any], name: str, bits: int) -> int:
    return int(fields[name + "_lo"] | fields.get(name + "_hi", 0) << bits)


def location_problem(geometry: Geometry, descriptor: Descriptor) -> str | None:
    """Return why the blocks in a descriptor cannot be correct, or None."""
    if not descriptor.is_intact:
        return "the checksum of its descriptor is wrong"
    first, end = geometry.first_data_block, geometry.blocks
    if Incompat.FLEX_BG not in geometry.features:
        first, end = geometry.group_start(descriptor.group), geometry.group_end(descriptor.group)
    for what, block, count in locations(geometry, descriptor):
        if not first <= block <= end - count:
            return f"its {what} is at block {block}, outside of {first} to {end}"
    return None


def locations(geometry: Geometry, descriptor: Descriptor) -> tuple[tuple[str, int, int], ...]:
    """Return the kinds of a group's own metadata, with their first blocks and their numbers of blocks."""
    return (
        ("block bitmap", descriptor.block_bitmap, 1),
        ("inode bitmap", descriptor.inode_bitmap, 1),
        ("inode table", descriptor.inode_table, geometry.inode_blocks),
    )
