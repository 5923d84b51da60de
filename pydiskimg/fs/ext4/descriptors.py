# SPDX-License-Identifier: MIT
"""The group descriptors of an existing file system, one after another (group_descr.rst)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from pydiskimg.fs.ext4 import layout
from pydiskimg.fs.ext4.checksums import descriptor_checksums
from pydiskimg.fs.ext4.crc16 import crc16
from pydiskimg.fs.ext4.existing import Division
from pydiskimg.fs.ext4.features import Incompat
from pydiskimg.protocols import Source, read_bytes

_BLOCKS_AT_ONCE = 32
_CHECKSUM = layout.GROUP_DESCRIPTOR_64.offsets["bg_checksum"]


@dataclass(frozen=True, slots=True)
class Descriptor:
    """What a descriptor says; block_bitmap, inode_bitmap and inode_table are blocks, free_blocks counts clusters.

    is_intact is False when its checksum does not hold: then nothing it says is to be relied on.
    """

    group: int
    block_bitmap: int
    inode_bitmap: int
    inode_table: int
    free_blocks: int
    free_inodes: int
    flags: int
    bitmap_checksum: int
    is_intact: bool


def read_descriptors(source: Source, volume: Division) -> Iterator[Descriptor]:
    """Yield all descriptors in the order of their groups; a few blocks are held at a time. Raises as reading does."""
    group = 0
    for data in _tables(source, volume):
        table = data[: (volume.groups - group) * volume.desc_size]
        intact = _intact(table, volume, group)
        for index in range(len(table) // volume.desc_size):
            yield _descriptor(table, index * volume.desc_size, volume, group, intact[index])
            group += 1


def read_descriptor(source: Source, volume: Division, group: int) -> Descriptor:
    """Return the descriptor of one group. Raises as reading does."""
    block, index = divmod(group, volume.desc_per_block)
    at = volume.descriptor_block(block) * volume.block_size + index * volume.desc_size
    data = read_bytes(source, at, volume.desc_size)
    return _descriptor(data, 0, volume, group, _intact(data, volume, group)[0])


def _tables(source: Source, volume: Division) -> Iterator[bytes]:
    """Yield the table of descriptors, some neighbouring blocks at a time."""
    number = 0
    while number < volume.desc_blocks:
        first = volume.descriptor_block(number)
        count = 1
        while count < min(_BLOCKS_AT_ONCE, volume.desc_blocks - number):
            if volume.descriptor_block(number + count) != first + count:
                break
            count += 1
        yield read_bytes(source, first * volume.block_size, count * volume.block_size)
        number += count


def _intact(table: bytes, volume: Division, first_group: int) -> list[bool]:
    """Tell for each descriptor in table whether its checksum holds."""
    size = volume.desc_size
    count = len(table) // size
    if not volume.has_uninitialised_groups:
        return [True] * count
    stored = [int.from_bytes(table[at : at + 2], "little") for at in range(_CHECKSUM, len(table), size)]
    return [found == value for found, value in zip(_checksums(table, volume, first_group), stored, strict=True)]


def seal(table: bytearray, volume: Division, first_group: int) -> None:
    """Fill in the checksums of the descriptors in table, numbered from first_group, where the file system has them."""
    if volume.has_uninitialised_groups:
        for index, value in enumerate(_checksums(bytes(table), volume, first_group)):
            at = index * volume.desc_size + _CHECKSUM
            table[at : at + 2] = value.to_bytes(2, "little")


def _checksums(table: bytes, volume: Division, first_group: int) -> list[int]:
    """Return the checksum that each descriptor in table should have."""
    size = volume.desc_size
    if volume.has_checksums:
        low, high = descriptor_checksums(table, size, first_group, volume.checksum_seed)
        return [one | other << 8 for one, other in zip(low, high, strict=True)]
    seed = crc16(volume.uuid)
    return [
        crc16(
            _covered(table[index * size : (index + 1) * size]), crc16((first_group + index).to_bytes(4, "little"), seed)
        )
        for index in range(len(table) // size)
    ]


def _covered(descriptor: bytes) -> bytes:
    """What CRC-16 covers: the checksum's own field is left out, where crc32c takes it as zero."""
    return descriptor[:_CHECKSUM] + descriptor[_CHECKSUM + 2 :]


def _descriptor(table: bytes, at: int, volume: Division, group: int, is_intact: bool) -> Descriptor:
    is_long = volume.desc_size >= layout.GROUP_DESCRIPTOR_64.size
    record = layout.GROUP_DESCRIPTOR_64 if is_long else layout.GROUP_DESCRIPTOR_32
    fields = record.unpack(table, at)

    def joined(name: str, bits: int) -> int:
        low, high = fields[f"{name}_lo"], fields[f"{name}_hi"] if is_long else 0
        assert isinstance(low, int)
        assert isinstance(high, int)
        return low | high << bits

    flags = fields["bg_flags"]
    assert isinstance(flags, int)
    return Descriptor(
        group,
        joined("bg_block_bitmap", 32),
        joined("bg_inode_bitmap", 32),
        joined("bg_inode_table", 32),
        joined("bg_free_blocks_count", 16),
        joined("bg_free_inodes_count", 16),
        flags if volume.has_uninitialised_groups else 0,
        joined("bg_block_bitmap_csum", 16),
        is_intact,
    )


def location_problem(volume: Division, descriptor: Descriptor) -> str | None:
    """Return why the places that a descriptor names cannot be right, or None."""
    if not descriptor.is_intact:
        return "the checksum of its descriptor does not hold"
    first, end = volume.first_data_block, volume.blocks
    if Incompat.FLEX_BG not in volume.incompat:
        first, end = volume.group_start(descriptor.group), volume.group_end(descriptor.group)
    for what, block, count in locations(volume, descriptor):
        if not first <= block <= end - count:
            return f"its {what} is at block {block}, outside of {first} to {end}"
    return None


def locations(volume: Division, descriptor: Descriptor) -> tuple[tuple[str, int, int], ...]:
    """Return what a group's own metadata is, at which block, of how many blocks."""
    return (
        ("block bitmap", descriptor.block_bitmap, 1),
        ("inode bitmap", descriptor.inode_bitmap, 1),
        ("inode table", descriptor.inode_table, volume.inode_blocks),
    )
