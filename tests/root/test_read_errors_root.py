# SPDX-License-Identifier: MIT
"""Disks and images with unreadable sectors: the kernel's own EIO, compared with qemu-img."""

from __future__ import annotations

import random
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import pytest

from pydiskimg.units import KIB, MIB
from tests.fixtures.both_programs import Said, by_pydiskimg, by_qemu_img
from tests.fixtures.growing import loop
from tests.fixtures.programs import run
from tests.fixtures.read_errors import PAGE

pytestmark = pytest.mark.root

SIZE = 4 * MIB
REST = 32 * KIB
LOST = (49152, 2 * MIB + 8192, 2 * MIB + 8192 + PAGE)  # the last two are one run of two pages
RUNS = ((49152, PAGE), (2 * MIB + 8192, 2 * PAGE))


@pytest.fixture
def disk(tmp_path: Path) -> bytes:
    contents = random.Random(1).randbytes(SIZE)
    (tmp_path / "disk.raw").write_bytes(contents)
    return contents


def salvaged(contents: bytes) -> bytes:
    found = bytearray(contents)
    for offset, length in RUNS:
        found[offset : offset + length] = bytes(length)
    return bytes(found)


def raw_bytes(path: Path) -> bytes:
    run("qemu-img", "convert", "-O", "raw", str(path), str(path.with_suffix(".read")))
    return path.with_suffix(".read").read_bytes()


@pytest.mark.parametrize("device", [False, True], ids=["file", "device"])
@pytest.mark.parametrize("output", [["raw"], ["qcow2"], ["qcow2", "-c"], ["raw", "-S", "0"]], ids=" ".join)
def test_salvage_writes_all_that_can_be_read(
    failing: Callable[..., Path], tmp_path: Path, disk: bytes, output: list[str], device: bool
) -> None:
    source = failing(tmp_path / "disk.raw", *LOST)
    with ExitStack() as opened:
        path = opened.enter_context(loop(source, 0, SIZE, read_only=True)) if device else str(source)
        words = ("convert", "--salvage", "-f", "raw", "-O", *output, path)
        theirs, ours = by_qemu_img(*words, tmp_path / "theirs.q"), by_pydiskimg(*words, tmp_path / "ours.q")
    assert (ours.status, theirs.status) == (0, 0)
    assert raw_bytes(tmp_path / "ours.q") == raw_bytes(tmp_path / "theirs.q") == salvaged(disk)
    told = sorted(line.partition(" and become zeros: ")[0] for line in ours.err.splitlines())
    warnings = [
        f"pydiskimg: {path}: warning: {length} bytes at offset {offset} cannot be read" for offset, length in RUNS
    ]
    assert told == sorted(warnings)


def assert_refused(ours: Said, theirs: Said, path: Path, offset: int) -> None:
    """Both fail with the same status; ours says in one line what cannot be read, and where."""
    assert ours.status == theirs.status
    assert ours.err.startswith(f"pydiskimg: {path}: cannot read ")
    assert ours.err.endswith(f" at offset {offset}: Input/output error\n")
    assert ours.err.count("\n") == 1


@pytest.mark.parametrize(
    "words",
    [
        ["convert", "-O", "raw", "SRC", "DST"],
        ["convert", "-O", "qcow2", "-c", "SRC", "DST"],
        ["convert", "-O", "qcow2", "-W", "-m", "4", "SRC", "DST"],
        ["dd", "-O", "raw", "bs=4k", "if=SRC", "of=DST"],
        ["compare", "-F", "raw", "SRC", "disk.raw"],
    ],
    ids=" ".join,
)
def test_without_salvage_nothing_is_made(
    failing: Callable[..., Path], tmp_path: Path, disk: bytes, words: list[str]
) -> None:
    source = failing(tmp_path / "disk.raw", *LOST[:1])
    names = {"SRC": str(source), "if=SRC": f"if={source}", "disk.raw": str(tmp_path / "disk.raw")}

    def command(target: str) -> list[str]:
        named = {**names, "DST": str(tmp_path / target), "of=DST": f"of={tmp_path / target}"}
        return [words[0], "-f", "raw", *(named.get(word, word) for word in words[1:])]

    assert_refused(by_pydiskimg(*command("ours")), by_qemu_img(*command("theirs")), source, LOST[0])
    assert not (tmp_path / "ours").exists()


def test_what_exists_is_kept_where_the_source_fails(failing: Callable[..., Path], tmp_path: Path, disk: bytes) -> None:
    """A new file takes the place of an old one when it is complete; -n writes what comes before the failure."""
    source = failing(tmp_path / "disk.raw", *LOST)
    (tmp_path / "old").write_bytes(b"\xff" * SIZE)
    assert by_pydiskimg("convert", "-f", "raw", source, tmp_path / "old").status == 1
    assert (tmp_path / "old").read_bytes() == b"\xff" * SIZE
    words = ("convert", "-n", "-f", "raw", "-O", "raw", "-m", "1", source, tmp_path / "old")
    assert by_pydiskimg(*words).status == by_qemu_img(*words).status == 1
    assert by_pydiskimg(*words, "--salvage").status == 0
    assert (tmp_path / "old").read_bytes() == salvaged(disk)


def test_what_is_not_read_does_not_fail(failing: Callable[..., Path], tmp_path: Path, disk: bytes) -> None:
    source = failing(tmp_path / "disk.raw", *LOST)
    words = ("dd", "-f", "raw", "-O", "raw", "bs=4k", "skip=1024", "count=1024", f"if={source}")
    for command in (
        ("map", "-f", "raw", "--output=json", source),
        ("measure", "-f", "raw", "-O", "qcow2", source),
        ("info", "-f", "raw", source),
        (*words[:-3], "count=12", words[-1], f"of={tmp_path / 'part'}"),
    ):
        ours, theirs = by_pydiskimg(*command), by_qemu_img(*command)
        assert (ours.status, ours.err, theirs.status) == (0, "", 0)
    assert (tmp_path / "part").read_bytes() == disk[: len((tmp_path / "part").read_bytes())]


@pytest.fixture
def image(tmp_path: Path) -> Path:
    """A qcow2 image with two L2 tables, of 2 MiB and the rest; qemu-img takes 10 ms for each sector of that."""
    path = tmp_path / "image.qcow2"
    run("qemu-img", "create", "-q", "-f", "qcow2", "-o", "cluster_size=4k", str(path), str(2 * MIB + REST))
    run("qemu-io", "-c", "write -P 1 0 256k", "-c", "write -P 2 2056k 16k", str(path))
    return path


def l2_table(image: Path, number: int) -> int:
    with image.open("rb") as file:
        file.seek(40)
        file.seek(int.from_bytes(file.read(8), "big") + 8 * number)
        return int.from_bytes(file.read(8), "big") & 0x00FF_FFFF_FFFF_FE00


@pytest.mark.parametrize("command", ["check", "map", "compare", "convert", "measure"])
def test_a_table_that_cannot_be_read(failing: Callable[..., Path], image: Path, tmp_path: Path, command: str) -> None:
    source = failing(image, l2_table(image, 1))
    before = {"measure": ["-O", "qcow2"], "compare": [str(image)], "convert": ["-O", "raw"]}.get(command, [])
    after = [str(tmp_path / "made")] if command == "convert" else []
    words = (command, "-f", "qcow2", *before, source, *after)
    ours = by_pydiskimg(*words)
    assert not (tmp_path / "made").exists()
    assert ours.status == by_qemu_img(*words).status
    assert f"cannot read 4096 bytes at offset {l2_table(image, 1)}: Input/output error" in ours.err
    assert ours.err.count("\n") == 1


def test_what_the_tables_that_can_be_read_map_is_salvaged(
    failing: Callable[..., Path], image: Path, tmp_path: Path
) -> None:
    whole = raw_bytes(image)
    source = failing(image, l2_table(image, 1))
    words = ("convert", "-f", "qcow2", "--salvage", "-O", "raw", source)
    ours = by_pydiskimg(*words, tmp_path / "ours")
    assert ours.status == by_qemu_img(*words, tmp_path / "theirs").status == 0
    run("cmp", tmp_path / "ours", tmp_path / "theirs")
    assert (tmp_path / "ours").read_bytes()[: 2 * MIB] == whole[: 2 * MIB]
    assert f"warning: {REST} bytes at offset {2 * MIB} cannot be read and become zeros" in ours.err
    assert ours.err.count("\n") == 1


def test_what_was_written_and_cannot_be_read_back_is_told(
    failing: Callable[..., Path], tmp_path: Path, disk: bytes
) -> None:
    (tmp_path / "target").write_bytes(bytes(SIZE))
    target = failing(tmp_path / "target", *LOST[:1])
    done = by_pydiskimg("convert", "-n", "--verify", "-f", "raw", tmp_path / "disk.raw", target)
    assert done.status == 1
    assert f"pydiskimg: {target}: cannot read " in done.err
    assert f" at offset {LOST[0]}: Input/output error" in done.err
    assert done.err.count("\n") == 1
