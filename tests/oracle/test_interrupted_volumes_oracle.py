# SPDX-License-Identifier: MIT
"""Each command that changes what is on the disk of a qcow2 image, interrupted at random moments: qemu-img check finds
leaks at most, e2fsck -p is satisfied, the files are the old or the new ones, and the command given again ends well."""

from __future__ import annotations

import random
import shutil
from pathlib import Path

import pytest

from pydiskimg.cli import main
from pydiskimg.images.open import open_image
from pydiskimg.partitions.read import read_partition_table
from pydiskimg.volumes.tree import open_tree
from tests.fixtures.ext_contents import contents_of
from tests.fixtures.ext_files import made_ext, sized, some_files
from tests.fixtures.interrupted_command import ATTEMPTS, SIGNALS, checked, duration, interrupted
from tests.fixtures.programs import Tool, run

pytestmark = pytest.mark.oracle

MIB = 1 << 20
SIZE = 48 * MIB
AGAIN = "again"  # the command may be given again and ends with the same
COMMANDS = {
    "shrink -q --cut --size 24M image": AGAIN,
    "shrink -q image": AGAIN,
    "grow -q room": AGAIN,
    "sparsify -q image": AGAIN,
    "partition set --type swap image 1": AGAIN,
    "partition delete image 1": "",
    "partition add room --size 1M --type linux": "",
    "rm -r image /tree": "",
    "mkdir -p image /new/of/one": "",
    "copy-in image file /": "",
    "tar-in image some.tar /": "",
}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory, tool: Tool) -> Path:
    """A disk with an empty partition and an ext4 with files as qcow2 with small clusters, and a larger one."""
    directory = tmp_path_factory.mktemp("disks")
    disk, files = sized(directory / "disk", SIZE), directory / "files"
    run(tool("sfdisk"), "-q", disk, given="label: gpt\nstart=2048, size=2048\nsize=92160\n")
    files.mkdir()
    (some_files(files, 40) / "directory 1").rename(files / "tree")
    part = made_ext(tool, directory / "part", "-t ext4", 92160 * 512, files)
    with disk.open("r+b") as file:
        file.seek(4096 * 512)
        file.write(part.read_bytes())
    for name in ("image", "room"):
        run(tool("qemu-img"), "convert", "-O", "qcow2", "-o", "cluster_size=4k", "-f", "raw", disk, directory / name)
    run(tool("qemu-img"), "resize", "-q", "-f", "qcow2", directory / "room", f"{SIZE + 32 * MIB}")
    (directory / "file").write_bytes(random.Random(1).randbytes(3 * MIB))
    run(tool("tar"), "-cf", directory / "some.tar", "-C", files, "directory 2", "directory 3")
    return directory


def fresh(made: Path) -> None:
    for name in ("image", "room", "file", "some.tar"):
        shutil.copyfile(made / name, name)


def files_of(name: str) -> dict[str, object]:
    with open_image(name) as source, open_tree(source) as tree:
        return dict(contents_of(tree.files.fs.source))


def table_of(name: str) -> object:
    with open_image(name) as source:
        return [(one.number, one.start, one.length) for one in read_partition_table(source)]


def repaired(tool: Tool, name: str) -> None:
    """Let e2fsck judge the file system, after what it does at a boot; the image gets its result."""
    run(tool("qemu-img"), "convert", "-O", "raw", "-f", "qcow2", name, "raw")
    with open_image("raw") as source:
        part = read_partition_table(source)[-1]
    with Path("raw").open("rb") as file, Path("part").open("wb") as copy:
        file.seek(part.start)
        shutil.copyfileobj(file, copy)
        copy.truncate(part.length)
    run(tool("e2fsck"), "-p", "part", expect=(0, 1))
    run(tool("e2fsck"), "-fn", "part")
    with Path("raw").open("r+b") as file:
        file.seek(part.start)
        file.write(Path("part").read_bytes())
    run(tool("qemu-img"), "convert", "-n", "-O", "qcow2", "-f", "raw", "raw", name)


@pytest.mark.parametrize("command", COMMANDS)
def test_a_disk_has_the_old_or_the_new(
    made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tool: Tool, command: str
) -> None:
    monkeypatch.chdir(tmp_path)
    words, rng = command.split(), random.Random(command)
    name = "room" if "room" in words else "image"
    fresh(made)
    old = files_of(name), table_of(name)
    took = duration(words)
    new = files_of(name), table_of(name)
    for number in SIGNALS * ATTEMPTS:
        fresh(made)
        interrupted(words, rng.random() * took, number)
        assert checked(name) in (0, 3), (command, number)
        assert table_of(name) in (old[1], new[1])
        found = files_of(name)
        assert all(found.get(path) in (old[0].get(path), new[0].get(path)) for path in {*old[0], *new[0], *found})
        if not command.startswith("partition"):
            repaired(tool, name)
        if COMMANDS[command] == AGAIN:
            assert main(words) == 0
            assert (files_of(name), table_of(name)) == new
            assert checked(name) in (0, 3), (command, number)


def test_a_device_that_was_not_wholly_written_is_written_again(
    made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    fresh(made)
    words, rng = ["write", "-q", "--yes", "image", "target"], random.Random(5)
    sized(tmp_path / "target", SIZE)
    took = duration(words)
    expected = Path("target").read_bytes()
    for number in SIGNALS * ATTEMPTS:
        Path("target").write_bytes(b"x" * SIZE)
        interrupted(words, rng.random() * took, number)
        assert main(words) == 0
        assert Path("target").read_bytes() == expected
