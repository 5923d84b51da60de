# SPDX-License-Identifier: MIT
"""The layouts: sizes and offsets that the specification names, and Record's own checks."""

from __future__ import annotations

import pytest

from pydiskimg.fs.ext4 import layout
from pydiskimg.records import Record


@pytest.mark.parametrize(
    ("record", "size"),
    [
        (layout.SUPERBLOCK, 1024),
        (layout.GROUP_DESCRIPTOR_32, 32),
        (layout.GROUP_DESCRIPTOR_64, 64),
        (layout.INODE, 256),
        (layout.EXTENT_HEADER, 12),
        (layout.EXTENT, 12),
        (layout.EXTENT_INDEX, 12),
        (layout.DIRECTORY_ENTRY, 8),
        (layout.DIRECTORY_TAIL, 12),
        (layout.JOURNAL_SUPERBLOCK, 1024),
    ],
)
def test_sizes(record: Record, size: int) -> None:
    assert record.size == size == len(record.pack())
    assert record.pack() == bytes(size)


@pytest.mark.parametrize(
    ("record", "name", "offset"),
    [
        (layout.SUPERBLOCK, "s_magic", 0x38),
        (layout.SUPERBLOCK, "s_uuid", 0x68),
        (layout.SUPERBLOCK, "s_volume_name", 0x78),
        (layout.SUPERBLOCK, "s_desc_size", 0xFE),
        (layout.SUPERBLOCK, "s_checksum", 0x3FC),
        (layout.GROUP_DESCRIPTOR_64, "bg_checksum", 0x1E),
        (layout.GROUP_DESCRIPTOR_64, "bg_inode_bitmap_csum_hi", 0x3A),
        (layout.INODE, "i_block", 0x28),
        (layout.INODE, "i_checksum_hi", 0x82),
        (layout.INODE, "i_crtime", 0x90),
        (layout.JOURNAL_SUPERBLOCK, "s_checksum", 0xFC),
    ],
)
def test_offsets(record: Record, name: str, offset: int) -> None:
    assert record.offsets[name] == offset


def test_write_change_and_read_back() -> None:
    data = bytearray(b"x" * 4 + layout.EXTENT.pack(ee_block=7, ee_len=3, ee_start_lo=9))
    layout.EXTENT.put(data, {"ee_start_hi": 0x1234}, 4)
    assert data == b"xxxx\x07\0\0\0\x03\0\x34\x12\x09\0\0\0"
    assert layout.EXTENT.unpack(data, 4) == {"ee_block": 7, "ee_len": 3, "ee_start_hi": 0x1234, "ee_start_lo": 9}


def test_some_fields_are_packed_by_position() -> None:
    pack = layout.INODE.packer("i_mode", "i_block", "i_crtime")
    assert pack(0o100644, b"target", 5) == layout.INODE.pack(i_mode=0o100644, i_block=b"target", i_crtime=5)
    assert layout.JOURNAL_SUPERBLOCK.packer("h_magic")(layout.JOURNAL_MAGIC)[:4] == b"\xc0\x3b\x39\x98"


@pytest.mark.parametrize("fields", [("ee_len", "ee_block"), ("ee_block", "ee_lenn")])
def test_fields_in_disorder_are_not_packed(fields: tuple[str, ...]) -> None:
    with pytest.raises(AssertionError, match="ext4_extent"):
        layout.EXTENT.packer(*fields)


def test_the_journal_is_big_endian() -> None:
    assert layout.JOURNAL_SUPERBLOCK.pack(h_magic=layout.JOURNAL_MAGIC)[:4] == b"\xc0\x3b\x39\x98"


def test_an_unknown_field_is_an_error() -> None:
    with pytest.raises(KeyError, match="ext4_extent has no field ee_lenn"):
        layout.EXTENT.pack(ee_lenn=1)


def test_values_are_the_fields_in_the_order_of_the_table() -> None:
    fields = {"inode": 12, "rec_len": 16, "name_len": 3, "file_type": 1}
    data = b"before" + layout.DIRECTORY_ENTRY.pack(**fields)
    assert layout.DIRECTORY_ENTRY.values(data, 6) == (12, 16, 3, 1) == (*fields.values(),)
    assert layout.DIRECTORY_ENTRY.unpack(data, 6) == fields
