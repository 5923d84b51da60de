# SPDX-License-Identifier: MIT
"""Images with extended L2 entries, written here and by QEMU in turns: the same bytes, sound tables, the same map."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pytest

from pydiskimg.cli import main
from pydiskimg.images.open_disk import open_disk
from pydiskimg.images.references import allow_references
from tests.fixtures.qcow2_images import run

pytestmark = pytest.mark.oracle

SIZE = (3 << 20) + 512
SHAPES = ("cluster_size=16k", "cluster_size=64k,refcount_bits=1", "cluster_size=2M")


def check(path: Path) -> None:
    run("qemu-img", "check", "-q", "-f", "qcow2", str(path))


def rows(path: Path) -> Any:
    """What QEMU shows of each part of the disk, without where it lies in the file."""
    found = json.loads(run("qemu-img", "map", "--output=json", "-f", "qcow2", str(path)))
    merged: list[list[Any]] = []
    for row in found:
        told = [row["depth"], row["present"], row["zero"], row["data"]]
        if merged and merged[-1][2:] == told:
            merged[-1][1] += row["length"]
        else:
            merged.append([row["start"], row["length"], *told])
    return merged


def contents(path: Path, *options: str) -> bytes:
    raw = path.with_suffix(".out")
    run("qemu-img", "convert", *options, "-f", "qcow2", "-O", "raw", str(path), str(raw))
    return raw.read_bytes()


def a_range(rng: random.Random, *, sectors: bool) -> tuple[int, int]:
    start = rng.randrange(SIZE)
    length = min(
        rng.choice((rng.randrange(1, 3000), rng.randrange(1, 70_000), rng.randrange(1, 600_000))), SIZE - start
    )
    if sectors or rng.random() < 0.4:
        start = start // 512 * 512
        length = min(-(-length // 512) * 512, SIZE - start)
    return start, length


class Both:
    """An image that both programs change, and what it should hold."""

    def __init__(self, path: Path, rng: random.Random, backing: Path | None) -> None:
        self.path = path
        self.rng = rng
        self.data = bytearray(SIZE)
        if backing is not None:
            known = backing.read_bytes()[:SIZE]
            self.data[: len(known)] = known

    def write_here(self, *, compress: bool) -> None:
        rng = self.rng
        with (
            allow_references(self.path.parent) as allowed,
            open_disk(self.path, writable=True, format="qcow2", references=allowed, compress=compress) as disk,
        ):
            for _ in range(rng.randrange(1, 8)):
                start, length = a_range(rng, sectors=False)
                if rng.random() < 0.4:
                    disk.zero(start, length)
                    self.data[start : start + length] = bytes(length)
                else:
                    new = rng.choice((rng.randbytes(length), b"\x17" * length))
                    disk.write(start, new)
                    self.data[start : start + length] = new
                found = bytearray(min(SIZE - start, length + 3000))
                disk.read_into(start, found)
                assert found == self.data[start : start + len(found)]

    def write_there(self) -> None:
        words = []
        for _ in range(self.rng.randrange(1, 6)):
            start, length = a_range(self.rng, sectors=True)
            byte = self.rng.randrange(1, 255)
            word = self.rng.choice((f"write -P {byte}", "write -z", "write -z -u"))
            self.data[start : start + length] = (bytes([byte]) if "P" in word else b"\0") * length
            words += ["-c", f"{word} {start} {length}"]
        run("qemu-io", "-f", "qcow2", *words, str(self.path))

    def judge(self) -> None:
        check(self.path)
        assert contents(self.path) == self.data


@pytest.mark.parametrize("backed", [False, True])
@pytest.mark.parametrize("shape", SHAPES)
def test_both_programs_in_turns(tmp_path: Path, shape: str, *, backed: bool) -> None:
    rng = random.Random(f"{shape} {backed}")
    backing = None
    words: list[str] = []
    if backed:
        backing = tmp_path / "base.raw"
        backing.write_bytes(rng.randbytes(2 << 20))
        words = ["-b", "base.raw", "-F", "raw"]
    path = tmp_path / "both.qcow2"
    assert main(["create", "-q", "-f", "qcow2", *words, "-o", f"{shape},extended_l2=on", str(path), str(SIZE)]) == 0
    both, kept = Both(path, rng, backing), {}
    for number in range(5):
        if number in (2, 4) and "=1" not in shape[12:]:
            kept[f"s{number}"] = bytes(both.data)
            assert main(["snapshot", "-c", f"s{number}", str(path)]) == 0
        both.write_here(compress=number % 2 == 1)
        both.write_there()
        both.judge()
    for name, data in kept.items():
        assert contents(path, "-l", f"snapshot.name={name}") == data


@pytest.mark.parametrize("shape", SHAPES[:2])
@pytest.mark.parametrize("backed", [False, True])
def test_the_same_map_as_by_qemu(tmp_path: Path, shape: str, *, backed: bool) -> None:
    """Writes and zeros of whole sectors; in front of a backing file zeros are told, too."""
    rng = random.Random(f"{shape} {backed} map")
    words = ["-b", "base.raw", "-F", "raw"] if backed else []
    (tmp_path / "base.raw").write_bytes(rng.randbytes(SIZE))
    ours, theirs = tmp_path / "ours.qcow2", tmp_path / "theirs.qcow2"
    for path in (ours, theirs):
        run("qemu-img", "create", "-q", "-f", "qcow2", *words, "-o", f"{shape},extended_l2=on", str(path), str(SIZE))
    for _ in range(5):
        start, length = a_range(rng, sectors=True)
        # Zeros that are not in front of a backing file are not told, which QEMU does.
        is_zero = backed and rng.random() < 0.4
        word = "write -z" if is_zero else "write -P 7"
        with (
            allow_references(tmp_path) as allowed,
            open_disk(ours, writable=True, format="qcow2", references=allowed) as disk,
        ):
            if is_zero:
                disk.zero(start, length)
            else:
                disk.write(start, b"\7" * length)
        run("qemu-io", "-f", "qcow2", "-c", f"{word} {start} {length}", str(theirs))
    check(ours)
    run("qemu-img", "compare", "-q", str(ours), str(theirs))
    assert sparse(rows(ours)) == sparse(rows(theirs))


def sparse(found: Any) -> Any:
    """Only what is stored as data, joined."""
    return [row[:2] for row in found if row[5] and row[2] == 0]


@pytest.mark.parametrize("preallocation", ["off", "metadata", "falloc", "full"])
@pytest.mark.parametrize("backed", [False, True])
def test_created(tmp_path: Path, preallocation: str, *, backed: bool) -> None:
    (tmp_path / "base.raw").write_bytes(b"\5" * SIZE)
    ours, theirs = tmp_path / "ours.qcow2", tmp_path / "theirs.qcow2"
    words = ["-b", "base.raw", "-F", "raw"] if backed else []
    words = ["-q", "-f", "qcow2", *words, "-o", f"extended_l2=on,preallocation={preallocation}"]
    assert main(["create", *words, str(ours), str(SIZE)]) == 0
    run("qemu-img", "create", *words, str(theirs), str(SIZE))
    check(ours)
    assert rows(ours) == rows(theirs)
    told = [json.loads(run("qemu-img", "info", "--output=json", str(path))) for path in (ours, theirs)]
    assert told[0]["format-specific"] == told[1]["format-specific"]
    assert contents(ours) == (b"\5" * SIZE if backed else bytes(SIZE))
    run("qemu-io", "-f", "qcow2", "-c", "write -P 9 70000 3000", str(ours))
    check(ours)
    if preallocation in ("falloc", "full"):
        assert ours.stat().st_blocks * 512 >= SIZE


@pytest.mark.parametrize("compress", [False, True])
def test_converted(tmp_path: Path, *, compress: bool) -> None:
    """Each subcluster of zeros is left out."""
    raw, path, theirs = (tmp_path / name for name in ("disk.raw", "ours.qcow2", "theirs.qcow2"))
    rng = random.Random(3)
    with raw.open("wb") as file:
        for _ in range(60):
            file.write(rng.randbytes(rng.randrange(1, 20_000)) + bytes(rng.randrange(30_000)))
        file.truncate(-(-file.tell() // 512) * 512)
    words = ["convert", "-O", "qcow2", "-o", "extended_l2=on,cluster_size=128k", "-f", "raw", str(raw)]
    words = [*words[:1], *(["-c"] if compress else []), *words[1:]]
    assert main([*words, str(path)]) == 0
    run("qemu-img", *words, str(theirs))
    check(path)
    run("qemu-img", "compare", "-q", "-f", "raw", "-F", "qcow2", str(raw), str(path))
    assert sparse(rows(path)) == sparse(rows(theirs))
    assert main(["convert", "-O", "raw", str(path), str(tmp_path / "back.raw")]) == 0
    assert (tmp_path / "back.raw").read_bytes() == raw.read_bytes()


def test_what_changes_the_whole_image(tmp_path: Path) -> None:
    """Rebase, commit and resize on a chain whose images all have subclusters."""
    rng = random.Random(11)
    options = "extended_l2=on,cluster_size=16k"
    base, middle, top = (tmp_path / f"{name}.qcow2" for name in ("base", "middle", "top"))
    assert main(["create", "-q", "-f", "qcow2", "-o", options, str(base), str(SIZE)]) == 0
    for path, below in ((middle, base), (top, middle)):
        words = ["-b", below.name, "-F", "qcow2", "-o", options]
        assert main(["create", "-q", "-f", "qcow2", *words, str(path)]) == 0
    for path in (base, middle, top):
        for _ in range(8):
            start, length = a_range(rng, sectors=True)
            word = rng.choice((f"write -P {rng.randrange(1, 255)}", "write -z"))
            run("qemu-io", "-f", "qcow2", "-c", f"{word} {start} {length}", str(path))
    before, allowed = contents(top), ["--allow-references", str(tmp_path)]
    assert main(["rebase", *allowed, "-b", base.name, "-F", "qcow2", str(top)]) == 0
    check(top)
    assert contents(top) == before
    for size in (SIZE + 100_352, 5 << 20, 700_416, 2 << 20):
        assert main(["resize", "-q", "--shrink", *allowed, str(top), str(size)]) == 0
        check(top)
        before = before[:size].ljust(size, b"\0")
        assert contents(top) == before
    assert main(["commit", "-q", *allowed, str(top)]) == 0
    for path in (base, top):
        check(path)
        assert contents(path)[: len(before)] == before
