# SPDX-License-Identifier: MIT
"""Compressed clusters: every library, the last sector, and data that is corrupt or too much."""

from __future__ import annotations

import random
import sys
import zlib

import pytest

from pydiskimg.errors import InvalidImageError, UnsupportedImageError
from pydiskimg.images.qcow2.compressed import ClusterDecoder
from pydiskimg.images.qcow2.reader import open_qcow2
from pydiskimg.protocols import read_bytes
from tests.fixtures.qcow2_images import BytesSource, Craft, compressed_entry, deflate

CLUSTER = bytes(random.Random(7).choices(b"abcdefgh", k=4096))


def image(stored: bytes, *, length: int | None = None, compression_type: int = 0, tail: bytes = b"") -> bytes:
    craft = Craft(cluster_bits=12, size=1 << 20, l2=[[0]], data=stored + tail, compression_type=compression_type)
    craft.l2 = [[compressed_entry(12, craft.data_offset, length or len(stored))]]
    return craft.build()


@pytest.fixture(params=["isal", "zlib"])
def library(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    if request.param == "isal":
        pytest.importorskip("isal")
    else:
        monkeypatch.setitem(sys.modules, "isal.isal_zlib", None)
    return str(request.param)


@pytest.mark.parametrize("window_bits", [9, 12, 15])
@pytest.mark.parametrize("tail", [b"", b"\xff" * 5, bytes(512)])
def test_deflate(library: str, window_bits: int, tail: bytes) -> None:
    source = open_qcow2(BytesSource(image(deflate(CLUSTER, window_bits=window_bits), tail=tail)))
    assert read_bytes(source, 0, 4096) == CLUSTER
    assert read_bytes(source, 4000, 200) == CLUSTER[4000:] + bytes(104)


def test_what_follows_a_whole_cluster_is_not_looked_at(library: str) -> None:
    """The specification: decompression stops when it has produced a cluster of data."""
    compressor = zlib.compressobj(6, zlib.DEFLATED, -12)
    unfinished = compressor.compress(CLUSTER) + compressor.flush(zlib.Z_SYNC_FLUSH)
    for stored in (unfinished, deflate(CLUSTER + b"more")):
        assert read_bytes(open_qcow2(BytesSource(image(stored))), 0, 4096) == CLUSTER


CORRUPT = [
    (deflate(CLUSTER[:-1]), "decompresses to 4095 bytes, expected 4096"),
    (deflate(CLUSTER)[:1000], "decompresses to "),
    (b"\xff" * 100, "does not decompress ("),
    (b"", "does not decompress ("),
]


@pytest.mark.parametrize(("stored", "sentence"), CORRUPT)
def test_corrupt_deflate(library: str, stored: bytes, sentence: str) -> None:
    source = open_qcow2(BytesSource(image(stored, length=max(1, len(stored)), tail=b"\xff")))
    with pytest.raises(InvalidImageError) as caught:
        read_bytes(source, 0, 4096)
    text = str(caught.value)
    assert text.startswith(f"test.qcow2: the compressed cluster of guest offset 0 at 0x4000 in the file {sentence}")
    assert text.endswith("; the image is truncated or corrupt")


def test_a_bomb_stops_at_one_cluster(library: str) -> None:
    bomb = deflate(bytes(3 << 20))
    assert read_bytes(open_qcow2(BytesSource(image(bomb))), 0, 4096) == bytes(4096)


def zstd(data: bytes, **options: int) -> bytes:
    zstandard = pytest.importorskip("zstandard")
    return bytes(zstandard.ZstdCompressor(**options).compress(data))


@pytest.mark.parametrize("tail", [b"", b"\xff" * 5, bytes(512)])
def test_zstd(tail: bytes) -> None:
    source = open_qcow2(BytesSource(image(zstd(CLUSTER), compression_type=1, tail=tail)))
    assert read_bytes(source, 0, 8192) == CLUSTER + bytes(4096)


def test_a_zstd_bomb_stops_at_one_cluster() -> None:
    source = open_qcow2(BytesSource(image(zstd(bytes(100 << 20)), compression_type=1)))
    assert read_bytes(source, 0, 4096) == bytes(4096)


@pytest.mark.parametrize("stored", [b"\xff" * 100, b"\x28\xb5\x2f\xfd" + b"\xff" * 100])
def test_corrupt_zstd(stored: bytes) -> None:
    pytest.importorskip("zstandard")
    source = open_qcow2(BytesSource(image(stored, compression_type=1)))
    with pytest.raises(InvalidImageError, match=r"guest offset 0 at 0x4000 in the file does not decompress \("):
        read_bytes(source, 0, 4096)


def test_a_short_zstd_cluster() -> None:
    source = open_qcow2(BytesSource(image(zstd(CLUSTER[:77]), compression_type=1)))
    with pytest.raises(InvalidImageError, match="decompresses to 77 bytes, expected 4096"):
        read_bytes(source, 0, 1)


def test_a_zstd_window_that_would_take_much_memory() -> None:
    zstandard = pytest.importorskip("zstandard")
    parameters = zstandard.ZstdCompressionParameters(window_log=27, write_content_size=False)
    compressor = zstandard.ZstdCompressor(compression_params=parameters).compressobj()
    stored = compressor.compress(CLUSTER) + compressor.flush()
    source = open_qcow2(BytesSource(image(stored, compression_type=1)))
    with pytest.raises(InvalidImageError, match="does not decompress"):
        read_bytes(source, 0, 1)


@pytest.mark.parametrize("stored", [deflate(CLUSTER), deflate(CLUSTER * 3), deflate(CLUSTER[:77])])
def test_what_is_written_into_a_buffer_stays_inside(library: str, stored: bytes) -> None:
    _check_inside("zlib", stored, is_whole=stored != deflate(CLUSTER[:77]))


def test_what_zstd_writes_into_a_buffer_stays_inside() -> None:
    for stored, is_whole in ((zstd(CLUSTER), True), (zstd(CLUSTER * 3), True), (zstd(CLUSTER[:77]), False)):
        _check_inside("zstd", stored, is_whole=is_whole)


def _check_inside(compression_type: str, stored: bytes, *, is_whole: bool) -> None:
    room = bytearray(b"\xee" * 5000)
    data, cluster = memoryview(stored + b"\xff" * 9), memoryview(room)[500:4596]
    decoder = ClusterDecoder(compression_type, name="")
    if is_whole:
        decoder.decode(data, cluster)
        assert cluster == CLUSTER
    else:
        with pytest.raises(ValueError, match="decompresses to 77 bytes, expected 4096"):
            decoder.decode(data, cluster)
    assert room[:500] + room[4596:] == b"\xee" * 904


def test_no_zstd_library_names_the_package(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in ("zstandard", "compression.zstd"):
        monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(UnsupportedImageError, match=r"^d\.qcow2: .*; install the package python3-zstandard$"):
        ClusterDecoder("zstd", name="d.qcow2").require_library()
