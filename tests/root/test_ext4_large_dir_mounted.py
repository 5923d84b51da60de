# SPDX-License-Identifier: MIT
"""Directories whose trees of hashes have three levels (large_dir), in turns with the kernel."""

from __future__ import annotations

import os
import random
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count as count_from
from itertools import islice
from pathlib import Path

import pytest

from pydiskimg.disks.memory import MemoryDisk
from pydiskimg.fs.ext4 import directory_writer, layout
from pydiskimg.fs.ext4.change.tree import open_changed_tree
from pydiskimg.fs.ext4.directory_index import opened_index
from pydiskimg.fs.ext4.directory_writer import DirectoryWriter
from pydiskimg.fs.ext4.tree import ExtTree, open_ext_tree
from pydiskimg.host.loop import loop_device
from pydiskimg.host.mount import mounted
from pydiskimg.images.open_disk import open_disk
from pydiskimg.units import KIB, MIB
from tests.fixtures.ext_files import made_ext
from tests.fixtures.judged_ext import judged
from tests.fixtures.made_entries import filled, folder, hard_link, regular
from tests.fixtures.programs import Tool, run

pytestmark = pytest.mark.root

SIZE = 64 * MIB
COUNT = 24_000  # with that many the kernel's leaves and tables, two thirds full, need a third level


def name_of(number: int) -> str:
    """Return a name that fits three times into a block of 1 KiB."""
    return f"{number:06}-" + "n" * 240


def disk_of(path: Path) -> MemoryDisk:
    disk = MemoryDisk(0, name="disk")
    disk.data = bytearray(path.read_bytes())
    return disk


@contextmanager
def seen(path: Path) -> Iterator[Path]:
    """Yield where the kernel shows the directory /d of the file system in a file."""
    with (
        open_disk(str(path), writable=True) as disk,
        loop_device(disk.fd) as loop,
        mounted(loop.path, fs_type="ext4") as at,
    ):
        yield Path(at) / "d"


def levels(disk: MemoryDisk) -> int:
    """Return how many levels of tables lie over the leaves of /d."""
    with open_ext_tree(disk) as tree:
        return len(opened_index(tree.files.fs, tree.inode("/d")).path(0))


def changed_by_the_kernel(path: Path, names: set[str], rng: random.Random) -> set[str]:
    """Let the kernel list the directory, add 1000 names of its own, and take as many of others away."""
    with seen(path) as directory:
        assert set(os.listdir(directory)) == names
        gone = set(rng.sample(sorted(names), 1000))
        for name in gone:
            (directory / name).unlink()
        added = {name_of(number) for number in range(900_000, 901_000)}
        for name in added:
            (directory / name).hardlink_to(directory.parent / "one")
        return names - gone | added


def changed_by_us(disk: MemoryDisk, names: set[str]) -> set[str]:
    """List the directory, take some names away, and add others in the two ways that there are."""
    assert levels(disk) == 3
    gone = set(sorted(names)[::301])
    with open_changed_tree(disk) as tree:
        assert set(tree.names("/d")) == names
        with tree.together():
            for name in gone:
                tree.remove(f"/d/{name}")
        tree.write_files("/d", [(name_of(number), b"") for number in range(800_000, 800_050)])
        tree.put([regular(f"d/{name_of(number)}", b"x") for number in range(800_050, 800_100)], "/")
    assert levels(disk) == 3
    return names - gone | {name_of(number) for number in range(800_000, 800_100)}


def of_the_first_leaf(tree: ExtTree, first: int) -> list[str]:
    """Return three names from a number on that belong into the first leaf."""
    tree_of_hashes = opened_index(tree.files.fs, tree.inode("/d"))
    end = tree_of_hashes.path(0)[-1].table.hashes[1]
    return [
        *islice((name for name in map(name_of, count_from(first)) if tree_of_hashes.hashing(name.encode()) < end), 3)
    ]


def test_the_kernel_uses_three_levels_that_we_wrote(
    tool: Tool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(directory_writer, "_LEAF_FILL", (1, 4))  # one name in each leaf
    with open_ext_tree(filled([], size=8 * MIB, block_size=1024)) as tree:
        writer = DirectoryWriter(KIB, tree.files.fs.checksums)
    count = writer.limit(layout.DX_ROOT.size) * writer.limit(layout.DX_NODE.size)
    links = (hard_link(f"d/{name_of(number)}", "one") for number in range(count))
    path = tmp_path / "image"
    path.write_bytes(filled([folder("d"), regular("one"), *links], size=SIZE, block_size=1024).data)
    run(tool("tune2fs"), "-O", "large_dir", path)
    disk = disk_of(path)
    with open_changed_tree(disk) as changed:  # two full levels become three
        more = of_the_first_leaf(changed, count)
        changed.write_files("/d", [(name, b"") for name in more])
    path.write_bytes(disk.data)
    names = changed_by_the_kernel(path, {*map(name_of, range(count)), *more}, random.Random(1))
    disk = disk_of(path)
    judged(tool, tmp_path, disk)
    changed_by_us(disk, names)
    judged(tool, tmp_path, disk)


def test_three_levels_of_the_kernel_are_changed(tool: Tool, tmp_path: Path) -> None:
    path = made_ext(tool, tmp_path / "image", "-t ext4 -b 1024 -O large_dir -N 2048", SIZE)
    with open_disk(str(path), writable=True) as opened, open_changed_tree(opened) as tree:
        tree.make_directory("/d")
        tree.write("/one", b"1")
    numbers = random.Random(3).sample(range(100_000), COUNT)
    with seen(path) as directory:
        for number in numbers:
            (directory / name_of(number)).hardlink_to(directory.parent / "one")
    disk = disk_of(path)
    judged(tool, tmp_path, disk)
    names = changed_by_us(disk, {name_of(number) for number in numbers})
    path.write_bytes(disk.data)
    changed_by_the_kernel(path, names, random.Random(2))
    judged(tool, tmp_path, disk_of(path))
