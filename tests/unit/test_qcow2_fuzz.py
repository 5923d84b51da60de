# SPDX-License-Identifier: MIT
"""Whatever the bytes: data or one of our errors, soon, and in little memory."""

from __future__ import annotations

import random
import time
import tracemalloc
from itertools import islice

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pydiskimg.errors import DiskImageError
from pydiskimg.formats.qcow2.reader import open_qcow2
from pydiskimg.protocols import read_bytes
from tests.fixtures.qcow2_images import BytesSource, Craft, compressed_entry, deflate

SECONDS = 2.0
MEMORY = 64 << 20


def small_image(version: int, cluster_bits: int) -> bytes:
    size = 1 << cluster_bits
    cluster = random.Random(cluster_bits).randbytes(size // 4) + bytes(size - size // 4)
    stored = deflate(cluster)
    craft = Craft(version=version, cluster_bits=cluster_bits, size=40 * size + 100, l2=[[0]])
    at = craft.data_offset
    zero = 1 if version == 3 else 0
    craft.l2 = [
        [1 << 63 | at, 1 << 63 | at + size, 0, zero, compressed_entry(cluster_bits, at + 2 * size, len(stored)), at]
    ]
    craft.data = cluster + cluster[::-1] + stored
    return craft.build()


IMAGES = [small_image(version, bits) for version in (2, 3) for bits in (9, 12, 16)]


def outcome(image: bytes) -> str:
    """Open, map and read as a caller would: "data" or "error"; another exception than ours fails the test."""
    complaint = ""
    try:
        use(image)
    except DiskImageError as error:
        complaint = str(error)
    assert not complaint or complaint.startswith("test.qcow2: ")
    assert len(complaint) < 500
    return "error" if complaint else "data"


def use(image: bytes) -> None:
    source = open_qcow2(BytesSource(image))
    for extent in islice(source.extents(), 2000):
        assert extent.length > 0
    for offset in (0, source.size // 2, max(0, source.size - (1 << 18))):
        read_bytes(source, offset, min(1 << 18, source.size - offset))


def hold_to_limits(image: bytes) -> None:
    start = time.monotonic()
    outcome(image)
    assert time.monotonic() - start < SECONDS


@settings(max_examples=300, deadline=None)
@given(
    image=st.sampled_from(IMAGES),
    changes=st.lists(st.tuples(st.integers(0, 1 << 16), st.integers(0, 255)), min_size=1, max_size=8),
    near=st.sampled_from([112, 2048, 1 << 16]),
    cut=st.one_of(st.none(), st.integers(0, 1 << 16)),
)
def test_changed_bytes(image: bytes, changes: list[tuple[int, int]], near: int, cut: int | None) -> None:
    changed = bytearray(image)
    for at, value in changes:
        changed[at % min(near, len(changed))] = value
    hold_to_limits(bytes(changed[:cut]))


INTERESTING = [
    0,
    1,
    2,
    511,
    512,
    1 << 31,
    (1 << 32) - 1,
    1 << 55,
    1 << 56,
    1 << 62,
    (1 << 62) - 1,
    1 << 63,
    (1 << 64) - 1,
]


@pytest.mark.parametrize("seed", range(4))
def test_changed_numbers(seed: int) -> None:
    rng = random.Random(seed)
    seen = set()
    for _ in range(400):
        changed = bytearray(rng.choice(IMAGES))
        for _ in range(rng.randrange(1, 4)):
            width = rng.choice((4, 8))
            at = rng.choice((rng.randrange(4, 112 - width, 4), rng.randrange(0, len(changed) - width, 8)))
            value = rng.choice(INTERESTING) + rng.choice((-512, -1, 0, 0, 0, 1, 512))
            changed[at : at + width] = (value % (1 << 8 * width)).to_bytes(width, "big")
        start = time.monotonic()
        seen.add(outcome(bytes(changed)))
        assert time.monotonic() - start < SECONDS
    assert seen == {"data", "error"}


def test_memory_stays_small() -> None:
    rng = random.Random(99)
    for _ in range(60):
        changed = bytearray(rng.choice(IMAGES))
        for _ in range(3):
            at = rng.randrange(20, 104)
            changed[at] = rng.randrange(256)
        tracemalloc.start()
        try:
            outcome(bytes(changed))
            assert tracemalloc.get_traced_memory()[1] < MEMORY
        finally:
            tracemalloc.stop()


@settings(max_examples=100, deadline=None)
@given(st.binary(max_size=2000))
def test_any_bytes_behind_the_magic(content: bytes) -> None:
    hold_to_limits(b"QFI\xfb\0\0\0\x03" + content)
