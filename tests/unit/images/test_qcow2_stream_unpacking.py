# SPDX-License-Identifier: MIT
"""Compressed clusters of a stream: where their data ends is known to the byte, by every library."""

from __future__ import annotations

import random
import zlib
from contextlib import suppress

import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from pydiskimg.images.qcow2 import compressed
from pydiskimg.images.qcow2.compress import compressor, stored_deflate
from pydiskimg.images.qcow2.compressed import ClusterDecoder, frame_length
from pydiskimg.images.qcow2.stream.checksums import checksum_of_cluster
from pydiskimg.images.qcow2.stream.reader import unpack_cluster

SIZES = (512, 4096, 65536, 2 << 20)


def contents(size: int, seed: int) -> bytes:
    rng = random.Random(seed)
    kinds = (bytes(size), rng.randbytes(size), b"".join(b"%d " % rng.getrandbits(30) for _ in range(size // 8)))
    return (rng.choice(kinds) * 2)[:size].ljust(size, b"x")


def unpacked(kind: str, data: bytes, size: int, *, has_checksum: bool = True) -> bytes:
    cluster = bytearray(size)
    decoder = ClusterDecoder(kind, name="x")
    unpack_cluster(decoder, memoryview(data), size, memoryview(cluster), has_checksum=has_checksum)
    return bytes(cluster)


@pytest.fixture(params=["as installed", "zlib"])
def library(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if request.param == "zlib":
        monkeypatch.setattr(compressed, "deflate_library", lambda: (zlib.decompressobj, zlib.error))


@pytest.mark.usefixtures("library")
@pytest.mark.parametrize("kind", ["zlib", "zstd", "stored"])
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("padding", [0, 1, 2, 7, 8, 9, 600])
def test_what_follows_the_data(kind: str, size: int, padding: int) -> None:
    kind, compress = ("zlib", stored_deflate) if kind == "stored" else (kind, compressor(kind, name="x"))
    for seed in range(4):
        cluster = contents(size, seed)
        data = bytes(compress(cluster))
        checksum = checksum_of_cluster(size, cluster)
        assert unpacked(kind, data + checksum + bytes(padding), size) == cluster
        assert unpacked(kind, data + bytes(padding), size, has_checksum=False) == cluster
        for wrong in (data, data + checksum[:3], data + bytes((checksum[0] ^ 1, *checksum[1:])), data[:-1] + checksum):
            with pytest.raises(ValueError, match=r"has the checksum|does not decompress|decompresses to"):
                unpacked(kind, wrong, size)
        with pytest.raises(ValueError, match="before the next data in the tables, and these bytes are not zero"):
            unpacked(kind, data + checksum + bytes(padding) + b"x", size)
        with pytest.raises(ValueError, match=r"does not decompress|decompresses to"):
            unpacked(kind, data[:-1], size, has_checksum=False)


@settings(max_examples=60)
@given(
    st.sampled_from((0, 1, 200, 512, 65536, 200_000, 2 << 20)),
    st.integers(0, 1 << 32),
    st.booleans(),
    st.booleans(),
    st.sampled_from((-5, 1, 19)),
    st.binary(max_size=20),
)
def test_a_frame_is_as_long_as_it_says(
    size: int, seed: int, checksum: bool, content_size: bool, level: int, rest: bytes
) -> None:
    writer = zstandard.ZstdCompressor(level=level, write_checksum=checksum, write_content_size=content_size)
    frame = writer.compress(contents(size, seed) if size else b"")
    assert frame_length(memoryview(frame + rest)) == len(frame)
    for end in (len(frame) - 1, len(frame) // 2, 5, 4, 0):
        if end < len(frame):
            with pytest.raises(ValueError, match=r"is missing|does not begin"):
                frame_length(memoryview(frame[:end]))


def test_a_frame_in_many_pieces() -> None:
    writer = zstandard.ZstdCompressor().compressobj()
    parts = [
        part
        for number in range(50)
        for part in (writer.compress(b"%d" % number * 9), writer.flush(zstandard.COMPRESSOBJ_FLUSH_BLOCK))
    ]
    frame = b"".join((*parts, writer.flush()))
    assert frame_length(memoryview(frame + b"more")) == len(frame)


@given(st.binary(max_size=100))
def test_any_bytes_after_the_magic(data: bytes) -> None:
    frame = b"\x28\xb5\x2f\xfd" + data
    with suppress(ValueError):
        assert 5 < frame_length(memoryview(frame)) <= len(frame)
