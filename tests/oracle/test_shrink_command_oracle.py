# SPDX-License-Identifier: MIT
"""shrink on raw and qcow2 disks, cut or not, with sfdisk, e2fsck and qemu-img as judges; interrupted at every write."""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

import pytest

from pydiskimg.cli import main
from pydiskimg.disks.memory import MemoryDisk
from pydiskimg.errors import FileSystemError
from pydiskimg.images.open import open_image
from pydiskimg.images.resize import resize_image
from pydiskimg.partitions.read import read_partition_table
from pydiskimg.volumes.shrink import cut_table, shrink_last_volume
from pydiskimg.volumes.tree import open_tree
from tests.fixtures.ext_contents import contents_of
from tests.fixtures.ext_files import made_ext, sized, some_files
from tests.fixtures.programs import Tool, run
from tests.fixtures.stopping_disk import StoppedError, StoppingDisk

pytestmark = pytest.mark.oracle

MIB = 1 << 20
SIZE = 40 * MIB
TABLES = {
    "dos": "label: dos\nstart=2048, size=2048\nsize=73728\n",
    "logical": "label: dos\nstart=2048, size=2048\ntype=E\nsize=71680\n",
    "gpt": "label: gpt\nstart=2048, size=2048\nsize=73728\n",
}
NUMBERS = {"dos": 2, "logical": 5, "gpt": 2}


@pytest.fixture(params=[*TABLES])
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def disk(kind: str, tmp_path: Path, tool: Tool) -> Path:
    """A raw disk whose last partition is an ext4 with some files."""
    path = sized(tmp_path / "disk.raw", SIZE)
    run(tool("sfdisk"), "-q", str(path), given=TABLES[kind])
    (tmp_path / "files").mkdir()
    with open_image(path) as source:
        part = read_partition_table(source)[-1]
    made = made_ext(tool, tmp_path / "part", "-t ext4", part.length, some_files(tmp_path / "files", 20))
    with path.open("r+b") as file:
        file.seek(part.start)
        file.write(made.read_bytes())
    return path


def contents(path: Path) -> dict[str, object]:
    with open_image(path) as source, open_tree(source) as tree:
        return dict(contents_of(tree.files.fs.source))


@pytest.mark.parametrize("image_format", ["raw", "qcow2"])
@pytest.mark.parametrize("options", [(), ("--cut",), ("--cut", "--size", "20M")], ids=" ".join)
def test_partition_file_system_and_image_become_smaller(
    image_format: str,
    options: tuple[str, ...],
    kind: str,
    disk: Path,
    tmp_path: Path,
    tool: Tool,
    capsys: pytest.CaptureFixture[str],
) -> None:
    path, before = disk, contents(disk)
    if image_format == "qcow2":
        path = tmp_path / "disk.qcow2"
        run(tool("qemu-img"), "convert", "-O", "qcow2", "-f", "raw", str(disk), str(path))
    assert main(["shrink", "--output", "json", *options, str(path)]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["partition"], found["type"]) == (NUMBERS[kind], "ext4")
    assert found["file-system-size"] <= found["length"] < found["length-before"]
    assert contents(path) == before
    raw = tmp_path / "smaller.raw"
    run(tool("qemu-img"), "convert", "-O", "raw", "-f", image_format, str(path), str(raw))
    assert raw.stat().st_size == (found["end"] if options else SIZE)
    if "--size" in options:
        assert 19 * MIB < found["file-system-size"] <= 20 * MIB
    assert "No errors" in run(tool("sfdisk"), "--verify", str(raw))
    if kind == "gpt":  # sfdisk and parted warn of another size
        (covered,) = struct.unpack_from("<I", raw.read_bytes(), 446 + 12)
        assert covered == raw.stat().st_size // 512 - 1
    with open_image(raw) as source:
        part = read_partition_table(source, backup=False)[-1]
        assert part.length == found["length"]
        assert found["end"] < part.start + part.length + MIB
    copy = tmp_path / "part copy"
    copy.write_bytes(raw.read_bytes()[part.start : part.start + part.length])
    run(tool("e2fsck"), "-fn", str(copy))
    if image_format == "qcow2":
        run(tool("qemu-img"), "check", str(path))


def test_a_size_that_is_not_smaller(kind: str, disk: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """resize2fs says "Nothing to do!" then, with exit status 0, too."""
    assert main(["shrink", "--size", "20M", str(disk)]) == 0
    assert "nothing" not in capsys.readouterr().out
    before = disk.read_bytes()
    for size in ("20M", "30M", "1G"):
        assert main(["shrink", "--size", size, str(disk)]) == 0
        said = f"{disk}: nothing to shrink: the ext4 file system on partition {NUMBERS[kind]} already has 20971520 "
        assert capsys.readouterr().out.startswith(said)
        assert main(["shrink", "--output", "json", "--size", size, str(disk)]) == 0
        found = json.loads(capsys.readouterr().out)
        assert found["file-system-size-before"] == found["file-system-size"] == 20 * MIB
    assert disk.read_bytes() == before


def test_a_file_system_alone_on_its_disk(tmp_path: Path, tool: Tool, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "files").mkdir()
    path = made_ext(tool, tmp_path / "alone", "-t ext2 -b 1024", SIZE, some_files(tmp_path / "files", 9))
    assert main(["shrink", "--cut", str(path)]) == 0
    assert "the ext2 file system on the disk has" in capsys.readouterr().out
    assert path.stat().st_size < 10 * MIB
    run(tool("e2fsck"), "-fn", str(path))


def test_what_does_not_become_smaller_is_left_alone(
    tmp_path: Path, tool: Tool, capsys: pytest.CaptureFixture[str]
) -> None:
    path = sized(tmp_path / "disk", SIZE)
    run(tool("sfdisk"), "-q", str(path), given="label: gpt\nstart=2048, size=2048\nsize=8192, type=S\n")
    before = path.read_bytes()
    assert main(["shrink", str(path)]) == 1
    assert (
        "partition 2: contains nothing that is known; only ext2, ext3 and ext4 can be shrunk" in capsys.readouterr().err
    )
    assert path.read_bytes() == before


@pytest.mark.parametrize("kind", ["gpt", "dos"], indirect=True)
def test_what_another_command_made_larger_before_the_cut_is_not_cut(
    disk: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def between(*words: Any, **how: Any) -> int:
        assert main(["grow", "-q", str(disk)]) == 0
        return resize_image(*words, **how)

    monkeypatch.setattr("pydiskimg.images.resize.resize_image", between)
    assert main(["shrink", "--cut", str(disk)]) == 1
    assert "was changed meanwhile" in capsys.readouterr().err
    assert disk.stat().st_size == SIZE


def repaired(tool: Tool, path: Path, disk: MemoryDisk) -> None:
    part = read_partition_table(disk)[-1]
    path.write_bytes(disk.data[part.start : part.start + part.length])
    run(tool("e2fsck"), "-p", path, expect=(0, 1))
    disk.data[part.start : part.start + part.length] = path.read_bytes()


@pytest.mark.parametrize("kind", ["gpt"], indirect=True)
def test_given_again_after_any_interruption_the_files_are_there(disk: Path, tool: Tool) -> None:
    """The size of the file system may be in its journal alone then, and the partition must not end before the other;
    while the journal moves, e2fsck -p is asked for.
    """
    before, memory = disk.read_bytes(), MemoryDisk(SIZE)

    def shrunk_after(writes: int) -> tuple[int, bool]:
        """Stop before the next write, and shrink again; returns how many there were, and whether that was the end."""
        memory.data[:] = before
        stopping = StoppingDisk(memory, writes)
        try:
            shrink_last_volume(stopping)
        except StoppedError:
            try:
                shrink_last_volume(memory)
            except FileSystemError as error:
                assert "change of its size was interrupted" in str(error)  # noqa: PT017 - most do not raise it
                repaired(tool, disk.with_name("part"), memory)
                shrink_last_volume(memory)
            return writes, False
        return stopping.written, True

    last, _ = shrunk_after(1 << 20)
    for writes in range(last - 40, last + 1):
        shrunk_after(writes)
        part = read_partition_table(memory)[-1]
        with open_tree(memory, partition=part.number) as tree:  # which refuses one that is cut off
            assert sum(1 for _ in tree.walk("/")) > 20


@pytest.mark.parametrize("kind", ["gpt"], indirect=True)
def test_an_interruption_of_the_last_writes_leaves_a_table_that_is_read(disk: Path) -> None:
    memory = MemoryDisk(SIZE)
    memory.write(0, disk.read_bytes())
    shrunk = shrink_last_volume(memory)
    kept, tables = bytes(memory.data), read_partition_table(memory)
    for steps in range(20):
        memory.data[:] = kept
        try:
            cut_table(StoppingDisk(memory, steps), shrunk.end)
        except StoppedError:
            assert read_partition_table(memory, backup=False) == tables
            cut_table(memory, shrunk.end)
            assert read_partition_table(memory, backup=False) == tables
        else:
            assert steps > 3
            return
