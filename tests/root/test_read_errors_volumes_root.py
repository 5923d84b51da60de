# SPDX-License-Identifier: MIT
"""Disks with file systems and unreadable sectors: each command that looks into them says in one line what it could not
read, and what changes a disk leaves its files."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path

import pytest

from pydiskimg.volumes.tree import open_tree
from tests.fixtures.both_programs import by_pydiskimg
from tests.fixtures.ext_files import made_ext, sized
from tests.fixtures.programs import Tool, run

pytestmark = pytest.mark.root

MIB = 1 << 20
START = 2 * MIB
SIZE = 16 * MIB
# What is lost, and for each command whether it reads that.
TABLE, SUPERBLOCK, CONTENTS = "table", "superblock", "contents"
COMMANDS = {
    "filesystems -l DISK": {TABLE, SUPERBLOCK},
    "df DISK": {TABLE, SUPERBLOCK},
    "show DISK": {TABLE, SUPERBLOCK},
    "partition list DISK": {TABLE},
    "ls DISK /": {TABLE, SUPERBLOCK},
    "cat DISK /file": {TABLE, SUPERBLOCK, CONTENTS},
    "tar-out DISK / made": {TABLE, SUPERBLOCK, CONTENTS},
    "copy-out DISK /file .": {TABLE, SUPERBLOCK, CONTENTS},
    "diff DISK other": {TABLE, SUPERBLOCK, CONTENTS},
    "check -f raw DISK": {TABLE, SUPERBLOCK},
    "hash -f raw DISK": {TABLE, SUPERBLOCK, CONTENTS},
    "bmap -f raw -o made DISK": {TABLE, SUPERBLOCK, CONTENTS},
    "write -f raw -q --yes DISK other": {TABLE, SUPERBLOCK, CONTENTS},
    "convert --used -f raw -O qcow2 DISK made": {TABLE, SUPERBLOCK, CONTENTS},
    "sparsify -q DISK": {TABLE, SUPERBLOCK},
    "grow -q DISK": {TABLE, SUPERBLOCK},
    "shrink -q DISK": {TABLE, SUPERBLOCK},
    "mkdir DISK /new": {TABLE, SUPERBLOCK},
    "rm DISK /file": {TABLE, SUPERBLOCK},
    "copy-in DISK local /": {TABLE, SUPERBLOCK},
    "tar-in DISK local.tar /": {TABLE, SUPERBLOCK},
    "partition add DISK --size 1M --type linux": {TABLE},
    "partition delete DISK 1": {TABLE},
}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory, tool: Tool) -> tuple[Path, int]:
    """A disk with an ext4 whose only file lies in one piece; and where that is."""
    directory = tmp_path_factory.mktemp("disks")
    (directory / "files").mkdir()
    (directory / "files/file").write_bytes(random.Random(1).randbytes(MIB))
    disk = sized(directory / "disk", SIZE)
    run(tool("sfdisk"), "-q", disk, given=f"label: gpt\nstart={START // 512}, size={8 * MIB // 512}, type=L\n")
    part = made_ext(tool, directory / "part", "-t ext4 -b 4096", 8 * MIB, directory / "files")
    with disk.open("r+b") as file:
        file.seek(START)
        file.write(part.read_bytes())
    block = int(run(tool("debugfs"), "-R", "bmap /file 0", part).split()[0])
    return disk, START + block * 4096


@pytest.mark.parametrize("lost", [TABLE, SUPERBLOCK, CONTENTS])
@pytest.mark.parametrize("command", COMMANDS)
def test_what_cannot_be_read_is_told_in_a_line(
    failing: Callable[..., Path],
    made: tuple[Path, int],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    command: str,
    lost: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    disk, contents = made
    for name in ("disk", "other"):
        Path(name).write_bytes(disk.read_bytes())
    Path("local").write_bytes(b"local")
    run("tar", "-cf", "local.tar", "local")
    offset = {TABLE: 0, SUPERBLOCK: START, CONTENTS: contents}[lost]
    path = failing(tmp_path / "disk", offset)
    done = by_pydiskimg(*(str(path) if word == "DISK" else word for word in command.split()))
    if lost in COMMANDS[command]:
        assert done.status == (2 if command.startswith("diff ") else 1)  # 1 says that there are differences
        assert "Input/output error" in done.err
        assert f"at offset {offset}" in done.err or lost != CONTENTS
        assert done.err.count("\n") == 1
        assert not Path("made").exists()
    else:
        assert (done.status, done.err) == (0, "")


@pytest.mark.parametrize("words", ["list DISK", "add DISK --size 1M", "set --bootable DISK 1", "delete DISK 1"])
def test_the_table_for_two_sector_sizes(failing: Callable[..., Path], tmp_path: Path, tool: Tool, words: str) -> None:
    """The contents of a partition decide between sectors of 512 and 4096 bytes, and cannot be read."""
    disk = sized(tmp_path / "disk", 4 * SIZE)
    run(tool("sfdisk"), "-q", disk, given=f"label: dos\nstart={START // 512}, size={MIB // 512}, type=83\n")
    path = failing(disk, START)
    done = by_pydiskimg("partition", *(str(path) if word == "DISK" else word for word in words.split()))
    assert (done.status, done.err) == (0, "")


@pytest.mark.parametrize("lost", [TABLE, SUPERBLOCK, CONTENTS])
def test_the_files_stay(
    failing: Callable[..., Path], made: tuple[Path, int], tmp_path: Path, tool: Tool, lost: str
) -> None:
    """What was refused, or done around the unreadable sector, leaves a sound file system."""
    disk, contents = made
    (tmp_path / "disk").write_bytes(disk.read_bytes())
    path = failing(tmp_path / "disk", {TABLE: 0, SUPERBLOCK: START, CONTENTS: contents}[lost])
    for words in (["mkdir", path, "/new"], ["sparsify", "-q", path], ["grow", "-q", path], ["shrink", "-q", path]):
        by_pydiskimg(*words)
    with open_tree(tmp_path / "disk") as tree:
        assert tree.read("/file", limit=MIB) == random.Random(1).randbytes(MIB)
    with (tmp_path / "disk").open("rb") as file:
        file.seek(START)
        (tmp_path / "part").write_bytes(file.read(SIZE))
    run(tool("e2fsck"), "-p", tmp_path / "part", expect=(0, 1))
    run(tool("e2fsck"), "-fn", tmp_path / "part")
