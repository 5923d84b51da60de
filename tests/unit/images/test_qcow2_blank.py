# SPDX-License-Identifier: MIT
"""Clusters where the file reads as zero already: zeros at their ends stay holes, and nothing old shows through."""

from __future__ import annotations

import os
import random
from pathlib import Path

import pytest

from pydiskimg.disks.store import GrowingFile
from pydiskimg.images.create import new_image
from pydiskimg.images.qcow2.reader import open_qcow2
from pydiskimg.images.qcow2.write.blank import parts_to_write
from pydiskimg.images.qcow2.write.create import create_qcow2
from pydiskimg.images.qcow2.write.disk import Qcow2Disk, open_qcow2_disk
from pydiskimg.protocols import read_bytes
from pydiskimg.units import KIB, MIB
from tests.fixtures.qcow2_disks import assert_clean
from tests.fixtures.qcow2_images import BytesSource
from tests.fixtures.stores import CrashingStore, MemoryStore

CLUSTER = 64 * KIB


def sparse(rng: random.Random, clusters: int) -> bytes:
    """Clusters of which most begin or end with zeros; some are zero."""
    data = bytearray()
    for _ in range(clusters):
        start, end = sorted(rng.choice((0, 4, 17, 20, 33, 60, 64)) * KIB for _ in range(2))
        data += bytes(start) + rng.randbytes(end - start) + bytes(CLUSTER - end)
    return bytes(data)


@pytest.mark.parametrize("seed", range(8))
def test_what_is_not_written_is_zero(seed: int) -> None:
    data = sparse(random.Random(seed), 20)
    shown, end = bytearray(len(data)), 0
    for start, stop in parts_to_write(memoryview(data), CLUSTER):
        assert end <= start < stop
        shown[start:stop], end = data[start:stop], stop
    assert shown == data


def test_zeros_at_both_ends_are_left_out_and_few_are_not() -> None:
    data = bytearray(3 * CLUSTER)
    data[20 * KIB] = data[40 * KIB] = 1
    data[CLUSTER + 4 * KIB : 2 * CLUSTER] = b"x" * (60 * KIB)
    assert list(parts_to_write(memoryview(data), CLUSTER)) == [(20 * KIB, 44 * KIB), (CLUSTER, 2 * CLUSTER)]


def test_freed_clusters_show_nothing_of_what_they_held() -> None:
    """Written, freed and written again, in one opening of the image and in another one."""
    store, rng = MemoryStore(), random.Random(3)
    create_qcow2(store, 64 * CLUSTER)
    shown = bytearray(64 * CLUSTER)
    for _ in range(4):
        disk = open_qcow2_disk(store)
        for _ in range(12):
            at, count = rng.randrange(50), rng.randrange(1, 14)
            if rng.random() < 0.5:
                disk.zero(at * CLUSTER, count * CLUSTER)
                shown[at * CLUSTER : (at + count) * CLUSTER] = bytes(count * CLUSTER)
            else:
                data = sparse(rng, count)
                disk.write(at * CLUSTER, data)
                shown[at * CLUSTER : (at + count) * CLUSTER] = data
            assert read_bytes(disk, 0, disk.size) == shown
            if rng.random() < 0.3:
                disk.flush()
        disk.flush()
        assert_clean(store)


def test_a_failed_write_leaves_nothing_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    """The clusters of a write that failed hold a part of its data, and are used again."""
    store = MemoryStore()
    create_qcow2(store, 64 * CLUSTER)
    disk = open_qcow2_disk(store)
    with monkeypatch.context() as patch:
        patch.setattr(store, "extend", lambda _: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            disk.write(0, b"x" * CLUSTER + bytes(20 * KIB) + b"y" * KIB + bytes(43 * KIB))
    disk.flush()
    new = bytes(32 * KIB) + b"z" * (32 * KIB)
    disk.write_ranges([(0, 0, CLUSTER), (8 * CLUSTER, 0, CLUSTER)], memoryview(new))
    assert read_bytes(disk, 0, CLUSTER) == read_bytes(disk, 8 * CLUSTER, CLUSTER) == new
    disk.flush()
    assert_clean(store)


def test_a_crash_leaves_old_or_new_bytes() -> None:
    store, rng = CrashingStore(), random.Random(9)
    create_qcow2(store, 16 * CLUSTER)
    store = CrashingStore(bytes(store.data))
    disk = open_qcow2_disk(store)
    data = sparse(rng, 8)
    ranges = [(2 * at * CLUSTER, at * CLUSTER, (at + 1) * CLUSTER) for at in range(8)]
    disk.write_ranges(ranges, memoryview(data))
    disk.flush()
    for _, image in store.crashes(rng, each=20):
        found = open_qcow2(BytesSource(image))
        for offset, start, end in ranges:
            assert read_bytes(found, offset, CLUSTER) in (bytes(CLUSTER), data[start:end])


def stored(path: Path) -> int:
    return os.stat(path).st_blocks * 512


@pytest.mark.parametrize("keeps_zeros", [False, True])
def test_the_holes_of_a_file(tmp_path: Path, *, keeps_zeros: bool) -> None:
    path = tmp_path / "new.qcow2"
    with new_image(path, 64 * MIB, format="qcow2") as disk:
        assert isinstance(disk, Qcow2Disk)
        if keeps_zeros:
            disk.keep_zeros()
        for at in range(0, 64 * MIB, MIB):
            disk.write(at, b"x" * (4 * KIB) + bytes(60 * KIB))
    assert path.stat().st_size >= 64 * CLUSTER
    assert (stored(path) >= 4 * MIB) is keeps_zeros
    assert stored(path) <= 5 * MIB


def test_a_file_grows_without_a_write(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"old")
    with path.open("r+b") as file:
        store = GrowingFile(file.fileno(), "file")
        store.extend(2)
        store.extend(10)
        assert store.size == 10
    assert path.read_bytes() == b"old" + bytes(7)
