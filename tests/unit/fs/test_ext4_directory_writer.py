# SPDX-License-Identifier: MIT
"""Directories made from their entries: trees of hashes, and what no tree is large enough for."""

from __future__ import annotations

import tracemalloc

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pydiskimg.fs.ext4 import layout
from pydiskimg.fs.ext4.checksums import Checksums
from pydiskimg.fs.ext4.directory_hash import COMPUTED_HASHES, DirectoryHash
from pydiskimg.fs.ext4.directory_writer import DirectoryEntry, DirectoryWriter
from pydiskimg.fs.ext4.features import FEATURES
from tests.fixtures.made_up_hashes import MadeUpHash


class Colliding(MadeUpHash):
    """Gives ten names each the same hash."""

    def __call__(self, name: bytes) -> int:
        return int(name[:6]) // 10 * 2


class Counted(MadeUpHash):
    """Computes the hash from a name's number, in another order than that of the numbers."""

    def __call__(self, name: bytes) -> int:
        return int(name[:6]) * 7919 % (1 << 20) * 2


class MadeOnDemand:
    """Entries that take no memory."""

    def __init__(self, count: int) -> None:
        self._count = count

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, index: int, /) -> DirectoryEntry:
        if index >= self._count:
            raise IndexError(index)
        return index + 12, b"%06d" % index, 1


def writer(block_size: int, hashing: DirectoryHash | None) -> DirectoryWriter:
    return DirectoryWriter(block_size, Checksums(FEATURES["ext4"], bytes(16)), hashing)


def entries(count: int, length: int) -> list[DirectoryEntry]:
    return [(number + 12, f"{number:06}".encode().ljust(length, b"n"), 1) for number in range(count)]


@pytest.mark.parametrize(
    ("version", "name", "expected"),
    [
        (layout.HASH_HALF_MD4, b"hello_world_name_that_is_longer_than_32_bytes", 0xCA06FF88),
        (layout.HASH_LEGACY, b"a", 0xE74B53E2),
        (layout.HASH_LEGACY, b"x" * 100, 0xF985A9F6),
        (layout.HASH_LEGACY, b"gr\xc3\xb6\xc3\x9fe-\xc3\x9f", 0xEC3D1FFC),
        (layout.HASH_HALF_MD4, b"a", 0xD5FA7D7A),
        (layout.HASH_HALF_MD4, b"x" * 100, 0x23AA98AC),
        (layout.HASH_HALF_MD4, b"gr\xc3\xb6\xc3\x9fe-\xc3\x9f", 0xAA3A39B6),
        (layout.HASH_TEA, b"a", 0x6D0EA4C0),
        (layout.HASH_TEA, b"x" * 100, 0x7353AB0E),
        (layout.HASH_TEA, b"gr\xc3\xb6\xc3\x9fe-\xc3\x9f", 0xABF8E830),
    ],
)
def test_the_hash_is_that_of_debugfs(version: int, name: bytes, expected: int) -> None:
    """debugfs -R "dx_hash -h half_md4 NAME", which reads bytes as signed numbers."""
    assert DirectoryHash(bytes(16), is_signed=True, version=version)(name) == expected


@pytest.mark.parametrize("version", [layout.HASH_LEGACY, layout.HASH_HALF_MD4, layout.HASH_TEA])
def test_the_sign_of_bytes_counts_from_0x80_on(version: int) -> None:
    signed, unsigned = (DirectoryHash(bytes(16), is_signed=one, version=version) for one in (True, False))
    assert signed(b"\xff\xfe") != unsigned(b"\xff\xfe")
    assert signed(b"\x7f\x7e") == unsigned(b"\x7f\x7e")


def test_a_large_directory_takes_few_bytes_for_each_name() -> None:
    """Lists of entries, of hashes and of finished blocks were 350 bytes for each."""
    count = 60_000
    hashing = Counted(bytes(16), is_signed=True)
    tracemalloc.start()
    try:
        made = writer(4096, hashing).directory(2, 2, MadeOnDemand(count))
        assert sum(1 for _ in made.blocks) == made.count > count // 250
        assert tracemalloc.get_traced_memory()[1] < 60 * count
    finally:
        tracemalloc.stop()


@given(
    names=st.lists(st.binary(min_size=1, max_size=255), max_size=40),
    seed=st.binary(min_size=16, max_size=16),
    is_signed=st.booleans(),
    version=st.sampled_from(sorted(COMPUTED_HASHES)),
)
def test_many_names_have_the_hashes_of_each(names: list[bytes], seed: bytes, is_signed: bool, version: int) -> None:
    hashing = DirectoryHash(seed, is_signed=is_signed, version=version)
    assert [*hashing.of_each(iter(names))] == [hashing(name) for name in names]


def test_more_names_than_are_hashed_at_once() -> None:
    hashing = DirectoryHash(bytes(16), is_signed=True)
    names = [b"%07d" % number * (1 + number % 9) for number in range(3000)]
    assert [*hashing.of_each(names)] == [hashing(name) for name in names]


def test_names_of_one_hash_go_on_in_the_next_leaf() -> None:
    made = writer(1024, Colliding(bytes(16), is_signed=True)).directory(2, 2, entries(300, 60))
    assert made.is_indexed
    blocks = [*made.blocks]
    count = layout.DX_COUNT_LIMIT.unpack(blocks[0], layout.DX_ROOT.size)["count"]
    table = [
        layout.DX_ENTRY.unpack(blocks[0], layout.DX_ROOT.size + index * layout.DX_ENTRY.size)
        for index in range(1, count)
    ]
    assert count == len(blocks) - 1 == made.count - 1
    for entry in table:
        last_before = layout.DIRECTORY_ENTRY.size
        first = int(blocks[entry["block"]][last_before : last_before + 6])
        goes_on = first % 10 != 0
        assert entry["hash"] == (first // 10 * 2 | goes_on)


def test_what_no_tree_is_large_enough_for_has_none() -> None:
    hashing = DirectoryHash(bytes(16), is_signed=True)
    made = writer(512, hashing).directory(2, 2, entries(59 * 62, 250))
    assert made.is_indexed
    assert len([*made.blocks]) == made.count == 1 + 59 + 59 * 62
    made = writer(512, hashing).directory(2, 2, entries(59 * 62 + 1, 250))
    assert not made.is_indexed
