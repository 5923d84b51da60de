# SPDX-License-Identifier: MIT
"""pydiskimg amend, judged by qemu-img: the same options as by its own amend, sound tables, the same disk."""

from __future__ import annotations

import hashlib
import json
import random
import subprocess
from pathlib import Path
from typing import Any

import pytest

from pydiskimg.cli import main
from tests.fixtures.qcow2_chains import twin
from tests.fixtures.qcow2_images import run
from tests.fixtures.used_by_qemu import in_qemu

pytestmark = pytest.mark.oracle

SIZE = 3 << 20


def made(path: Path, options: str, seed: int, *words: str) -> Path:
    """An image with data, zeros, an unmapped part, and snapshots that share some of it."""
    rng = random.Random(seed)
    run("qemu-img", "create", "-q", "-f", "qcow2", *words, "-o", options, str(path), str(SIZE))
    for number in range(3):
        commands = []
        for _ in range(5):
            start = rng.randrange(SIZE // 512) * 512
            length = min(SIZE - start, rng.randrange(1, 900) * 512)
            word = rng.choice((f"write -P {rng.randrange(1, 255)}", "write -z", "write -z -u", "discard"))
            commands += ["-c", f"{word} {start} {length}"]
        run("qemu-io", "-f", "qcow2", *commands, str(path))
        if number < 2 and seed % 2:
            run("qemu-img", "snapshot", "-c", f"s{number}", str(path))
    return path


def told(path: Path) -> Any:
    run("qemu-img", "check", "-q", "-f", "qcow2", str(path))
    found = json.loads(run("qemu-img", "info", "--output=json", "-f", "qcow2", str(path)))
    return found["format-specific"]["data"], found["virtual-size"]


def contents(path: Path, *words: str) -> bytes:
    raw = path.with_suffix(".out")
    run("qemu-img", "convert", *words, "-f", "qcow2", "-O", "raw", str(path), str(raw))
    return raw.read_bytes()


def digests(path: Path, *, disk_only: bool = False) -> list[str]:
    """What the disk shows and each snapshot."""
    snapshots = json.loads(run("qemu-img", "info", "--output=json", str(path))).get("snapshots", [])
    snapshots = [] if disk_only else snapshots
    each = [[], *(["-l", f"snapshot.id={each['id']}"] for each in snapshots)]
    return [hashlib.md5(contents(path, *words), usedforsecurity=False).hexdigest() for words in each]


def by_qemu(path: Path, options: str) -> bool:
    command = ["qemu-img", "amend", "-f", "qcow2", "-o", options, str(path)]
    return subprocess.run(command, capture_output=True, check=False).returncode == 0


def ours(path: Path, options: str) -> bool:
    try:
        return main(["amend", "-q", "--allow-references", str(path.parent), "-o", options, str(path)]) == 0
    except SystemExit as ended:
        return not ended.code


# Narrow counts in small clusters only: QEMU takes its time over each of those that a block has.
CHANGES = (
    ("cluster_size=4k", ["compat=0.10", "compat=1.1", "lazy_refcounts=on", "compat=0.10"]),
    ("cluster_size=512", ["refcount_bits=64", "refcount_bits=8", "compat=0.10", "compat=v3,refcount_bits=32"]),
    ("cluster_size=1k", ["refcount_bits=1", "refcount_bits=2", "refcount_bits=16,compat=v2,lazy_refcounts=off"]),
    ("cluster_size=64k", ["refcount_bits=64", "lazy_refcounts=on,refcount_bits=32", "lazy_refcounts=off,size=4M"]),
    ("cluster_size=4k,compat=0.10", ["refcount_bits=32", "compat=1.1,size=5M,refcount_bits=32", "size=1M", "size=4M"]),
    ("cluster_size=16k,extended_l2=on", ["refcount_bits=32", "compat=0.10", "size=6M", "lazy_refcounts=on"]),
    ("compression_type=zstd", ["lazy_refcounts=on,compat=0.10", "compat=3", "size=1M"]),
)


@pytest.mark.parametrize("seed", [2, 3])
@pytest.mark.parametrize(("options", "changes"), CHANGES)
def test_as_by_qemu(tmp_path: Path, options: str, changes: list[str], seed: int) -> None:
    path = made(tmp_path / "ours.qcow2", options, seed)
    theirs = twin([path], tmp_path / "theirs")[0]
    before = digests(path)
    for change in changes:
        assert ours(path, change) == by_qemu(theirs, change), change
        assert told(path) == told(theirs)
        if "size" in change:  # which QEMU gives snapshots, too, when they are read
            before = digests(theirs)
        # The disk is as QEMU's, and a snapshot is as it was: QEMU 7.2 changes some when it amends compat to 0.10.
        assert digests(path) == [*digests(theirs, disk_only=True), *before[1:]]
    run("qemu-io", "-f", "qcow2", "-c", "write -P 7 100k 300k", str(path))
    told(path)


def test_version_2_with_the_size_that_the_snapshots_have(tmp_path: Path) -> None:
    path = tmp_path / "ours.qcow2"
    run("qemu-img", "create", "-q", "-f", "qcow2", str(path), "1M")
    run("qemu-img", "snapshot", "-c", "small", str(path))
    run("qemu-img", "resize", "-q", str(path), "2M")
    theirs = twin([path], tmp_path / "theirs")[0]
    for options, is_possible in (("compat=0.10", False), ("compat=0.10,size=3M", False), ("compat=0.10,size=1M", True)):
        assert by_qemu(theirs, options) == is_possible
        assert ours(path, options) == is_possible, options
    assert told(path) == told(theirs)


@pytest.mark.parametrize("seed", [2, 3, 5])
def test_zeros_in_front_of_a_backing_file_are_stored(tmp_path: Path, seed: int) -> None:
    (tmp_path / "base.raw").write_bytes(b"\x55" * SIZE)
    path = made(tmp_path / "ours.qcow2", "cluster_size=4k", seed, "-b", "base.raw", "-F", "raw")
    before = digests(path)
    assert bytes(4096) in contents(path)
    assert ours(path, "compat=0.10")
    assert told(path)[0]["compat"] == "0.10"
    assert digests(path) == before


@pytest.mark.parametrize("compressed", [False, True])
def test_zstd(tmp_path: Path, *, compressed: bool) -> None:
    """Version 2 has zlib only, which matters where a cluster is compressed."""
    path = tmp_path / "ours.qcow2"
    run("qemu-img", "create", "-q", "-f", "qcow2", "-o", "compression_type=zstd", str(path), "1M")
    run("qemu-io", "-f", "qcow2", "-c", f"write {'-c ' * compressed}-P 5 0 64k", str(path))
    theirs = twin([path], tmp_path / "theirs")[0]
    before = digests(path)
    assert ours(path, "compat=0.10") == by_qemu(theirs, "compat=0.10") == (not compressed)
    assert told(path) == told(theirs)
    assert digests(path) == before


def test_a_data_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "ours.qcow2"
    run("qemu-img", "create", "-q", "-f", "qcow2", "-o", "data_file=one.raw,data_file_raw=on", path.name, "1M")
    run("qemu-io", "-f", "qcow2", "-c", "write -P 7 0 512k", path.name)
    before = digests(path)
    (tmp_path / "one.raw").rename(tmp_path / "two.raw")
    assert ours(path, "data_file=two.raw")
    assert digests(path) == before
    assert told(path)[0]["data-file-raw"]
    assert ours(path, "size=2M")
    assert (tmp_path / "two.raw").stat().st_size == 2 << 20
    assert ours(path, "data_file_raw=off")
    assert told(path)[0]["data-file-raw"] is False
    assert not ours(path, "data_file_raw=on")
    assert not ours(path, "compat=0.10")
    assert "data file" in capsys.readouterr().err


@pytest.mark.parametrize(
    "options",
    [
        "preallocation=full",
        "cluster_size=64k",
        "compression_type=zlib",
        "extended_l2=off",
        "encryption=off",
        "encrypt.format=luks",
        "backing_file=x",
        "backing_fmt=raw",
        "data_file=x",
        "data_file_raw=on",
        "data_file_raw=off",
        "refcount_bits=3",
        "lazy_refcounts=maybe",
        "nolazy_refcounts",
        "nodata_file_raw",
        "backing_file=",
        "compat=2",
        "size=x",
        "nonsense=1",
        "help",
        "compat",
        "",
    ],
)
def test_what_is_taken_and_refused(tmp_path: Path, options: str) -> None:
    path, theirs = tmp_path / "ours.qcow2", tmp_path / "theirs.qcow2"
    for each in (path, theirs):
        run("qemu-img", "create", "-q", "-f", "qcow2", str(each), "1M")
    before = path.read_bytes()
    assert ours(path, options) == by_qemu(theirs, options)
    assert path.read_bytes() == before


@pytest.mark.parametrize(
    "options", ["backing_file=base", "backing_fmt=qcow2", "backing_file=base,backing_fmt=qcow2", "lazy_refcounts"]
)
def test_a_backing_file_is_given_as_it_is(tmp_path: Path, options: str) -> None:
    """Its name and its format, or neither."""
    path, theirs = tmp_path / "ours.qcow2", tmp_path / "theirs.qcow2"
    run("qemu-img", "create", "-q", "-f", "qcow2", str(tmp_path / "base"), "1M")
    for each in (path, theirs):
        run("qemu-img", "create", "-q", "-f", "qcow2", "-b", "base", "-F", "qcow2", str(each))
    assert ours(path, options) == by_qemu(theirs, options)
    facts = [json.loads(run("qemu-img", "info", "--output=json", str(each))) for each in (path, theirs)]
    assert facts[0]["format-specific"] == facts[1]["format-specific"]


def test_the_image_is_in_use_or_raw(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path, raw = tmp_path / "ours.qcow2", tmp_path / "disk.raw"
    run("qemu-img", "create", "-q", "-f", "qcow2", str(path), "1M")
    raw.write_bytes(bytes(4096))
    with in_qemu(path, "qcow2"):
        assert not ours(path, "compat=0.10")
    assert not ours(raw, "compat=0.10")
    assert "expected a qcow2 image" in capsys.readouterr().err


def test_progress(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "ours.qcow2"
    run("qemu-img", "create", "-q", "-f", "qcow2", str(path), "1M")
    assert main(["amend", "-p", "-o", "compat=0.10", str(path)]) == 0
    assert "(100.00/100%)" in capsys.readouterr().out
