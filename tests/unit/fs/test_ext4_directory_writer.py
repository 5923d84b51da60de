# SPDX-License-Identifier: MIT
"""Directories made from their entries: trees of hashes, and what no tree is large enough for."""

from __future__ import annotations

from pydiskimg.fs.ext4 import layout
from pydiskimg.fs.ext4.checksums import Checksums
from pydiskimg.fs.ext4.directory_hash import DirectoryHash
from pydiskimg.fs.ext4.directory_writer import DirectoryEntry, DirectoryWriter
from pydiskimg.fs.ext4.features import FEATURES


class Colliding(DirectoryHash):
    """Gives ten names each the same hash."""

    def __call__(self, name: bytes) -> int:
        return int(name[:6]) // 10 * 2


def writer(block_size: int, hashing: DirectoryHash | None) -> DirectoryWriter:
    return DirectoryWriter(block_size, Checksums(FEATURES["ext4"], bytes(16)), hashing)


def entries(count: int, length: int) -> list[DirectoryEntry]:
    return [(number + 12, f"{number:06}".encode().ljust(length, b"n"), 1) for number in range(count)]


def test_the_hash_is_that_of_debugfs() -> None:
    """debugfs -R "dx_hash -h half_md4 NAME", and with the seed of a file system that it has open."""
    hashing = DirectoryHash(bytes(16), is_signed=True)
    assert hashing(b"hello_world_name_that_is_longer_than_32_bytes") == 0xCA06FF88
    assert hashing(b"\xff\xfe") != DirectoryHash(bytes(16), is_signed=False)(b"\xff\xfe")


def test_names_of_one_hash_go_on_in_the_next_leaf() -> None:
    made = writer(1024, Colliding(bytes(16), is_signed=True)).directory(2, 2, entries(300, 60))
    assert made.is_indexed
    count = layout.DX_COUNT_LIMIT.unpack(made.blocks[0], layout.DX_ROOT.size)["count"]
    table = [
        layout.DX_ENTRY.unpack(made.blocks[0], layout.DX_ROOT.size + index * layout.DX_ENTRY.size)
        for index in range(1, count)
    ]
    assert count == len(made.blocks) - 1
    for entry in table:
        last_before = layout.DIRECTORY_ENTRY.size
        first = int(made.blocks[entry["block"]][last_before : last_before + 6])
        goes_on = first % 10 != 0
        assert entry["hash"] == (first // 10 * 2 | goes_on)


def test_what_no_tree_is_large_enough_for_has_none() -> None:
    hashing = DirectoryHash(bytes(16), is_signed=True)
    made = writer(512, hashing).directory(2, 2, entries(59 * 62, 250))
    assert made.is_indexed
    assert len(made.blocks) == 1 + 59 + 59 * 62
    made = writer(512, hashing).directory(2, 2, entries(59 * 62 + 1, 250))
    assert not made.is_indexed
