# SPDX-License-Identifier: MIT
"""QEMU writes images in every way it knows; what we read and map is what QEMU reads and maps."""

from __future__ import annotations

import json
import os
import random
import re
import subprocess
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from pydiskimg.errors import DiskImageError, UnsupportedImageError
from pydiskimg.extents import Extent, Kind, merged
from pydiskimg.images.open import open_image
from pydiskimg.images.qcow2 import layout
from pydiskimg.images.qcow2.header import read_header
from pydiskimg.images.qcow2.reader import Qcow2Source
from pydiskimg.protocols import Source, read_bytes
from tests.fixtures.qcow2_images import SHAPES, BytesSource, assert_contract, make_image, run

pytestmark = pytest.mark.oracle

Tool = Callable[[str], str]


@pytest.fixture(autouse=True)
def _qemu(tool: Tool) -> None:
    tool("qemu-img")
    tool("qemu-io")


@pytest.fixture(params=[(shape, seed) for shape in SHAPES for seed in (1, 2)], ids=lambda p: f"{p[0][0]}-{p[1]}")
def image(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[Path, bytes]:
    shape, seed = request.param
    return make_image(tmp_path, shape, seed=seed)


def mapped_by_qemu(path: Path) -> list[Extent]:
    def kind(entry: dict[str, bool]) -> Kind:
        if entry["data"]:
            return Kind.DATA
        return Kind.ZERO if entry["present"] else Kind.HOLE

    entries = json.loads(run("qemu-img", "map", "-f", "qcow2", "--output=json", str(path)))
    return list(merged(Extent(entry["start"], entry["length"], kind(entry)) for entry in entries))


def random_reads(source: Source, expected: bytes, *, seed: int, count: int = 200) -> None:
    rng = random.Random(seed)
    for _ in range(count):
        offset = rng.randrange(source.size)
        length = min(rng.choice((1, 511, 512, 4096, 65536, 100_000, 1 << 20, 5 << 20)), source.size - offset)
        if rng.random() < 0.5:
            length = rng.randrange(length + 1)
        found = read_bytes(source, offset, length)
        assert found == expected[offset : offset + length], f"offset {offset}, length {length}"
        ranges = source.file_ranges(offset, length)
        if ranges is not None:
            assert b"".join(os.pread(fd, count, at) for fd, at, count in ranges) == found


def test_reads_and_maps_as_qemu_does(image: tuple[Path, bytes]) -> None:
    path, expected = image
    with open_image(path) as source:
        assert (source.format, source.size) == ("qcow2", len(expected))
        assert read_bytes(source, 0, source.size) == expected
        extents = assert_contract(source)
        random_reads(source, expected, seed=1, count=60)
    assert extents == mapped_by_qemu(path)
    for extent in extents:
        assert extent.kind is Kind.DATA or not any(expected[extent.start : extent.end])


@pytest.mark.parametrize("shape", [shape for shape in SHAPES if shape[0] in ("v2-4k", "v3-64k-zstd", "v3-64k")])
def test_eight_threads_read_what_one_does(shape: tuple[str, int, str], tmp_path: Path) -> None:
    path, expected = make_image(tmp_path, shape, seed=8)
    with open_image(path) as source, ThreadPoolExecutor(8) as pool:
        for done in [pool.submit(random_reads, source, expected, seed=seed) for seed in range(8)]:
            done.result()


@pytest.mark.parametrize("options", ["compat=0.10", "compat=1.1", "compression_type=zstd", "cluster_size=2M"])
def test_compressed_by_convert(options: str, tmp_path: Path) -> None:
    raw, path = tmp_path / "a disk.raw", tmp_path / "a disk.qcow2"
    rng = random.Random(options)
    raw.write_bytes(b"".join(rng.choice((rng.randbytes(4096), bytes(8192), b"ab" * 3000)) for _ in range(500)))
    os.truncate(raw, raw.stat().st_size // 512 * 512)
    run("qemu-img", "convert", "-c", "-O", "qcow2", "-o", options, str(raw), str(path))
    with open_image(path) as source:
        assert isinstance(source, Qcow2Source)
        assert source.header.compression_type == ("zstd" if "zstd" in options else "zlib")
        random_reads(source, raw.read_bytes(), seed=3)
        assert read_bytes(source, 0, source.size) == raw.read_bytes()
        assert assert_contract(source) == mapped_by_qemu(path)


def test_snapshots_are_not_looked_at(tmp_path: Path) -> None:
    path, _ = make_image(tmp_path, ("v3-64k", 4 << 20, "compat=1.1"), seed=5)
    run("qemu-img", "snapshot", "-c", "first", str(path))
    run("qemu-io", "-c", "write -P 77 100k 300k", str(path))
    raw = tmp_path / "active.raw"
    run("qemu-img", "convert", "-O", "raw", str(path), str(raw))
    with open_image(path) as source:
        assert read_bytes(source, 0, source.size) == raw.read_bytes()
        assert assert_contract(source) == mapped_by_qemu(path)


def test_dirty_image_is_read(tmp_path: Path) -> None:
    path, expected = make_image(tmp_path, ("v3-64k", 1 << 20, "compat=1.1"), seed=6)
    content = bytearray(path.read_bytes())
    content[79] |= 1
    path.write_bytes(content)
    with open_image(path) as source:
        assert read_bytes(source, 0, source.size) == expected


@pytest.mark.parametrize("grow", ["+5000192", "+2T"])
def test_resized_image(grow: str, tmp_path: Path) -> None:
    path, expected = make_image(tmp_path, ("v3-4k", 1000448, "compat=1.1,cluster_size=4096"), seed=7)
    run("qemu-img", "resize", "-q", "-f", "qcow2", str(path), grow)
    with open_image(path) as source:
        assert read_bytes(source, 0, len(expected) + 65536) == expected + bytes(65536)
        assert assert_contract(source) == mapped_by_qemu(path)


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (
            "-b base.raw -F raw",
            "names the backing file 'base.raw', which would be the file 'base.raw'; it was not opened, since files "
            "that an image names are opened only below a directory that is allowed: --allow-references DIR, ",
        ),
        (
            "-o data_file=d.raw",
            "names the data file 'd.raw', which would be the file 'd.raw'; it was not opened, since files "
            "that an image names are opened only below a directory that is allowed: --allow-references DIR, ",
        ),
        (
            "--object secret,id=s,data=x -o encrypt.format=aes,encrypt.key-secret=s",
            "is encrypted with AES, and encrypted images cannot be read; ",
        ),
    ],
)
def test_what_qemu_makes_and_we_refuse(
    options: str, sentence: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("base.raw").write_bytes(bytes(1 << 20))
    run("qemu-img", "create", "-q", "-f", "qcow2", *options.split(), "image.qcow2", "1M")
    with pytest.raises(UnsupportedImageError, match=f"^{re.escape(f'image.qcow2: {sentence}')}"):
        open_image("image.qcow2")


@pytest.mark.parametrize("options", ["", "-o subformat=streamOptimized"])
@pytest.mark.parametrize("format_name", ["qcow", "qed", "vmdk", "vdi", "vpc", "vhdx", "parallels"])
def test_other_formats_of_qemu_are_named(format_name: str, options: str, tmp_path: Path) -> None:
    if options and format_name != "vmdk":
        return
    path = tmp_path / "disk.img"
    run("qemu-img", "create", "-q", "-f", format_name, *options.split(), str(path), "4M")
    with pytest.raises(
        UnsupportedImageError, match="only raw and qcow2 images are read; convert it with: qemu-img convert"
    ):
        open_image(path)
    with open_image(path, format="raw") as source:
        assert source.size == path.stat().st_size


@pytest.mark.parametrize("seed", range(3))
def test_damaged_images_give_an_error_or_what_qemu_reads(seed: int, tmp_path: Path) -> None:
    """Where we read a damaged image at all and QEMU does too, both read the same."""
    rng = random.Random(seed)
    shape = rng.choice([shape for shape in SHAPES if shape[1] < 4 << 20])
    path, _ = make_image(tmp_path, shape, seed=seed + 100)
    content = path.read_bytes()
    damaged, raw = tmp_path / "damaged.qcow2", tmp_path / "damaged.raw"
    for _ in range(25):
        changed = damage(content, rng)
        damaged.write_bytes(changed)
        mine = read_all(damaged)
        if mine is None:
            continue
        command = ["qemu-img", "convert", "-f", "qcow2", "-O", "raw", str(damaged), str(raw)]
        if subprocess.run(command, capture_output=True, check=False).returncode == 0:
            theirs = raw.read_bytes()  # QEMU forgets what is behind the last whole sector
            assert len(mine) - 512 < len(theirs) <= len(mine)
            assert mine[: len(theirs)] == theirs


def damage(content: bytes, rng: random.Random) -> bytes:
    """Change bits in the header, in the L1 table and in L2 tables."""
    header = read_header(BytesSource(content))
    l1 = header.l1_table_offset
    tables = [int.from_bytes(content[at : at + 8], "big") & layout.ENTRY_OFFSET for at in range(l1, l1 + 64, 8)]
    changed = bytearray(content)
    for _ in range(rng.randrange(1, 4)):
        table = rng.choice([table for table in tables if 0 < table < len(content)])
        at = rng.choice((rng.randrange(20, 112), rng.randrange(l1, l1 + 64), *[rng.randrange(table, table + 512)] * 4))
        changed[at] ^= 1 << rng.randrange(8)
    return bytes(changed)


def read_all(path: Path) -> bytes | None:
    try:
        with open_image(path) as source:
            assert_contract(source)
            return read_bytes(source, 0, source.size) if source.size < 1 << 26 else None
    except DiskImageError:
        return None
