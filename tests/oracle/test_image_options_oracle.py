# SPDX-License-Identifier: MIT
"""New images with the options of qemu-img create: the same as QEMU's own, as qemu-img sees them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from pydiskimg.cli import main
from tests.fixtures.qcow2_images import run

pytestmark = pytest.mark.oracle

MIB = 1 << 20


def facts(path: Path) -> dict[str, Any]:
    run("qemu-img", "check", "-q", "-f", "qcow2", str(path))
    found = json.loads(run("qemu-img", "info", "--output=json", str(path)))
    return {key: found[key] for key in ("virtual-size", "cluster-size", "format-specific")}


@pytest.mark.parametrize(
    "options",
    [
        *(f"refcount_bits={1 << order}" for order in range(7)),
        "refcount_bits=64,cluster_size=512",
        "lazy_refcounts=on",
        "preallocation=metadata",
        "preallocation=falloc,cluster_size=4k",
        "preallocation=full,refcount_bits=8",
        "preallocation=metadata,compat=0.10",
    ],
)
def test_the_same_image(tmp_path: Path, options: str) -> None:
    ours, theirs = tmp_path / "ours.qcow2", tmp_path / "theirs.qcow2"
    assert main(["create", "-q", "-f", "qcow2", "-o", options, str(ours), "5M"]) == 0
    run("qemu-img", "create", "-q", "-f", "qcow2", "-o", options, str(theirs), "5M")
    assert facts(ours) == facts(theirs)
    if "preallocation" in options:
        rows = json.loads(run("qemu-img", "map", "--output=json", "-f", "qcow2", str(ours)))
        assert [row["length"] for row in rows if row["data"] or "offset" in row] != []
        assert sum(row["length"] for row in rows if "offset" in row) == 5 * MIB
    stored = ours.stat().st_blocks * 512
    assert (stored >= 5 * MIB) == ("falloc" in options or "full" in options)
    run("qemu-io", "-f", "qcow2", "-c", "read -P 0 0 5M", "-c", "write -P 7 100k 3M", str(ours))
    facts(ours)


@pytest.mark.parametrize("preallocation", ["metadata", "falloc", "full"])
def test_a_copy_is_preallocated(tmp_path: Path, preallocation: str) -> None:
    source, target = tmp_path / "source.raw", tmp_path / "target.qcow2"
    source.write_bytes(b"x" * MIB + bytes(3 * MIB) + b"y" * MIB)
    words = ["-f", "raw", "-O", "qcow2", "-o", f"preallocation={preallocation}"]
    assert main(["convert", *words, str(source), str(target)]) == 0
    facts(target)
    run("qemu-img", "compare", "-q", "-f", "raw", "-F", "qcow2", str(source), str(target))
    rows = json.loads(run("qemu-img", "map", "--output=json", "-f", "qcow2", str(target)))
    assert sum(row["length"] for row in rows if "offset" in row) == 5 * MIB


@pytest.mark.parametrize(("preallocation", "is_stored"), [("off", False), ("falloc", True), ("full", True)])
def test_a_raw_file(tmp_path: Path, preallocation: str, *, is_stored: bool) -> None:
    path = tmp_path / "disk.raw"
    assert main(["create", "-q", "-f", "raw", "-o", f"preallocation={preallocation}", str(path), "3M"]) == 0
    assert path.read_bytes() == bytes(3 * MIB)
    assert (path.stat().st_blocks * 512 >= 3 * MIB) == is_stored


@pytest.mark.parametrize(
    ("words", "status", "said"),
    [
        (["-f", "raw", "-o", "preallocation=metadata"], 1, "preallocation=metadata is not possible for raw"),
        (["-f", "raw", "-o", "refcount_bits=8"], 1, "are for qcow2 images"),
        (["-f", "qcow2", "-o", "compat=v2,refcount_bits=8"], 1, "refcount_bits=8 needs compat=1.1"),
        (["-f", "qcow2", "-o", "compat=v2,lazy_refcounts=on"], 1, "lazy_refcounts=on needs compat=1.1"),
        (["-f", "qcow2", "-b", "x", "-F", "raw", "-u", "-o", "preallocation=full"], 1, "would hide the backing file"),
    ],
)
def test_refused(tmp_path: Path, words: list[str], status: int, said: str, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "disk"
    try:
        ended = main(["create", *words, str(path), "1M"])
    except SystemExit as wrong:
        ended = int(str(wrong.code))
    assert ended == status
    assert said in capsys.readouterr().err
    assert not path.exists()
