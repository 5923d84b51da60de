# SPDX-License-Identifier: MIT
"""Subclusters, backing chains, data files and snapshots that QEMU made: what we read is what QEMU reads."""

from __future__ import annotations

import os
import random
from collections.abc import Callable
from pathlib import Path

import pytest

from pydiskimg.errors import UnsupportedImageError
from pydiskimg.extents import Extent, Kind
from pydiskimg.images.open import open_image
from pydiskimg.images.references import allow_references
from pydiskimg.protocols import read_bytes
from tests.fixtures.qcow2_images import EXTENDED_SHAPES, assert_contract, make_image, run, write_at_random
from tests.oracle.test_qcow2_oracle import mapped_by_qemu, random_reads

pytestmark = pytest.mark.oracle

Tool = Callable[[str], str]


@pytest.fixture(autouse=True)
def _qemu(tool: Tool) -> None:
    tool("qemu-img")
    tool("qemu-io")


def read_by_qemu(path: Path, *options: str) -> bytes:
    raw = path.with_name("by qemu.raw")
    run("qemu-img", "convert", "-f", "qcow2", "-O", "raw", *options, str(path), str(raw))
    return raw.read_bytes()


def assert_reads(path: Path, expected: bytes, *, seed: int, snapshot: str | None = None) -> list[Extent]:
    """Opened with the image's directory allowed, the image reads as expected, whole and in pieces."""
    with allow_references(path.parent) as references:
        source = open_image(path, references=references, snapshot=snapshot)
    with source:
        assert source.size == len(expected)
        assert read_bytes(source, 0, source.size) == expected
        random_reads(source, expected, seed=seed, count=40)
        extents = assert_contract(source)
    for extent in extents:
        assert extent.kind is Kind.DATA or not any(expected[extent.start : extent.end])
    return extents


@pytest.mark.parametrize("seed", range(2))
@pytest.mark.parametrize("shape", EXTENDED_SHAPES, ids=lambda shape: shape[0])
def test_subclusters(shape: tuple[str, int, str], seed: int, tmp_path: Path) -> None:
    path, expected = make_image(tmp_path, shape, seed=seed)
    assert assert_reads(path, expected, seed=seed) == mapped_by_qemu(path)


FORMS = [
    "compat=0.10",
    "compat=1.1",
    "cluster_size=512",
    "compat=0.10,cluster_size=4k",
    "cluster_size=2M,compression_type=zstd",
    "extended_l2=on,cluster_size=16k",
    "extended_l2=on",
]


@pytest.mark.parametrize("seed", range(8))
def test_chains(seed: int, tmp_path: Path) -> None:
    """Chains of two to five files of any form, each larger or smaller than the one below it."""
    rng = random.Random(seed)
    below, form = tmp_path / "base.img", rng.choice(["raw", "qcow2"])
    size = rng.randrange(1, 6000) * 512
    if form == "raw":
        below.write_bytes(rng.randbytes(size))
        os.truncate(below, size + rng.randrange(250_000))  # whole sectors or not
    else:
        run("qemu-img", "create", "-q", "-f", "qcow2", str(below), str(size))
        write_at_random(below, size, rng=rng, writes=10)
    for number in range(rng.randrange(1, 5)):
        options, size = rng.choice(FORMS), rng.randrange(1, 6000) * 512
        path = tmp_path / f"{number}.qcow2"
        named = rng.choice([below.name, f"./{below.name}", str(below)])
        where = ("-b", named, "-F", form, "-o", options)
        run("qemu-img", "create", "-q", "-f", "qcow2", *where, str(path), str(size))
        write_at_random(path, size, rng=rng, options=options, writes=10)
        below, form = path, "qcow2"
    assert_reads(below, read_by_qemu(below), seed=seed)
    with pytest.raises(UnsupportedImageError, match=r"names the backing file .* it was not opened"):
        open_image(below)


@pytest.mark.parametrize("raw", ["on", "off"])
@pytest.mark.parametrize("options", ["", "extended_l2=on", "cluster_size=512", "cluster_size=2M"])
def test_data_files(raw: str, options: str, tmp_path: Path) -> None:
    where = f"data_file={tmp_path}/data file,data_file_raw={raw}" + (f",{options}" if options else "")
    path, expected = make_image(tmp_path, ("data", 3_000_320, where), seed=1)
    assert_reads(path, expected, seed=1)
    if raw == "on":
        assert (tmp_path / "data file").read_bytes()[: len(expected)] == expected
    with pytest.raises(UnsupportedImageError, match=r"names the data file '.*/data file', which would be"):
        open_image(path)


@pytest.mark.parametrize("options", FORMS)
def test_snapshots(options: str, tmp_path: Path) -> None:
    path, size = tmp_path / "image.qcow2", 3 << 20
    rng = random.Random(options)
    run("qemu-img", "create", "-q", "-f", "qcow2", "-o", options, str(path), str(size))
    states = {}
    for name in ("first", "second one", "3", "dritter \N{SNOWMAN}"):
        write_at_random(path, size, rng=rng, options=options, writes=6, compress=name == "first")
        run("qemu-img", "snapshot", "-c", name, str(path))
        states[name] = read_by_qemu(path)
    write_at_random(path, size, rng=rng, options=options, writes=6, compress=False)
    assert_reads(path, read_by_qemu(path), seed=0)
    for number, (name, expected) in enumerate(states.items()):
        if name != "3":  # the third has the id 3, and the fourth none of these
            assert_reads(path, expected, seed=number, snapshot=name)
        assert_reads(path, expected, seed=number, snapshot=str(number + 1))
        assert read_by_qemu(path, "-l", f"snapshot.id={number + 1}") == expected


def test_a_snapshot_has_the_size_it_had(tmp_path: Path) -> None:
    path, expected = make_image(tmp_path, ("v3-64k", 1_000_448, "compat=1.1"), seed=11)
    run("qemu-img", "snapshot", "-c", "small", str(path))
    run("qemu-img", "resize", "-q", str(path), "70M")
    run("qemu-io", "-f", "qcow2", "-c", "write -P 9 0 600k", str(path))
    assert_reads(path, expected, seed=1, snapshot="small")
    with open_image(path) as source:
        assert source.size == 70 << 20


def test_a_snapshot_over_a_backing_file(tmp_path: Path) -> None:
    base, path = tmp_path / "base.raw", tmp_path / "top.qcow2"
    base.write_bytes(random.Random(2).randbytes(1 << 20))
    run("qemu-img", "create", "-q", "-f", "qcow2", "-b", base.name, "-F", "raw", str(path), "2M")
    run("qemu-io", "-f", "qcow2", "-c", "write -P 9 100k 600k", str(path))
    run("qemu-img", "snapshot", "-c", "a", str(path))
    expected = read_by_qemu(path)
    run("qemu-io", "-f", "qcow2", "-c", "write -P 7 0 2M", str(path))
    assert_reads(path, expected, seed=1, snapshot="a")


@pytest.mark.parametrize("bits", [1, 2, 4, 8, 16, 32, 64])
def test_refcount_widths(bits: int, tmp_path: Path) -> None:
    path, expected = make_image(tmp_path, ("v3-64k", 2 << 20, f"refcount_bits={bits}"), seed=bits)
    assert assert_reads(path, expected, seed=bits) == mapped_by_qemu(path)


def test_bitmaps_do_not_matter(tmp_path: Path) -> None:
    path, expected = make_image(tmp_path, ("v3-64k", 2 << 20, "compat=1.1"), seed=3)
    run("qemu-img", "bitmap", "--add", str(path), "changed")
    with open_image(path) as source:
        assert source.header.has_bitmaps  # type: ignore[attr-defined]
    assert_reads(path, expected, seed=3)


def test_luks_is_named(tmp_path: Path) -> None:
    secret = ("--object", "secret,id=s,data=x", "-o", "encrypt.format=luks,encrypt.key-secret=s,encrypt.iter-time=200")
    path = tmp_path / "image.qcow2"
    run("qemu-img", "create", "-q", "-f", "qcow2", *secret, str(path), "1M")
    with pytest.raises(UnsupportedImageError, match="is encrypted with LUKS, and encrypted images cannot be read; "):
        open_image(path)
