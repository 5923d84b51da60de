# SPDX-License-Identifier: MIT
"""qemu-img check is the judge of `check -r`: on damaged images of every feature, next to its own repair."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

import pytest

from pydiskimg.cli import main
from tests.fixtures.qcow2_damage import SHAPES, Shape, damage, make
from tests.fixtures.qcow2_images import run

pytestmark = pytest.mark.oracle

MUTATIONS = 5


def status_of(path: Path, *options: str) -> int:
    command = ["qemu-img", "check", "-q", "-f", "qcow2", *options, str(path)]
    return subprocess.run(command, capture_output=True, check=False).returncode


def contents(path: Path) -> bytes | None:
    raw = path.with_suffix(".raw")
    command = ["qemu-img", "convert", "-f", "qcow2", "-O", "raw", str(path), str(raw)]
    return raw.read_bytes() if not subprocess.run(command, capture_output=True, check=False).returncode else None


@pytest.mark.parametrize("shape", SHAPES, ids=lambda shape: shape.name)
def test_what_is_repaired_is_clean_to_qemu_and_shows_the_same(
    tmp_path: Path, shape: Shape, capsys: pytest.CaptureFixture[str]
) -> None:
    """What is not repaired has damaged tables, which qemu-img leaves, or a cut snapshot table, which it empties."""
    path, theirs = make(tmp_path, shape), tmp_path / "theirs.qcow2"
    sound = path.read_bytes()
    for seed in range(MUTATIONS):
        path.write_bytes(damage(sound, ("repair", shape.name, seed)))
        if not status_of(path):
            continue
        shutil.copy(path, theirs)
        before = contents(path)
        capsys.readouterr()
        status = main(["check", "-q", "-r", "all", str(path)])
        assert status_of(path) == status or status == 1
        if status == 0:
            assert contents(path) == before or before is None
            continue
        said = capsys.readouterr().err
        status_of(theirs, "-r", "all")
        assert status_of(theirs) or "the snapshot table" in said or ": snapshot " in said


@pytest.mark.parametrize("action", ["leaks", "all"])
def test_the_words_and_fields_are_those_of_qemu_img(
    tmp_path: Path, action: str, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "leaky.qcow2"
    run("qemu-img", "create", "-q", "-f", "qcow2", str(path), "3M")
    run("qemu-io", "-f", "qcow2", "-c", "write 0 200k", str(path))
    data = bytearray(path.read_bytes()).ljust(30 << 16, b"\0")
    data[0x20000 + 2 * 20 : 0x20000 + 2 * 22] = b"\0\1\0\1"
    for form in ("human", "json"):
        path.write_bytes(data)
        words = ["check", "-r", action, f"--output={form}", str(path)]
        theirs = subprocess.run(["qemu-img", *words], capture_output=True, text=True, check=True).stdout
        path.write_bytes(data)
        capsys.readouterr()
        assert main(words) == 0
        ours = capsys.readouterr().out
        assert ours == theirs if form == "human" else json.loads(ours) == json.loads(theirs)


@pytest.mark.parametrize(
    ("wrong", "left"),
    [
        ({0x40000: 0x00}, {}),  # the flag of the first entry, and nothing else that "leaks" leaves
        ({0x40000 + 13: 5}, {"corruptions": 1}),  # the second entry names the first one's cluster
        ({0x40000 + 16: 0x00, 0x40000 + 13: 5}, {"corruptions": 2}),
        (
            {0x20000 + 2 * 5 + 1: 0},
            {"corruptions": 2, "leaks": 2},
        ),  # a cluster in use counts as free
        # The second entry names the first one's cluster, and what is used once is counted three times: the header, ...
        ({0x20001: 3, 0x40000 + 13: 5}, {"corruptions": 1}),
        ({0x20000 + 2 * 4 + 1: 3, 0x40000 + 13: 5}, {"corruptions": 1}),  # an L2 table that has the copied flag,
        ({0x20000 + 2 * 7 + 1: 3, 0x40000 + 16: 0, 0x40000 + 13: 5}, {"corruptions": 2}),  # data that has it not;
        ({0x20000 + 2 * 7 + 1: 3, 0x40000 + 16: 0}, {}),  # and with nothing else wrong.
        ({0x20000 + 2 * 7 + 1: 3}, {}),
    ],
    ids=["flag", "shared", "both", "rebuild", "header", "table", "data", "counts", "set flag"],
)
def test_leaks_beside_corruptions(
    tmp_path: Path, wrong: dict[int, int], left: dict[str, int], capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "leaky.qcow2"
    run("qemu-img", "create", "-q", "-f", "qcow2", str(path), "3M")
    run("qemu-io", "-f", "qcow2", "-c", "write 0 200k", str(path))
    data = bytearray(path.read_bytes()).ljust(30 << 16, b"\0")
    data[0x20000 + 2 * 20 : 0x20000 + 2 * 22] = b"\0\1\0\1"
    for at, byte in wrong.items():
        data[at] = byte
    words = ["check", "-r", "leaks", "--output=json", str(path)]
    path.write_bytes(data)
    theirs = subprocess.run(["qemu-img", *words], capture_output=True, text=True, check=False)
    their_status = status_of(path)
    path.write_bytes(data)
    capsys.readouterr()
    status = main(words)
    ours = json.loads(capsys.readouterr().out)
    assert status_of(path) == their_status == status
    assert {name: ours[name] for name in ("corruptions", "leaks") if name in ours} == left
    if theirs.returncode != 1:  # qemu-img ends without a word for the machine where it would have to rebuild
        said = json.loads(theirs.stdout)
        said["image-end-offset"] = ours["image-end-offset"]  # new counts are after what was in use
        if 3 in wrong.values():  # a count too high: qemu-img compares flags with the counts that it has mended
            said["corruptions-fixed"] = ours["corruptions-fixed"] = 0
        assert ours == said


def test_a_machine_that_was_killed(tmp_path: Path) -> None:
    """Lazy reference counts, and the mark that the image was not closed."""
    path = tmp_path / "killed.qcow2"
    run("qemu-img", "create", "-q", "-f", "qcow2", "-o", "lazy_refcounts=on", str(path), "8M")
    killed = ["qemu-io", "-f", "qcow2", "-c", "write -P 5 0 1M", "-c", "flush", "-c", "sigraise 9", str(path)]
    subprocess.run(killed, capture_output=True, check=False)
    assert path.read_bytes()[79] & 1
    assert main(["check", "-q", "-r", "all", str(path)]) == 0
    assert not path.read_bytes()[79]
    assert status_of(path) == 0
    run("qemu-io", "-r", "-f", "qcow2", "-c", "read -P 5 0 1M", str(path))


def test_what_is_not_qcow2_is_not_repaired(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "disk.raw"
    path.write_bytes(bytes(4096))
    command = ["qemu-img", "check", "-f", "raw", "-r", "all", str(path)]
    assert subprocess.run(command, capture_output=True, check=False).returncode == 63
    assert main(["check", "-f", "raw", "-r", "all", str(path)]) == 63
    assert "e2fsck -f" in capsys.readouterr().err
