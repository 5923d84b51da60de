# SPDX-License-Identifier: MIT
"""Block maps: older versions, and the messages about damaged and hostile ones."""

from __future__ import annotations

import hashlib

import pytest

from pydiskimg.disks.memory import MemoryDisk
from pydiskimg.errors import InvalidImageError, UnsupportedImageError, VerificationError
from pydiskimg.transfer.bmap import check_by_bmap, make_bmap, parse_bmap

SHA1 = hashlib.sha1(bytes(4096), usedforsecurity=False).hexdigest()
# What bmaptool 1.3 wrote: SHA-1, with an attribute of that name, and comments.
OLD = f"""<?xml version="1.0" ?>
<!-- a comment -->
<bmap version="1.3">
    <ImageSize> 10000 </ImageSize>
    <BlockSize> 4096 </BlockSize>
    <BlocksCount> 3 </BlocksCount>
    <MappedBlocksCount> 2 </MappedBlocksCount>
    <BlockMap>
        <Range sha1="{SHA1}"> 0 </Range>
        <Range> 2 </Range>
    </BlockMap>
</bmap>
"""


def test_version_1_has_sha1_and_may_have_ranges_without() -> None:
    found = parse_bmap(OLD.encode(), "old.bmap")
    assert (found.image_size, found.algorithm, found.checked_bytes) == (10000, "sha1", 4096)
    assert [(one.start, one.end, one.checksum) for one in found.ranges] == [(0, 4096, SHA1), (8192, 10000, None)]
    disk = MemoryDisk(10240)
    check_by_bmap(disk, found)
    disk.write(4095, b"x")
    with pytest.raises(VerificationError, match=r"bytes 0 to 4096 have the sha1 .*, expected"):
        check_by_bmap(disk, found)


def test_a_map_that_has_lost_a_range() -> None:
    with pytest.raises(InvalidImageError, match=r"its ranges have 1 blocks, and it states 2"):
        parse_bmap(OLD.replace("<Range> 2 </Range>", "").encode(), "old.bmap")


def test_a_map_of_ours_is_read_back_and_notices_a_change_of_itself() -> None:
    disk = MemoryDisk(3 * 4096 + 100, fill=7)
    made = make_bmap(disk)
    found = parse_bmap(made, "own.bmap")
    assert (found.image_size, found.algorithm, found.checked_bytes) == (disk.size, "sha256", disk.size)
    check_by_bmap(disk, found)
    with pytest.raises(InvalidImageError, match=r"its own sha256 is \w+, and it states"):
        parse_bmap(made.replace(b"<BlockSize> 4096", b"<BlockSize> 2048"), "own.bmap")


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (' version="1.3"', "", "expected bmap with a version"),
        ("</bmap>", "", "it is not XML"),
        ("<bmap", '<!DOCTYPE b [<!ENTITY a "b">]><bmap', "it has a document type"),
        (" 10000 ", " -1 ", "its ImageSize is -1, expected a number"),
        (" 4096 ", " 0 ", "in blocks of 0"),
        (" 4096 ", " 99999999999 ", "in blocks of 99999999999"),
        (" 10000 ", f" {1 << 64} ", "it states"),
        ("<Range> 2 <", "<Range> 0 <", "after one to block 1"),
        ("<Range> 2 <", "<Range> 2-1 <", "after one to block 1"),
        ("<Range> 2 <", "<Range> 9999999999 <", "after one to block 1"),
        ("<Range> 2 <", "<Range> x <", "expected such as 0-15"),
        ("<Range> 2 <", "<Range> 1-2-3 <", "expected such as 0-15"),
    ],
)
def test_a_damaged_map_gets_a_sentence(old: str, new: str, message: str) -> None:
    with pytest.raises(InvalidImageError, match=message):
        parse_bmap(OLD.replace(old, new, 1).encode(), "bad.bmap")


def test_later_versions_and_other_checksums_are_refused_by_name() -> None:
    with pytest.raises(UnsupportedImageError, match=r"version 3\.0, expected 1 or 2"):
        parse_bmap(OLD.replace("1.3", "3.0").encode(), "new.bmap")
    with pytest.raises(UnsupportedImageError, match="of the kind crc7"):
        parse_bmap(OLD.replace("<BlockMap>", "<ChecksumType> crc7 </ChecksumType><BlockMap>").encode(), "new.bmap")
