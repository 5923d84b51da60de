# SPDX-License-Identifier: MIT
"""qcow2 images that a writer refuses: features, entries that name metadata, reference counts that are wrong."""

from __future__ import annotations

import pytest

from pydiskimg.disks.memory import MemoryDisk
from pydiskimg.disks.store import FixedStore
from pydiskimg.errors import InvalidImageError, UnsupportedImageError
from pydiskimg.images.qcow2 import layout
from pydiskimg.images.qcow2.reader import open_qcow2
from pydiskimg.images.qcow2.write.create import create_qcow2
from pydiskimg.images.qcow2.write.disk import Qcow2Disk, open_qcow2_disk
from pydiskimg.protocols import read_bytes
from tests.fixtures.qcow2_disks import CLUSTER, new_disk
from tests.fixtures.qcow2_images import BytesSource, Craft
from tests.fixtures.stores import MemoryStore


@pytest.mark.parametrize(
    ("header", "words"),
    [
        ({"incompatible_features": layout.INCOMPATIBLE_DIRTY}, "was not closed by its last writer"),
        ({"incompatible_features": layout.INCOMPATIBLE_CORRUPT}, "is marked corrupt"),
        ({"incompatible_features": layout.INCOMPATIBLE_DATA_FILE}, "has an external data file"),
        ({"crypt_method": 2}, "is encrypted with LUKS"),
        ({"backing_file_offset": 200, "backing_file_size": 4}, "has a backing file, which must be opened with it"),
    ],
)
def test_what_is_not_written(header: dict[str, int], words: str) -> None:
    store = MemoryStore(Craft(header=header).build())
    before = bytes(store.data)
    with pytest.raises(UnsupportedImageError, match=words):
        open_qcow2_disk(store)
    assert store.data == before


@pytest.mark.parametrize("bits", [1, 1 << 40])
def test_autoclear_bits_go_with_the_first_write(bits: int) -> None:
    store, _ = new_disk(1 << 20)
    store.data[88:96] = bits.to_bytes(8, "big")
    disk = open_qcow2_disk(store)
    read_bytes(disk, 0, 1000)
    disk.flush()
    assert store.data[88:96] == bits.to_bytes(8, "big")
    disk.zero(0, 1)
    assert store.data[88:96] == bytes(8)


def test_a_cluster_in_use_that_is_not_counted() -> None:
    store, disk = new_disk(1 << 20)
    disk.write(0, b"x" * CLUSTER)
    disk.flush()
    entry = next(entry for entry in layout_entries(store, disk) if entry)
    host = (entry & layout.ENTRY_OFFSET) // CLUSTER
    block = int.from_bytes(store.data[CLUSTER : CLUSTER + 8], "big")
    store.data[block + 2 * host : block + 2 * host + 2] = bytes(2)
    disk = open_qcow2_disk(store)
    disk.zero(0, CLUSTER)
    with pytest.raises(InvalidImageError, match=r"cluster at 0x[0-9a-f]+ is in use and has a reference count of 0"):
        disk.flush()


def layout_entries(store: MemoryStore, disk: Qcow2Disk) -> list[int]:
    found = disk._map.entries(0, 8)
    return list(found or ())


@pytest.mark.parametrize("where", ["refcount table", "refcount block", "L1 table", "L2 table"])
def test_an_entry_that_names_metadata(where: str) -> None:
    store, disk = new_disk(1 << 20)
    disk.write(0, b"x" * CLUSTER)
    disk.flush()
    l1 = int.from_bytes(store.data[40:48], "big")
    l2 = int.from_bytes(store.data[l1 : l1 + 8], "big") & layout.ENTRY_OFFSET
    block = int.from_bytes(store.data[CLUSTER : CLUSTER + 8], "big")
    offset = {"refcount table": CLUSTER, "refcount block": block, "L1 table": l1, "L2 table": l2}[where]
    store.data[l2 : l2 + 8] = (offset | layout.COPIED).to_bytes(8, "big")
    before = bytes(store.data)
    disk = open_qcow2_disk(store)
    with pytest.raises(InvalidImageError, match="tables of the image"):
        disk.write(0, b"y" * CLUSTER)
    assert store.data == before


@pytest.mark.parametrize("offset", [1 << 21, (1 << 21) + 1])
def test_compressed_data_beyond_the_end_of_a_device(offset: int) -> None:
    """The last bit only tells where compressed data is, and a device is not read beyond its end."""
    device = MemoryDisk(1 << 20, name="device")
    store = FixedStore(device)
    create_qcow2(store, 1 << 20, cluster_size=CLUSTER)
    disk = open_qcow2_disk(store)
    disk.write(0, b"x" * CLUSTER)
    disk.flush()
    l1 = int.from_bytes(device.data[40:48], "big")
    l2 = int.from_bytes(device.data[l1 : l1 + 8], "big") & layout.ENTRY_OFFSET
    device.data[l2 : l2 + 8] = (layout.L2_COMPRESSED | offset).to_bytes(8, "big")
    before = bytes(device.data)
    disk = open_qcow2_disk(store)
    for call in (lambda: read_bytes(disk, 0, 1), lambda: disk.write(1, b"y"), lambda: disk.write(0, b"y" * CLUSTER)):
        with pytest.raises(InvalidImageError, match=f"cluster offset 0x{offset:x} lies beyond the end of the file"):
            call()
    assert device.data == before


def test_an_entry_that_names_the_header() -> None:
    store, disk = new_disk(1 << 20)
    disk.write(0, b"x" * CLUSTER)
    disk.flush()
    l1 = int.from_bytes(store.data[40:48], "big")
    l2 = int.from_bytes(store.data[l1 : l1 + 8], "big") & layout.ENTRY_OFFSET
    store.data[l2 : l2 + 8] = layout.COPIED.to_bytes(8, "big")
    header = store.data[:CLUSTER]
    disk = open_qcow2_disk(store)
    disk.write(0, b"y" * CLUSTER)
    disk.write(CLUSTER + 5, b"y")
    disk.flush()
    assert store.data[:CLUSTER] == header
    assert read_bytes(disk, 0, CLUSTER) == b"y" * CLUSTER


def test_refcounts_that_call_metadata_free() -> None:
    store, disk = new_disk(1 << 20)
    disk.write(0, b"x" * CLUSTER)
    disk.write(40000, b"x" * CLUSTER)
    disk.flush()
    block = int.from_bytes(store.data[CLUSTER : CLUSTER + 8], "big")
    store.data[block : block + CLUSTER] = bytes(CLUSTER)
    disk = open_qcow2_disk(store)
    disk.write(20000, b"y" * 20 * CLUSTER)
    disk.flush()
    source = open_qcow2(BytesSource(bytes(store.data)))
    assert read_bytes(source, 20000, 20 * CLUSTER) == b"y" * 20 * CLUSTER


def test_refcounts_that_claim_the_far_end() -> None:
    """They would have new clusters put there, and a small file become a huge one."""
    store, _ = new_disk(1 << 20, cluster_size=4096)
    block = len(store.data)
    store.write(block, b"\0\1" * 2048)
    store.write(4096 + 8 * 500, block.to_bytes(8, "big"))
    with pytest.raises(InvalidImageError, match=r"clusters up to 0x.* are counted as used, and the file ends at 0x"):
        open_qcow2_disk(store)
