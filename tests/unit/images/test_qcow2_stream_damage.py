# SPDX-License-Identifier: MIT
"""Damaged streams: each is refused or gives the same disk; the undetectable damage is listed here.

| stream | what is not noticed |
| --- | --- |
| uncompressed | other bytes in the place of data; also some put in, where those that end the stream are zero |
| of an older release, compressed | the same, where it decompresses |
| of an older release | an entry that changed places with that of a hole; the header's fields |

docs/backup-format.md has the same table.
"""

from __future__ import annotations

import random
import zlib
from collections.abc import Callable, Iterator

import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

from pydiskimg.images.qcow2 import layout
from pydiskimg.images.qcow2.reader import open_qcow2
from pydiskimg.images.qcow2.stream import checksums as checks
from pydiskimg.protocols import read_bytes
from tests.fixtures.qcow2_images import BytesSource
from tests.fixtures.streams import arrived, restored, without_checksums, written

RNG = random.Random(20)
TEXT = b"".join(b"%d " % (number * number) for number in range(2000))
# Text, a hole, noise, clusters that become equally long, and another L2 table's text, for clusters of 512 bytes.
MIXED = TEXT[:1536] + bytes(2048) + RNG.randbytes(512) + b"a" * 512 + b"b" * 512 + bytes(512) + TEXT[1536:3072]
MIXED += bytes(33_280 - len(MIXED)) + TEXT[3072:4096]
SHAPES: dict[str, tuple[bytes, dict[str, object]]] = {
    "none": (MIXED, {"cluster_size": 512}),
    "none, version 2": (MIXED[:5632], {"cluster_size": 512, "version": 2}),
    "none, zeros are stored": (MIXED[:8192], {"cluster_size": 512, "find_zeros": False}),
    "none, the disk ends within a cluster": (MIXED[:5732], {"cluster_size": 1024}),
    "none, empty": (bytes(70_000), {"cluster_size": 512}),
    "zlib": (MIXED, {"cluster_size": 512, "compression_type": "zlib"}),
    "zlib, version 2": (MIXED[:5632], {"cluster_size": 512, "compression_type": "zlib", "version": 2}),
    "zlib, the disk ends within a cluster": (TEXT[:5000], {"cluster_size": 2048, "compression_type": "zlib"}),
    "zlib, empty": (bytes(70_000), {"cluster_size": 512, "compression_type": "zlib"}),
    "zstd": (MIXED, {"cluster_size": 512, "compression_type": "zstd"}),
    "zstd, the disk ends within a cluster": (TEXT[:5000], {"cluster_size": 2048, "compression_type": "zstd"}),
}


def streamed(shape: str) -> bytes:
    data, options = SHAPES[shape]
    return written(BytesSource(data), workers=1, **options)


STREAMS = {shape: streamed(shape) for shape in SHAPES}
with without_checksums():
    OLDER = {shape: streamed(shape) for shape in SHAPES}


def number_at(stream: bytes, at: int, width: int = 8) -> int:
    return int.from_bytes(stream[at : at + width], "big")


def extension_offset(stream: bytes) -> int:
    return 72 if number_at(stream, 4, 4) == 2 else 112


def data_offset(stream: bytes) -> int:
    """Where the data begins: after the last L2 table, or the L1 table."""
    l1, count, cluster_size = number_at(stream, 40), number_at(stream, 36, 4), 1 << number_at(stream, 20, 4)
    tables = [number_at(stream, l1 + 8 * index) & layout.ENTRY_OFFSET for index in range(count)]
    return max(l1 + -(-8 * count // cluster_size) * cluster_size - cluster_size, *tables) + cluster_size


Changed = Iterator[tuple[str, bytes]]


def put(stream: bytes, at: int, data: bytes, length: int | None = None) -> bytes:
    """The stream with data in the place of length bytes, or of as many as data has."""
    return stream[:at] + data + stream[at + (len(data) if length is None else length) :]


def changed_entries(stream: bytes) -> Changed:
    """Every entry of every table and refcount block, 8 bytes at a time: lost, repeated, swapped, each bit flipped."""
    cluster_size, end = 1 << number_at(stream, 20, 4), data_offset(stream)
    for at in range(cluster_size, end, 8):
        entry, following = stream[at : at + 8], stream[at + 8 : at + 16]
        if any(entry):
            stop = at + cluster_size - at % cluster_size
            yield f"entry at {at} zeroed", put(stream, at, bytes(8))
            yield f"entry at {at} left out", put(stream, at, stream[at + 8 : stop] + bytes(8))
            yield from ((f"bit {bit} of {at}", flipped(stream, at + bit // 8, bit % 8)) for bit in range(64))
        if entry != following and at % cluster_size + 8 < cluster_size:
            yield f"entry at {at} repeated", put(stream, at + 8, entry)
            hole = "" if any(entry) and any(following) else " with that of a hole"
            yield f"entry at {at} swapped{hole}", put(stream, at, following + entry)


def changed_header(stream: bytes) -> Changed:
    for at in range(layout.MIN_HEADER_LENGTH_V3 + 64):
        yield from ((f"bit {bit} of byte {at}", flipped(stream, at, bit)) for bit in range(8))


def changed_bytes(stream: bytes) -> Changed:
    """A bit in every third byte; where nothing is compressed, of the data in every 97th."""
    start = data_offset(stream)
    step = 3 if number_at(stream, extension_offset(stream) + 12, 4) else 97
    places = (*range(0, start, 3), *range(start, len(stream), step))
    yield from ((f"byte {at}", flipped(stream, at, at * 5 % 8)) for at in places)


def changed_sectors(stream: bytes) -> Changed:
    """Every 512 bytes, left out, repeated, swapped; and every end."""
    for at in range(0, len(stream), 512):
        sector, following = stream[at : at + 512], stream[at + 512 : at + 1024]
        yield f"sector at {at} changed", flipped(stream, at + 100, 6)
        yield f"sector at {at} zeroed", put(stream, at, bytes(512))
        yield f"sector at {at} left out", put(stream, at, b"", 512)
        yield f"sector at {at} repeated", put(stream, at, sector, 0)
        yield f"sector at {at} swapped", put(stream, at, following + sector, len(sector + following))
        yield f"sector at {at} in the place of the next one", put(stream, at + 512, sector[: len(following)])
        yield from ((f"cut at {end}", stream[:end]) for end in (at, at + 1, at + 511))


def flipped(stream: bytes, at: int, bit: int) -> bytes:
    return put(stream, at, bytes((stream[at] ^ 1 << bit,)))


def is_listed(shape: str, stream: bytes, changed: bytes, result: bytes) -> bool:
    """True for what an uncompressed stream cannot show: what came is what the file has, after unchanged tables."""
    start = data_offset(stream)
    if not shape.startswith("none") or changed[:start] != stream[:start] or any(changed[len(stream) :]):
        return False
    with open_qcow2(BytesSource(changed)) as source:
        return result == read_bytes(source, 0, source.size)


@pytest.mark.parametrize("kind", [changed_entries, changed_header, changed_bytes, changed_sectors])
@pytest.mark.parametrize("shape", SHAPES)
def test_every_change_of_a_stream_is_noticed(shape: str, kind: Callable[[bytes], Changed]) -> None:
    stream = STREAMS[shape]
    whole = arrived(stream)
    outcomes = [(name, changed, arrived(changed)) for name, changed in kind(stream) if changed != stream]
    wrong = [
        name
        for name, changed, result in outcomes
        if result not in (None, whole) and not is_listed(shape, stream, changed, result)
    ]
    assert not wrong
    assert any(result is None for _, _, result in outcomes)


@pytest.mark.parametrize("shape", SHAPES)
def test_lost_and_moved_entries_of_an_older_stream_are_noticed(shape: str) -> None:
    stream = OLDER[shape]
    whole = arrived(stream)
    assert whole == arrived(STREAMS[shape])
    outcomes = {name: arrived(changed) for name, changed in changed_entries(stream) if "hole" not in name}
    assert not [name for name, result in outcomes.items() if result not in (None, whole)]
    assert None in outcomes.values()


@pytest.mark.parametrize("shape", SHAPES)
def test_lost_and_repeated_data_of_an_older_stream_is_noticed(shape: str) -> None:
    stream = OLDER[shape]
    whole = arrived(stream)
    for name, changed in changed_sectors(stream):
        if name.endswith(("left out", "repeated")) or name.startswith("cut"):
            result = arrived(changed)
            assert result in (None, whole) or is_listed(shape, stream, changed, result), name


@example("zlib", 3000, 512, 512, "zeros")
@settings(max_examples=400)
@given(
    st.sampled_from(sorted(SHAPES)),
    st.integers(0, 40_000),
    st.integers(0, 3000),
    st.integers(0, 3000),
    st.sampled_from(("zeros", "ones", "noise", "own bytes")),
)
def test_any_stretch_that_is_replaced(shape: str, at: int, length: int, by: int, what: str) -> None:
    stream = STREAMS[shape]
    at %= len(stream)
    rng = random.Random(at * length + by)
    elsewhere = rng.randrange(len(stream))
    new = {"zeros": bytes(by), "ones": b"\xff" * by, "noise": rng.randbytes(by)}.get(what, stream[elsewhere:][:by])
    changed = put(stream, at, new, length)
    assume(changed != stream)
    result = arrived(changed)
    assert result in (None, arrived(stream)) or is_listed(shape, stream, changed, result)


def test_two_clusters_that_change_places_with_their_checksums() -> None:
    """Each is valid, but not in that place: the checksum covers the place as well."""
    for streams, expected in (
        (STREAMS, None),
        (OLDER, MIXED.replace(b"a" * 512 + b"b" * 512, b"b" * 512 + b"a" * 512)),
    ):
        stream = streams["zlib"]
        table = number_at(stream, number_at(stream, 40)) & layout.ENTRY_OFFSET
        first, second, third = (number_at(stream, table + 8 * index) & (1 << 61) - 1 for index in (8, 9, 11))
        one, other = stream[first:second], stream[second:third]
        assert len(one) == len(other)
        assert arrived(put(stream, first, other + one)) == expected


def test_the_extension_is_as_documented() -> None:
    for shape, stream in STREAMS.items():
        start = extension_offset(stream)
        assert stream[start : start + 8] == bytes.fromhex("7064437200000008")
        tables, flags = number_at(stream, start + 8, 4), number_at(stream, start + 12, 4)
        assert flags == (0 if shape.startswith("none") else 1)
        assert zlib.crc32(put(stream, start + 8, bytes(4))[: data_offset(stream)]) == tables


def test_an_extension_that_is_not_ours_is_left_alone() -> None:
    stream = STREAMS["none"]
    assert checks.find_checks(stream[:512], 112) is not None
    assert checks.find_checks(put(stream, 112, b"\x70\x64\x43\x73")[:512], 112) is None
    assert checks.find_checks(stream[:120], 112) is None
    older = put(stream, 112, bytes(4))  # the end of the extensions
    assert restored(older) == restored(stream)
