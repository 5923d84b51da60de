# SPDX-License-Identifier: MIT
"""New qcow2 images: their header, what is refused, and that an incomplete one does not look like an image."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from pydiskimg.disks.memory import MemoryDisk
from pydiskimg.disks.store import FixedStore, GrowingFile
from pydiskimg.errors import DoesNotFitError, StorageError, UnsupportedImageError
from pydiskimg.images import create, detect
from pydiskimg.images.create import new_image
from pydiskimg.images.open import open_image
from pydiskimg.images.qcow2 import layout
from pydiskimg.images.qcow2.header import read_header
from pydiskimg.images.qcow2.write.create import create_qcow2
from pydiskimg.images.qcow2.write.header_last import UnpublishedStore
from pydiskimg.protocols import Buffer
from tests.fixtures.qcow2_images import BytesSource
from tests.fixtures.stores import MemoryStore


@pytest.mark.parametrize("cluster_bits", range(9, 22))
@pytest.mark.parametrize("version", [2, 3])
@pytest.mark.parametrize("size", [0, 1, 512, 1000001, 5 << 30])
def test_header(cluster_bits: int, version: int, size: int) -> None:
    store = MemoryStore()
    create_qcow2(store, size, cluster_size=1 << cluster_bits, version=version)
    header = read_header(BytesSource(bytes(store.data)))
    assert (header.version, header.cluster_bits, header.refcount_order) == (version, cluster_bits, 4)
    assert header.size == -(-size // 512) * 512
    assert header.l1_size == header.l1_entries_used
    assert (layout.EXTENSION_FEATURE_NAMES in header.extensions) == (version == 3)


def test_compression_type() -> None:
    store = MemoryStore()
    create_qcow2(store, 1 << 20, compression_type="zstd")
    header = read_header(BytesSource(bytes(store.data)))
    assert header.compression_type == "zstd"
    assert header.incompatible_features == layout.INCOMPATIBLE_COMPRESSION_TYPE


@pytest.mark.parametrize("cluster_size", [512, 65536])
def test_backing_file(cluster_size: int) -> None:
    store = MemoryStore()
    create_qcow2(store, 1 << 20, cluster_size=cluster_size, backing_file=b"base.img", backing_format=b"raw")
    header = read_header(BytesSource(bytes(store.data)))
    assert (header.backing_file, header.backing_format) == (b"base.img", b"raw")


def test_the_backing_file_must_fit() -> None:
    with pytest.raises(UnsupportedImageError, match="does not fit into a cluster of 512 bytes; use a larger"):
        create_qcow2(MemoryStore(), 512, cluster_size=512, backing_file=b"x" * 500)
    with pytest.raises(UnsupportedImageError, match="has 1024 bytes, at most 1023"):
        create_qcow2(MemoryStore(), 512, backing_file=b"x" * 1024)


def test_the_largest_disk_of_a_cluster_size() -> None:
    largest = 128 << 30
    store = MemoryStore()
    create_qcow2(store, largest, cluster_size=512)
    assert read_header(BytesSource(bytes(store.data))).l1_size * 8 == layout.MAX_L1_TABLE_SIZE
    store = MemoryStore()
    with pytest.raises(
        DoesNotFitError, match=r"clusters of 512 bytes can map 137438953472 bytes \(128 GiB\)"
    ) as refused:
        create_qcow2(store, largest + 1, cluster_size=512)
    assert refused.value.available == largest
    assert not store.data
    with pytest.raises(DoesNotFitError, match="2 EiB"):
        create_qcow2(store, (1 << 63) - 512, cluster_size=2 << 20)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (
            {"cluster_size": 256},
            "cluster size of 256 bytes is not possible; expected a power of two from 512 to 2097152",
        ),
        ({"cluster_size": 3000}, "power of two"),
        ({"cluster_size": 4 << 20}, "power of two"),
        ({"version": 1}, "version 1 is not written"),
        ({"compression_type": "lzo"}, "'lzo' is not known; expected zlib or zstd"),
        ({"version": 2, "compression_type": "zstd"}, "version 2 .* has no compression type zstd"),
    ],
)
def test_refused_options(options: dict[str, int], words: str) -> None:
    store = MemoryStore()
    with pytest.raises(UnsupportedImageError, match=words):
        create_qcow2(store, 1 << 20, **options)  # type: ignore[arg-type]
    assert not store.data


def test_the_header_comes_last() -> None:
    class Recording(MemoryStore):
        def write(self, offset: int, data: Buffer) -> None:
            assert detect(BytesSource(bytes(self.data))) == "raw"
            super().write(offset, data)

    create_qcow2(Recording(b"\xff" * 100000), 1 << 30)


def test_a_new_file_appears_when_it_is_complete(tmp_path: Path) -> None:
    path = tmp_path / "new.qcow2"
    with new_image(path, 1000000, format="qcow2") as disk:
        assert disk.reads_as_zero
        assert disk.size == 1000448
        disk.write(12345, b"data")
        assert list(tmp_path.iterdir()) == []
    assert list(tmp_path.iterdir()) == [path]
    with open_image(path) as image:
        found = bytearray(image.size)
        image.read_into(0, found)
    assert found == bytes(12345) + b"data" + bytes(1000448 - 12349)


@pytest.mark.parametrize("old", [None, b"what was there"])
def test_an_interrupted_file_leaves_nothing(tmp_path: Path, old: bytes | None) -> None:
    path = tmp_path / "new.qcow2"
    if old is not None:
        path.write_bytes(old)
    with pytest.raises(KeyboardInterrupt), new_image(path, 1000000, format="qcow2") as disk:  # noqa: PT012
        disk.write(0, b"data")
        disk.flush()
        raise KeyboardInterrupt
    assert [each.read_bytes() for each in tmp_path.iterdir()] == ([] if old is None else [old])


def test_a_raw_file(tmp_path: Path) -> None:
    with new_image(tmp_path / "raw", 1000, format="raw") as disk:
        disk.write(10, b"data")
    assert (tmp_path / "raw").read_bytes() == bytes(10) + b"data" + bytes(986)


def test_an_unknown_format(tmp_path: Path) -> None:
    with (
        pytest.raises(UnsupportedImageError, match="format 'vmdk' is not written"),
        new_image(tmp_path / "x", 1, format="vmdk"),
    ):
        pass
    assert not list(tmp_path.iterdir())


def test_a_device_is_no_image_until_the_end() -> None:
    device = MemoryDisk(4 << 20, fill=0xFF)
    create_qcow2(FixedStore(device), 1 << 20)
    assert detect(device) == "qcow2"
    held = UnpublishedStore(FixedStore(device), 65536)
    assert detect(device) == "raw"
    create_qcow2(held, 2 << 20)
    held.flush()
    assert detect(device) == "raw"
    head = bytearray(100000)
    held.read_into(0, head)
    assert head[:4] == layout.MAGIC
    held.publish()
    assert detect(device) == "qcow2"
    assert read_header(device).size == 2 << 20


@pytest.mark.parametrize("options", [{"size": 4 << 40, "cluster_size": 512}, {"cluster_size": 1000}, {"version": 4}])
def test_what_is_refused_leaves_a_device_as_it_was(options: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    device = MemoryDisk(4 << 20, fill=0xFF)

    @contextmanager
    def store_of_a_device(_: object, *, device: bool) -> Iterator[FixedStore]:
        yield fixed

    fixed = FixedStore(device)
    monkeypatch.setattr(create, "_new_store", store_of_a_device)
    with (
        pytest.raises((DoesNotFitError, UnsupportedImageError)),
        new_image("d", **{"size": 512, **options}, format="qcow2"),
    ):
        pass
    assert device.data.count(0xFF) == len(device.data)


def test_a_device_too_small_says_so() -> None:
    with pytest.raises(StorageError, match=r"is too small: the image needs 65536 bytes .* the device has 10000 bytes"):
        create_qcow2(FixedStore(MemoryDisk(10000)), 1 << 20)


def test_a_full_disk_is_one_sentence() -> None:
    fd = os.open("/dev/full", os.O_RDWR)
    try:
        with pytest.raises(
            StorageError, match=r"^full: cannot write 65536 bytes at offset 0: No space left on device$"
        ):
            create_qcow2(GrowingFile(fd, "full"), 1 << 20)
    finally:
        os.close(fd)
