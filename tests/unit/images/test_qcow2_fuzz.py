# SPDX-License-Identifier: MIT
"""Any bytes give data or one of our errors, in little time and memory. tests/fuzz tests it for longer."""

from __future__ import annotations

import os
import random
import time
from functools import cache
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pydiskimg.disks.store import GrowingFile
from pydiskimg.errors import DiskImageError, InvalidImageError
from pydiskimg.images.qcow2.write.create import create_qcow2
from pydiskimg.images.qcow2.write.disk import open_qcow2_disk
from pydiskimg.transfer.send import write_stream
from tests.fixtures.hostile_images import extended
from tests.fixtures.hostile_snapshots import SnapshotEntry, with_snapshots
from tests.fixtures.qcow2_images import BytesSource, Craft, compressed_entry, deflate
from tests.fuzz import targets, worker
from tests.fuzz.mutations import find_places, mutate
from tests.fuzz.targets import TARGETS, file_of, outcome
from tests.fuzz.worker import MEMORY, SECONDS, Fuzzer, peak_memory, reset_peak


def crafted(version: int, cluster_bits: int) -> bytes:
    """Data, a hole, a zero cluster, a compressed one."""
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


def streamed(compression_type: str | None, cluster_size: int) -> bytes:
    rng = random.Random(cluster_size)
    content = b"".join(rng.choice((rng.randbytes(3000), bytes(7000), b"text" * 800)) for _ in range(20))
    with file_of(b"") as fd:
        source = BytesSource(content[: len(content) // 512 * 512])
        write_stream(source, fd, cluster_size=cluster_size, compression_type=compression_type)
        return os.pread(fd, 1 << 24, 0)


def written(cluster_size: int, *, compress: bool) -> bytes:
    rng = random.Random(cluster_size)
    with file_of(b"") as fd:
        store = GrowingFile(fd, "new")
        create_qcow2(store, 200_192, cluster_size=cluster_size)
        disk = open_qcow2_disk(store, compress=compress)
        for offset in range(0, 150_000, 50_000):
            disk.write(offset, rng.randbytes(3000) * 9)
        disk.zero(60_000, 5000)
        disk.flush()
        return os.pread(fd, 1 << 24, 0)


@cache
def seeds() -> dict[str, bytes]:
    images = {f"crafted {version} {bits}": crafted(version, bits) for version in (2, 3) for bits in (9, 12, 16)}
    images |= {"disk": written(4096, compress=False), "disk compressed": written(512, compress=True)}
    images |= {"stream": streamed(None, 4096), "stream zlib": streamed("zlib", 4096)}
    images |= {"stream zstd": streamed("zstd", 65536), "extended": extended(1 << 63 | 4 << 14, 0x00F0_0000_0000_0F0F)}
    table = SnapshotEntry(l1_table_offset=0x400), SnapshotEntry(l1_table_offset=0x400, id_str=b"2", name=b"x" * 99)
    return images | {"snapshots": with_snapshots(*table, tail=bytes(600))}


def suitable(target: str) -> list[bytes]:
    return [image for name, image in seeds().items() if target not in ("stream", "snapshots") or target in name]


def hold_to_limits(target: str, image: bytes, seed: int = 0) -> str:
    reset_peak()
    before, start = peak_memory(), time.process_time()
    word = outcome(target, image, seed)
    assert time.process_time() - start < SECONDS
    assert peak_memory() - before < MEMORY
    return word


@pytest.mark.parametrize("target", TARGETS)
def test_images_in_order_are_no_finding(target: str) -> None:
    assert {outcome(target, image, 1) for image in suitable(target)} != {"refused"}


@settings(max_examples=60)
@given(
    image=st.sampled_from(sorted(seeds().values())),
    changes=st.lists(st.tuples(st.integers(0, 1 << 16), st.integers(0, 255)), min_size=1, max_size=8),
    near=st.sampled_from([112, 2048, 1 << 16]),
    cut=st.one_of(st.none(), st.integers(0, 1 << 16)),
)
def test_changed_bytes(image: bytes, changes: list[tuple[int, int]], near: int, cut: int | None) -> None:
    changed = bytearray(image)
    for at, value in changes:
        changed[at % min(near, len(changed))] = value
    for target in ("read", "check", "disk"):
        hold_to_limits(target, bytes(changed[:cut]))


@pytest.mark.parametrize("target", TARGETS)
def test_changes_where_it_hurts(target: str) -> None:
    rng = random.Random(target)
    images = [(image, find_places(image)) for image in suitable(target)]
    seen = set()
    for seed in range(60):
        image, places = rng.choice(images)
        seen.add(hold_to_limits(target, mutate(image, places, rng), seed))
    assert any(word.endswith("refused") for word in seen)
    assert len(seen) > 1


@settings(max_examples=30)
@given(st.binary(max_size=2000))
def test_any_bytes_behind_the_magic(content: bytes) -> None:
    for target in TARGETS:
        hold_to_limits(target, b"QFI\xfb\0\0\0\x03" + content)


# The fuzzer itself: it finds what is wrong, and makes it small.


def _raises(error: Exception) -> targets.Target:
    def target(image: bytes, rng: random.Random) -> str:
        if image[30] != seeds()["disk"][30]:
            raise error
        return "data"

    return target


class TwoLinesError(DiskImageError):
    """What no error of ours can be since DiskImageError makes one line of its text."""

    def __str__(self) -> str:
        return "two: lines\nof it"


@pytest.mark.parametrize(
    ("error", "key"),
    [
        (KeyError("x"), "read KeyError"),
        (MemoryError(), "read MemoryError"),
        (TwoLinesError(""), "read AssertionError"),
        (DiskImageError("long: " + "x" * 500), "read AssertionError"),
        (InvalidImageError("nowhere"), "read AssertionError"),
    ],
)
def test_what_is_a_finding(error: Exception, key: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(targets, "TARGETS", {"read": _raises(error)})
    monkeypatch.setattr(worker, "TURNS", ("read",))
    (tmp_path / "seeds").mkdir()
    (tmp_path / "seeds" / "disk").write_bytes(seeds()["disk"])
    fuzzer = Fuzzer(tmp_path, tmp_path, qemu=False)
    for number in range(60):
        fuzzer.run(number)
    assert len(fuzzer.found) == 1
    assert next(iter(fuzzer.found)).startswith(key)
    (kept,) = tmp_path.glob("read-*.qcow2")
    image, seed = kept.read_bytes(), seeds()["disk"]
    if len(image) == len(seed):
        assert [at for at in range(len(seed)) if image[at] != seed[at]] == [30]
