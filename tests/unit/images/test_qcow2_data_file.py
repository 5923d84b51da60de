# SPDX-License-Identifier: MIT
"""Writing into images whose data is in another file: interrupted at any write, and with invalid entries."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator

import pytest

from pydiskimg.errors import InvalidImageError, UnsupportedImageError
from pydiskimg.extents import Extent, Kind
from pydiskimg.images.qcow2.check import check_qcow2
from pydiskimg.images.qcow2.reader import open_qcow2
from pydiskimg.images.qcow2.switch.backing import name_backing_file
from pydiskimg.images.qcow2.switch.shrink import shrink_qcow2
from pydiskimg.images.qcow2.write.create import create_qcow2
from pydiskimg.images.qcow2.write.data_file import DataFile
from pydiskimg.images.qcow2.write.disk import Qcow2Disk, open_qcow2_disk
from pydiskimg.protocols import Buffer, Store, WritableBuffer, read_bytes
from tests.fixtures.disk_history import History
from tests.fixtures.qcow2_images import BytesSource
from tests.fixtures.stores import CrashingStore, MemoryStore

SIZE = 100 * 1024 + 512
DATA_AT = 1 << 20  # both files are parts of one store, so that the order of their writes is known


class _Part:
    def __init__(self, whole: MemoryStore, start: int, size: int) -> None:
        self.name = "image.qcow2" if not start else "image.data"
        self.size = size
        self._whole = whole
        self._start = start

    def read_into(self, offset: int, buffer: WritableBuffer) -> None:
        assert offset + len(buffer) <= self.size, "read beyond the end of the file"
        self._whole.read_into(self._start + offset, buffer)

    def flush(self) -> None:
        self._whole.flush()


class ImagePart(_Part, Store):
    def write(self, offset: int, data: Buffer) -> None:
        self._whole.write(offset, data)
        self.size = max(self.size, offset + len(data))


class DataPart(_Part, DataFile):
    sector_size = 512
    reads_as_zero = False

    def extents(self) -> Iterator[Extent]:
        yield Extent(0, self.size, Kind.DATA)

    def write(self, offset: int, data: Buffer) -> None:
        assert offset + len(data) <= self.size, "written beyond the end of the disk"
        self._whole.write(self._start + offset, data)

    def zero(self, offset: int, length: int) -> None:
        self.write(offset, bytes(length))

    def grow(self, size: int) -> None:
        self.size = max(self.size, size)


def opened(store: MemoryStore, image_size: int) -> Qcow2Disk:
    store.data = store.data.ljust(DATA_AT + SIZE, b"\0")
    return open_qcow2_disk(ImagePart(store, 0, image_size), data_file=DataPart(store, DATA_AT, SIZE))


def shown(files: bytes) -> bytes:
    image = open_qcow2(BytesSource(files[:DATA_AT]), data_file=BytesSource(files[DATA_AT:]))
    return read_bytes(image, 0, image.size)


@pytest.mark.parametrize("is_raw", [False, True])
@pytest.mark.parametrize("extended", [False, True])
@pytest.mark.parametrize("seed", range(3))
def test_interrupted_at_every_write(seed: int, *, extended: bool, is_raw: bool) -> None:
    rng = random.Random(seed)
    made = MemoryStore()
    create_qcow2(
        made,
        SIZE,
        cluster_size=16384 if extended else 2048,
        data_file="image.data",
        data_file_raw=is_raw,
        extended_l2=extended,
    )
    image_size = made.size
    disk = opened(made, image_size)
    if is_raw:
        disk.preallocate(0, SIZE)
        disk.flush()
        image_size = DATA_AT
    store = CrashingStore(bytes(made.data))
    disk = opened(store, image_size)
    history = History(store, shown)
    for _ in range(4):
        history.change(disk, rng, longest=9000 // 512 * 512)
    for flushes, files in store.crashes(rng, each=3):
        found = check_qcow2(BytesSource(files[:DATA_AT]))
        assert not found.corruptions, found.details
        history.assert_possible(flushes, files)
        if is_raw:
            assert files[DATA_AT:] == shown(files)
    assert shown(bytes(store.data)) == history.data


def written() -> tuple[MemoryStore, Qcow2Disk]:
    store = MemoryStore()
    create_qcow2(store, SIZE, data_file="image.data", data_file_raw=True, cluster_size=2048)
    disk = opened(store, store.size)
    disk.preallocate(0, SIZE)
    disk.write(0, b"x" * SIZE)
    disk.flush()
    return store, disk


def test_shrunk_and_grown() -> None:
    store, disk = written()
    image = ImagePart(store, 0, DATA_AT)
    shrink_qcow2(image, 3000)
    assert not check_qcow2(BytesSource(bytes(store.data[:DATA_AT]))).corruptions
    disk = open_qcow2_disk(image, data_file=DataPart(store, DATA_AT, SIZE))
    assert disk.size == 3072
    disk.grow(SIZE)
    disk.flush()
    assert shown(bytes(store.data)) == b"x" * 3072 + bytes(SIZE - 3072) == store.data[DATA_AT:]


def test_a_shorter_data_file_becomes_as_large_as_the_disk() -> None:
    store = MemoryStore()
    create_qcow2(store, SIZE, data_file="image.data", cluster_size=2048)
    data = DataPart(MemoryStore(bytes(DATA_AT + SIZE)), DATA_AT, 0)
    disk = open_qcow2_disk(store, data_file=data)
    disk.write(SIZE - 1, b"x")
    assert data.size == SIZE


def test_what_needs_the_file() -> None:
    store, _ = written()
    image = ImagePart(store, 0, DATA_AT)
    with pytest.raises(UnsupportedImageError, match="which must be opened with it"):
        open_qcow2_disk(image)
    with pytest.raises(UnsupportedImageError, match="no compressed clusters"):
        open_qcow2_disk(image, data_file=DataPart(store, DATA_AT, SIZE), compress=True)
    with pytest.raises(UnsupportedImageError, match="has no backing file"):
        name_backing_file(image, b"base", b"raw")


def test_the_bit_of_a_raw_file_stays() -> None:
    store, _ = written()
    store.data[88:96] = (1 << 40 | 2 | 1).to_bytes(8, "big")
    disk = open_qcow2_disk(ImagePart(store, 0, DATA_AT), data_file=DataPart(store, DATA_AT, SIZE))
    disk.write(5, b"y")
    assert store.data[88:96] == (2).to_bytes(8, "big")


@pytest.mark.parametrize(
    ("entry", "words"),
    [
        (1 << 63 | 4096, "of the external data file, expected 0x0"),
        (1 << 62, "a compressed cluster that lies in an external data file"),
        (1 << 63 | 3 << 58, "reserved bits"),
    ],
)
@pytest.mark.parametrize(
    "act", [lambda disk: disk.write(3, b"y"), lambda disk: disk.preallocate(0, 9), lambda disk: read_bytes(disk, 0, 10)]
)
def test_entries_that_lie(entry: int, words: str, act: Callable[[Qcow2Disk], object]) -> None:
    store, _ = written()
    l1 = int.from_bytes(store.data[40:48], "big")
    at = int.from_bytes(store.data[l1 : l1 + 8], "big") & ((1 << 56) - 1)
    store.data[at : at + 8] = entry.to_bytes(8, "big")
    disk = open_qcow2_disk(ImagePart(store, 0, DATA_AT), data_file=DataPart(store, DATA_AT, SIZE))
    with pytest.raises(InvalidImageError, match=words):
        act(disk)
