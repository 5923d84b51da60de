# SPDX-License-Identifier: MIT
"""QEMU is the judge of `pydiskimg bitmap`: it reads the bitmaps, and both programs change those of twin images."""

from __future__ import annotations

import json
import random
import subprocess
from pathlib import Path

import pytest

from pydiskimg.cli import main
from tests.fixtures.bitmap_models import digests
from tests.fixtures.qcow2_images import run

pytestmark = pytest.mark.oracle

SIZE = 5 << 20
OPTIONS = (
    "cluster_size=512",
    "cluster_size=64k",
    "cluster_size=4k,refcount_bits=1",
    "cluster_size=16k,extended_l2=on",
    "cluster_size=2M",
)


def bitmaps_of(path: Path) -> list[dict[str, object]]:
    found = json.loads(run("qemu-img", "info", "--output=json", str(path)))
    listed: list[dict[str, object]] = found["format-specific"]["data"].get("bitmaps", [])
    return listed


class Twins:
    """Two images: one changed by qemu-img, and one by either program."""

    def __init__(self, directory: Path, options: str, rng: random.Random) -> None:
        self.theirs, self.ours = directory / "theirs.qcow2", directory / "ours.qcow2"
        self.rng = rng
        for path in (self.theirs, self.ours):
            run("qemu-img", "create", "-q", "-f", "qcow2", "-o", options, str(path), str(SIZE))

    def write(self) -> None:
        start = self.rng.randrange(SIZE // 512) * 512
        length = min(SIZE - start, self.rng.choice((512, 70_144, 1 << 20)))
        for path in (self.theirs, self.ours):
            run("qemu-io", "-f", "qcow2", "-c", f"write -P 7 {start} {length}", str(path))

    def change(self, number: int) -> None:
        names = [str(bitmap["name"]) for bitmap in bitmaps_of(self.theirs)]
        if len(names) < 2 or self.rng.random() < 0.2:
            words, name = ["--add", "-g", str(512 << self.rng.randrange(20))], f"b{number}"
        else:
            name, other = self.rng.choice(names), self.rng.choice(names)
            actions = (["--remove"], ["--clear"], ["--disable"], ["--enable"], ["--merge", other], ["--merge", other])
            words = self.rng.choice(actions)
        run("qemu-img", "bitmap", *words, str(self.theirs), name)
        if self.rng.random() < 0.7:
            assert main(["bitmap", *words, str(self.ours), name]) == 0
        else:
            run("qemu-img", "bitmap", *words, str(self.ours), name)

    def judge(self) -> None:
        run("qemu-img", "check", "-q", str(self.ours))
        listed = bitmaps_of(self.theirs)
        assert bitmaps_of(self.ours) == listed
        names = [str(bitmap["name"]) for bitmap in listed]
        assert digests(self.ours, *names) == digests(self.theirs, *names)


@pytest.mark.parametrize("options", OPTIONS)
def test_twins(tmp_path: Path, options: str) -> None:
    twins = Twins(tmp_path, options, random.Random(options))
    for number in range(5):
        twins.change(number)
        twins.write()
        twins.change(100 + number)
        twins.judge()


def test_several_actions_and_another_image(tmp_path: Path) -> None:
    """In the order in which they are given, also one that is given twice."""
    one, other = tmp_path / "one.qcow2", tmp_path / "other.qcow2"
    for path, cluster_size in ((one, 65536), (other, 512)):
        run("qemu-img", "create", "-q", "-f", "qcow2", "-o", f"cluster_size={cluster_size}", str(path), "3M")
        assert main(["bitmap", "--add", "-g", "4k", str(path), "changes"]) == 0
        run("qemu-io", "-f", "qcow2", "-c", f"write {cluster_size * 3} {cluster_size}", str(path))
    merge = ["--merge", "changes", "-b", str(other), "-F", "qcow2"]
    assert main(["bitmap", "--add", "--disable", str(one), "all", *merge, "-g", "512"]) == 0
    assert main(["bitmap", "--merge", "changes", str(one), "all"]) == 0
    run("qemu-img", "bitmap", "--add", "-g", "512", "--disable", *merge, str(one), "expected")
    run("qemu-img", "bitmap", "--merge", "changes", str(one), "expected")
    found, expected = digests(one, "all", "expected")
    assert found == expected
    assert main(["bitmap", "--remove", "--add", "--remove", str(one), "all"]) == 0
    assert [bitmap["name"] for bitmap in bitmaps_of(one)] == ["changes", "expected"]


def test_what_qemu_refuses(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path, small = tmp_path / "one.qcow2", tmp_path / "small.qcow2"
    for each, size in ((path, "3M"), (small, "2M")):
        run("qemu-img", "create", "-q", "-f", "qcow2", str(each), size)
        run("qemu-img", "bitmap", "--add", str(each), "b0")
    run("qemu-img", "create", "-q", "-f", "raw", str(tmp_path / "disk.raw"), "1M")
    old = tmp_path / "old.qcow2"
    run("qemu-img", "create", "-q", "-f", "qcow2", "-o", "compat=0.10", str(old), "1M")
    for words, said in (
        (["--add", str(path), "b0"], "already exists"),
        (["--add", "-g", "511", str(path), "b1"], "expected a power of two"),
        (["--add", "-g", "4G", str(path), "b1"], "expected a power of two"),
        (["--add", str(path), "x" * 1024], "1 to 1023 bytes"),
        (["--remove", str(path), "b1"], "has no bitmap 'b1'"),
        (["--merge", "b1", str(path), "b0"], "has no bitmap 'b1'"),
        (["--merge", "b0", "-b", str(small), str(path), "b0"], "expected disks of one size"),
        (["--add", str(old), "b0"], "version 2"),
        (["--add", "-f", "raw", str(tmp_path / "disk.raw"), "b0"], "expected a qcow2 image"),
    ):
        assert subprocess.run(["qemu-img", "bitmap", *words], capture_output=True, check=False).returncode == 1
        assert main(["bitmap", *words]) == 1
        assert said in capsys.readouterr().err


@pytest.mark.parametrize(
    "words", [[], ["-g", "512", "--clear"], ["-b", "x", "--add"], ["-F", "raw", "--merge", "x"]], ids=str
)
def test_wrong_usage(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="1"):
        main(["bitmap", *words, "image.qcow2", "b0"])
    assert "pydiskimg bitmap: error: " in capsys.readouterr().err


def test_one_that_a_killed_program_left_in_use(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "killed.qcow2"
    run("qemu-img", "create", "-q", "-f", "qcow2", str(path), "3M")
    run("qemu-img", "bitmap", "--add", str(path), "b0")
    killed = ["qemu-io", "-f", "qcow2", "-c", "write 0 1M", "-c", "sigraise 9", str(path)]
    subprocess.run(killed, capture_output=True, check=False)
    assert bitmaps_of(path)[0]["flags"] == ["in-use", "auto"]
    assert main(["bitmap", "--clear", str(path), "b0"]) == 1
    assert "it can only be removed" in capsys.readouterr().err
    assert main(["bitmap", "--add", str(path), "b1"]) == 0
    assert [bitmap["flags"] for bitmap in bitmaps_of(path)] == [["in-use", "auto"], ["auto"]]
    assert main(["bitmap", "--remove", str(path), "b0"]) == 0
    run("qemu-img", "check", "-q", str(path))
