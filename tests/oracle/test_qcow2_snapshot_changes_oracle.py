# SPDX-License-Identifier: MIT
"""qemu-img is the judge of snapshots taken, applied and deleted here, on images that both programs change in turns."""

from __future__ import annotations

import json
import random
from pathlib import Path

import pytest

from pydiskimg.cli import main
from tests.fixtures.both_programs import by_pydiskimg, by_qemu_img
from tests.fixtures.qcow2_images import run
from tests.fixtures.used_by_qemu import in_qemu

pytestmark = pytest.mark.oracle

SIZE = 3 << 20
OPTIONS = (
    "cluster_size=512",
    "cluster_size=64k",
    "cluster_size=4k,refcount_bits=8",
    "cluster_size=1k,refcount_bits=64",
    "cluster_size=1k,compat=0.10",
    "cluster_size=16k,extended_l2=on",
    "cluster_size=2M",
)


class TwoPrograms:
    """An image that both change, and what it and its snapshots hold."""

    def __init__(self, path: Path, options: str, rng: random.Random) -> None:
        self.path = path
        self.rng = rng
        self.expected: dict[str, bytes] = {}
        run("qemu-img", "create", "-q", "-f", "qcow2", "-o", options, str(path), str(SIZE))

    def write(self) -> None:
        commands: list[str] = []
        for _ in range(self.rng.randrange(1, 5)):
            start = self.rng.randrange(SIZE // 512) * 512
            length = min(SIZE - start, self.rng.randrange(1, 300) * 512)
            word = self.rng.choice((f"write -P {self.rng.randrange(1, 255)}", "write -z", "discard"))
            commands += ["-c", f"{word} {start} {length}"]
        run("qemu-io", "-f", "qcow2", *commands, str(self.path))

    def change(self, number: int) -> None:
        action = self.rng.choice("ccad") if self.expected else "c"
        name = f"s{number}" if action == "c" else self.rng.choice(list(self.expected))
        before = self.contents()
        words = ["snapshot", f"-{action}", name, str(self.path)]
        if self.rng.random() < 0.6:
            assert main(words) == 0
        else:
            run("qemu-img", *words)
        if action == "c":
            self.expected[name] = before
        assert self.contents() == (self.expected[name] if action == "a" else before)
        if action == "d":
            del self.expected[name]

    def contents(self, *options: str) -> bytes:
        raw = self.path.with_suffix(".raw")
        run("qemu-img", "convert", *options, "-f", "qcow2", "-O", "raw", str(self.path), str(raw))
        return raw.read_bytes()

    def judge(self) -> None:
        run("qemu-img", "check", "-q", "-f", "qcow2", str(self.path))
        for name, data in self.expected.items():
            assert self.contents("-l", f"snapshot.name={name}") == data


@pytest.mark.parametrize("options", OPTIONS)
def test_both_programs_in_turns(tmp_path: Path, options: str) -> None:
    rng = random.Random(options)
    both = TwoPrograms(tmp_path / "both.qcow2", options, rng)
    for number in range(10):
        both.write()
        both.change(number)
        both.judge()


@pytest.mark.parametrize(
    "words", [["snapshot", "-d", "one"], ["snapshot", "-a", "one"], ["resize", "-q", "--shrink", "1M"]], ids=str
)
def test_what_becomes_free_takes_no_room_in_the_file(tmp_path: Path, words: list[str]) -> None:
    """As much as qemu-img leaves, but for tables that are written beside the old ones."""
    rooms = []
    for program in ("ours", "theirs"):
        path = tmp_path / program
        run("qemu-img", "create", "-q", "-f", "qcow2", "-o", "cluster_size=4k", str(path), "8M")
        run("qemu-io", "-f", "qcow2", "-c", "write -P 1 0 4M", str(path))
        run("qemu-img", "snapshot", "-c", "one", str(path))
        run("qemu-io", "-f", "qcow2", "-c", "write -P 2 0 3M", "-c", "write -P 3 7M 64k", str(path))
        command = [*words[:-1], str(path), words[-1]] if words[0] == "resize" else [*words, str(path)]
        if program == "ours":
            assert main(command) == 0
        else:
            run("qemu-img", *command)
        run("qemu-img", "check", "-q", str(path))
        rooms.append(path.stat().st_blocks * 512)
    ours, theirs = rooms
    assert ours < theirs + (200 << 10) < 6 << 20


def test_a_virtual_machine_keeps_others_out(tmp_path: Path) -> None:
    """The lock bytes are QEMU's."""
    path = tmp_path / "used.qcow2"
    run("qemu-img", "create", "-q", "-f", "qcow2", str(path), "1M")
    with in_qemu(path, "qcow2"):
        assert main(["snapshot", "-c", "one", str(path)]) == 1
    assert main(["snapshot", "-c", "one", str(path)]) == 0


def test_which_snapshot_a_number_means(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A name that is the id of another: -a and -l of convert take the id first, -d takes names only."""
    said = []
    for program, each in (("ours", by_pydiskimg), ("theirs", by_qemu_img)):
        (tmp_path / program).mkdir()
        monkeypatch.chdir(tmp_path / program)
        run("qemu-img", "create", "-q", "-f", "qcow2", "disk", "1M")
        for fill, name in enumerate(("2", "1", "first"), 1):
            run("qemu-io", "-f", "qcow2", "-c", f"write -P {fill} 0 64k", "disk")
            assert each("snapshot", "-c", name, "disk").status == 0
        facts = json.loads(run("qemu-img", "info", "--output=json", "disk"))["snapshots"]
        seen: list[object] = [[(found["id"], found["name"], found["icount"]) for found in facts]]
        for words in (["-a", "1"], ["-d", "1"], ["-d", "1"], ["-d", "3"], ["-d", "2"], ["-d", "first"]):
            seen.append(each("snapshot", *words, "disk")[:2])
            listed = each("info", "--output=json", "disk").out
            seen.append([found["id"] for found in json.loads(listed).get("snapshots", ())])
            run("qemu-img", "convert", "-O", "raw", "disk", "raw")
            seen.append(Path("raw").read_bytes()[:1])
        said.append(seen)
    assert said[0] == said[1]
