# SPDX-License-Identifier: MIT
"""qemu-img is the judge of the qcow2 images that are written here: no error, no leak, the same bytes."""

from __future__ import annotations

import json
import os
import random
import re
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from uuid import UUID

import pytest

from pydiskimg.disks.store import GrowingFile
from pydiskimg.fs.ext4.make import make_ext
from pydiskimg.images.create import new_image
from pydiskimg.images.open import open_image
from pydiskimg.images.open_disk import open_disk
from pydiskimg.images.qcow2.write import l2_map, refcounts
from pydiskimg.images.qcow2.write.create import create_qcow2
from pydiskimg.images.qcow2.write.disk import Qcow2Disk, open_qcow2_disk
from pydiskimg.images.references import allow_references
from pydiskimg.partitions.make import Content, NewPartition, plan_partition_table
from pydiskimg.regions.region import Region
from pydiskimg.transfer.copy import copy
from tests.fixtures.qcow2_images import SHAPES, make_image, run
from tests.fixtures.stores import CrashingStore, MemoryStore

pytestmark = pytest.mark.oracle


def check(path: Path) -> None:
    """No error and no leak."""
    run("qemu-img", "check", "-q", "-f", "qcow2", str(path))


def assert_holds(path: Path, data: bytes | bytearray) -> None:
    """The image is sound, and QEMU reads data from it."""
    check(path)
    raw = path.with_suffix(".expected")
    raw.write_bytes(data)
    run("qemu-img", "compare", "-q", "-f", "raw", "-F", "qcow2", str(raw), str(path))


@contextmanager
def store_at(path: Path) -> Iterator[GrowingFile]:
    fd = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
    try:
        yield GrowingFile(fd, str(path))
    finally:
        os.close(fd)


def contents(rng: random.Random, length: int) -> bytes:
    """Bytes that compress well, badly or not at all."""
    kind = rng.randrange(4)
    if kind == 0:
        return rng.randbytes(length)
    if kind == 1:
        return bytes([rng.randrange(1, 256)]) * length
    if kind == 2:
        return bytes(length)
    return b"".join(b"%d and " % rng.randrange(1000) for _ in range(length // 5 + 1))[:length]


def change(
    disk: Qcow2Disk, data: bytearray, rng: random.Random, count: int, *, touched: bytearray | None = None
) -> None:
    """Write, zero, read and flush at random; data is what the disk should hold, and follows.

    touched gets a 1 for every byte that is changed.
    """
    size, cluster = disk.size, disk.cluster_size
    for _ in range(count):
        start = rng.randrange(size)
        length = rng.choice((rng.randrange(1, 3 * cluster), rng.randrange(1, cluster), 5 * cluster))
        if rng.random() < 0.5:
            start, length = start // cluster * cluster, -(-length // cluster) * cluster
        length = min(length, size - start)
        action = rng.random()
        if touched is not None:
            touched[start : start + length] = b"\1" * length
        if action < 0.2:
            disk.zero(start, length)
            data[start : start + length] = bytes(length)
        elif action < 0.9:
            new = contents(rng, length)
            disk.write(start, new)
            data[start : start + length] = new
        else:
            disk.flush()
        found = bytearray(min(length + 100, size - start))
        disk.read_into(start, found)
        assert found == data[start : start + len(found)]


@pytest.fixture(scope="module")
def raw(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A disk of data, zeros and holes, that ends within a cluster and a sector."""
    path = tmp_path_factory.mktemp("raw") / "disk.raw"
    rng = random.Random(1)
    with path.open("wb") as file:
        for _ in range(30):
            file.write(contents(rng, rng.randrange(1, 200000)))
            file.seek(rng.randrange(1, 300000), os.SEEK_CUR)
        file.write(b"the end")
    return path


@pytest.mark.parametrize("cluster_bits", range(9, 22))
@pytest.mark.parametrize(
    ("version", "compression_type", "compress"),
    [(2, "zlib", False), (2, "zlib", True), (3, "zlib", False), (3, "zlib", True), (3, "zstd", True)],
)
def test_convert(
    tmp_path: Path, raw: Path, cluster_bits: int, version: int, compression_type: str, *, compress: bool
) -> None:
    path, unit = tmp_path / "new.qcow2", 1 << cluster_bits
    with (
        open_image(raw, format="raw") as source,
        new_image(
            path,
            source.size,
            format="qcow2",
            cluster_size=unit,
            version=version,
            compression_type=compression_type,
            compress=compress,
        ) as disk,
    ):
        copy(source, disk, unit=unit, verify=cluster_bits == 16)
    check(path)
    run("qemu-img", "compare", "-q", "-f", "raw", "-F", "qcow2", str(raw), str(path))
    if compress and 9 < cluster_bits <= 16:
        assert path.stat().st_size < raw.stat().st_blocks * 512


@pytest.mark.parametrize("compress", [False, True])
def test_other_tools_see_the_size_rounded_up(tmp_path: Path, *, compress: bool) -> None:
    path = tmp_path / "new.qcow2"
    with new_image(path, 1000, format="qcow2", compress=compress) as disk:
        disk.write(990, b"0123456789")
    assert '"virtual-size": 1024,' in run("qemu-img", "info", "--output=json", str(path))
    assert_holds(path, bytes(990) + b"0123456789" + bytes(24))


@pytest.mark.parametrize("cluster_bits", [9, 10, 12, 16, 21])
@pytest.mark.parametrize("compress", [False, True])
@pytest.mark.parametrize("version", [2, 3])
def test_random_changes(tmp_path: Path, cluster_bits: int, version: int, *, compress: bool) -> None:
    rng = random.Random(f"{cluster_bits} {version} {compress}")
    cluster = 1 << cluster_bits
    size = (700 if cluster_bits < 16 else 7) * cluster - rng.choice((0, 512))
    with store_at(tmp_path / "x.qcow2") as store:
        compression_type = "zstd" if version == 3 else "zlib"
        create_qcow2(store, size, cluster_size=cluster, version=version, compression_type=compression_type)
        disk = open_qcow2_disk(store, compress=compress)
        data = bytearray(size)
        change(disk, data, rng, 60 if cluster_bits < 21 else 10)
        disk.flush()
    assert_holds(tmp_path / "x.qcow2", data)


@pytest.mark.parametrize("shape", SHAPES, ids=lambda shape: str(shape[0]))
def test_images_of_others(tmp_path: Path, shape: tuple[str, int, str]) -> None:
    path, before = make_image(tmp_path, shape, seed=1, writes=30 if "2m" not in shape[0] else 8)
    data = bytearray(before)
    compress = bool(shape[1] % 3)
    with open_disk(path, writable=True, format="qcow2", compress=compress) as disk:
        assert not disk.reads_as_zero
        change(disk, data, random.Random(2), 30 if disk.cluster_size < 1 << 21 else 5)
    assert_holds(path, data)


@pytest.mark.parametrize("bits", [1, 2, 4, 8, 16, 32, 64])
@pytest.mark.parametrize("compress", [False, True])
def test_refcount_widths(tmp_path: Path, bits: int, *, compress: bool) -> None:
    path, size = tmp_path / "x.qcow2", 3 << 20
    options = f"cluster_size=512,refcount_bits={bits}"
    run("qemu-img", "create", "-q", "-f", "qcow2", "-o", options, str(path), str(size))
    rng = random.Random(bits)
    data = bytearray(size)
    with open_disk(path, writable=True, format="qcow2", compress=compress) as disk:
        change(disk, data, rng, 40)
        filling = contents(rng, size // 2) + rng.randbytes(size // 2)
        disk.write(0, filling)
        data[:] = filling
        disk.zero(1 << 20, 1 << 20)
        data[1 << 20 : 2 << 20] = bytes(1 << 20)
        disk.flush()
        change(disk, data, rng, 40)
    assert_holds(path, data)


@pytest.mark.parametrize("options", ["compat=1.1,cluster_size=4096", "compat=0.10,cluster_size=512"])
def test_snapshots_keep_what_they_hold(tmp_path: Path, options: str) -> None:
    path, size = tmp_path / "x.qcow2", 1 << 20
    run("qemu-img", "create", "-q", "-f", "qcow2", "-o", options, str(path), str(size))
    rng, data, kept = random.Random(options), bytearray(size), {}
    for name in ("one", "two", "three"):
        with open_disk(path, writable=True, format="qcow2", compress=name == "two") as disk:
            change(disk, data, rng, 25)
        check(path)
        run("qemu-img", "snapshot", "-c", name, str(path))
        kept[name] = bytes(data)
    with open_disk(path, writable=True, format="qcow2") as disk:
        change(disk, data, rng, 25)
    assert_holds(path, data)
    for name, expected in kept.items():
        run("qemu-img", "convert", "-l", name, "-O", "raw", str(path), str(tmp_path / "kept"))
        assert (tmp_path / "kept").read_bytes() == expected
        run("qemu-img", "snapshot", "-d", name, str(path))
        assert_holds(path, data)


@pytest.mark.parametrize("options", ["compat=1.1,cluster_size=4096", "compat=0.10,cluster_size=1024"])
@pytest.mark.parametrize("backing_size", [300000, 900096])
def test_backing_files(tmp_path: Path, options: str, backing_size: int) -> None:
    rng, size = random.Random(backing_size), 600064
    below = rng.randbytes(backing_size)
    (tmp_path / "base").write_bytes(below)
    path = tmp_path / "x.qcow2"
    run("qemu-img", "create", "-q", "-f", "qcow2", "-b", "base", "-F", "raw", "-o", options, str(path), str(size))
    data = bytearray(below[:size].ljust(size, b"\0"))
    with (
        allow_references(tmp_path) as references,
        open_disk(path, writable=True, format="qcow2", references=references) as disk,
    ):
        assert not disk.reads_as_zero
        change(disk, data, rng, 50)
    assert_holds(path, data)
    if "0.10" not in options and backing_size > size:
        with (
            allow_references(tmp_path) as references,
            open_disk(path, writable=True, format="qcow2", references=references) as disk,
        ):
            disk.grow(1000000)
            data.extend(bytes(disk.size - len(data)))
            change(disk, data, rng, 20)
        assert_holds(path, data)
    assert (tmp_path / "base").read_bytes() == below


def test_in_turns_with_qemu_io(tmp_path: Path) -> None:
    path, size, rng = tmp_path / "x.qcow2", 4 << 20, random.Random(5)
    data = bytearray(size)
    with new_image(path, size, format="qcow2", cluster_size=4096, compress=True) as disk:
        assert isinstance(disk, Qcow2Disk)
        change(disk, data, rng, 30)
    for _ in range(6):
        commands = []
        for _ in range(15):
            start, length = rng.randrange(0, size, 512), rng.randrange(512, 30000, 512)
            length = min(length, size - start)
            value = rng.randrange(256)
            command = f"write -P {value}" if rng.random() < 0.7 else "write -z -u"
            data[start : start + length] = bytes([value if "-P" in command else 0]) * length
            commands += ["-c", f"{command} {start} {length}"]
        run("qemu-io", "-f", "qcow2", *commands, str(path))
        with open_image(path) as image:
            found = bytearray(size)
            image.read_into(0, found)
        assert found == data
        with open_disk(path, writable=True, format="qcow2", compress=True) as opened:
            change(opened, data, rng, 15)
        assert_holds(path, data)


def test_bitmaps_stay_true(tmp_path: Path) -> None:
    path = tmp_path / "x.qcow2"
    run("qemu-img", "create", "-q", "-f", "qcow2", str(path), "1M")
    run("qemu-img", "bitmap", "--add", str(path), "changes")
    with open_disk(path, writable=True, format="qcow2") as disk:
        disk.write(0, b"new")
        disk.flush()
        assert int.from_bytes(path.read_bytes()[88:96], "big") == 1
    run("qemu-img", "check", "-q", str(path))
    found = json.loads(run("qemu-img", "info", "--output=json", str(path)))["format-specific"]["data"]["bitmaps"]
    assert [(bitmap["name"], bitmap["flags"]) for bitmap in found] == [("changes", ["auto"])]


@pytest.mark.parametrize(("cluster_size", "largest"), [(512, 40 << 20), (65536, 5 << 40)])
def test_grow(tmp_path: Path, cluster_size: int, largest: int) -> None:
    path, size = tmp_path / "x.qcow2", 100000
    data = {0: b"first"}
    with new_image(path, size, format="qcow2", cluster_size=cluster_size) as disk:
        assert isinstance(disk, Qcow2Disk)
        disk.write(0, b"first")
        while disk.size < largest:
            disk.grow(min(largest, disk.size * 3 + 1000))
            data[disk.size - 5] = b"%05d" % len(data)
            disk.write(disk.size - 5, data[disk.size - 5])
        for start, expected in data.items():
            found = bytearray(5)
            disk.read_into(start, found)
            assert found == expected
    check(path)
    with open_disk(path, writable=True, format="qcow2") as opened:
        assert opened.size == largest
        opened.grow(largest + 512)
    check(path)
    patterns = [part for start, text in data.items() for part in ("-c", f"read -v {start // 512 * 512} 512")]
    shown = run("qemu-io", "-r", "-f", "qcow2", *patterns, str(path))
    sectors = b"".join(
        bytes.fromhex(line) for line in re.findall(r"^[0-9a-f]{8,}:  ((?:[0-9a-f]{2} )+)", shown, re.MULTILINE)
    )
    assert len(sectors) == 512 * len(data)
    for number, (start, expected) in enumerate(data.items()):
        assert sectors[512 * number + start % 512 :].startswith(expected[: 512 - start % 512])


def test_a_system_disk(tmp_path: Path) -> None:
    """Partitioned, formatted, and judged as what QEMU makes of it."""
    path, out = tmp_path / "system.qcow2", tmp_path / "system.raw"
    with new_image(path, 200 << 20, format="qcow2", cluster_size=4096) as disk:
        table = plan_partition_table(
            disk.size,
            disk.sector_size,
            [NewPartition(Content.LINUX, 64 << 20, bootable=True), NewPartition(Content.LINUX)],
        )
        for partition in table.partitions:
            make_ext(Region(disk, partition.start, partition.length), uuid=UUID(int=7), now=1)
        table.write(disk)
    check(path)
    run("qemu-img", "convert", "-O", "raw", str(path), str(out))
    assert "system.raw1" in run("sfdisk", "--dump", str(out))
    for partition in table.partitions:
        part = tmp_path / "part"
        with out.open("rb") as file:
            file.seek(partition.start)
            part.write_bytes(file.read(partition.length))
        run("e2fsck", "-fn", str(part))


@pytest.mark.parametrize(
    ("options", "compress", "small_caches"),
    [
        ("refcount_bits=64,cluster_size=512", False, False),
        ("compat=1.1,cluster_size=1024", True, False),
        ("compat=0.10,cluster_size=512", False, True),
        ("refcount_bits=32,cluster_size=512", True, True),
    ],
)
def test_a_machine_that_stops(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, options: str, *, compress: bool, small_caches: bool
) -> None:
    """Whatever of the writes since the last flush reaches the file: leaks at worst, and what was flushed is there."""
    if small_caches:
        monkeypatch.setattr(l2_map, "L2_CACHE", 2048)
        monkeypatch.setattr(refcounts, "BLOCK_CACHE", 2048)
        monkeypatch.setattr(refcounts, "MOST_RELEASES", 20)
    path, size, rng = tmp_path / "x.qcow2", 2 << 20, random.Random(options)
    run("qemu-img", "create", "-q", "-f", "qcow2", "-o", options, str(path), str(size))
    data = bytearray(size)
    with open_disk(path, writable=True, format="qcow2") as opened:
        change(opened, data, rng, 10)
    run("qemu-img", "snapshot", "-c", "kept", str(path))
    store = CrashingStore(path.read_bytes())
    disk = open_qcow2_disk(store, compress=compress)
    flushed = []  # the number of flushes of the store, contents, and which bytes are changed from there on
    for step in range(6):
        touched = bytearray(size)
        flushed.append((len(store.epochs) - 1, bytes(data), touched))
        change(disk, data, rng, 12, touched=touched)
        if step == 4:
            disk.write(0, rng.randbytes(size))
            disk.zero(0, size)
            data[:], touched[:] = bytes(size), b"\1" * size
        disk.flush()
    flushed.append((len(store.epochs) - 1, bytes(data), bytearray(size)))
    judged, share = 0, min(1, 80 / (3 * len(store.epochs)))
    for epoch, state in store.crashes(rng, each=2):
        if rng.random() > share:
            continue
        path.write_bytes(state)
        found = subprocess.run(["qemu-img", "check", "-q", str(path)], capture_output=True, text=True, check=False)
        assert found.returncode in (0, 3), f"state {judged}: {found.stdout} {found.stderr}"
        _, expected, touched = next(each for each in reversed(flushed) if each[0] <= epoch)
        assert_kept(open_qcow2_disk(MemoryStore(state)), expected, touched)
        judged += 1
    assert judged > 20
    path.write_bytes(store.data)
    assert_holds(path, data)


def assert_kept(disk: Qcow2Disk, expected: bytes, touched: bytes | bytearray) -> None:
    found = bytearray(disk.size)
    disk.read_into(0, found)
    keep = int.from_bytes(touched.translate(b"\xff\0" + bytes(254)), "big")
    assert int.from_bytes(found, "big") & keep == int.from_bytes(expected, "big") & keep
