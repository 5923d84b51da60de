# SPDX-License-Identifier: MIT
"""File systems that the kernel has filled, aged, and left as a snapshot of a running machine finds them.

What is in use is copied and nothing else; kernel and e2fsck recover both, and the files are the same.
"""

from __future__ import annotations

import os
import random
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from pydiskimg.fs.ext4.usage import ExtUsage
from pydiskimg.images.raw import open_raw
from pydiskimg.units import MIB
from pydiskimg.volumes.used import used_source
from tests.fixtures.block_devices import block_device
from tests.fixtures.ext_files import made_ext
from tests.fixtures.programs import Tool, run
from tests.fixtures.used_copy import copy_used

pytestmark = pytest.mark.root

SIZE = 96 * MIB


@contextmanager
def mounted(image: Path, at: Path, options: str) -> Iterator[Path]:
    at.mkdir(exist_ok=True)
    with block_device(image) as device:
        run("mount", "-o", options, device, at)
        try:
            yield at
        finally:
            run("umount", at)


class Aging:
    """Makes and removes files and directories, more or less at random."""

    def __init__(self, root: Path, seed: int) -> None:
        self.root = root
        self.rng = random.Random(seed)
        self.names: list[Path] = []

    def step(self, number: int) -> None:
        for index in range(120):
            if self.names and self.rng.random() < 0.4:
                name = self.names.pop(self.rng.randrange(len(self.names)))
                (shutil.rmtree if name.is_dir() else os.unlink)(name)
                continue
            name = self.root / f"{number}-{index}"
            self.names.append(name)
            if self.rng.random() < 0.85:
                name.write_bytes(self.rng.randbytes(self.rng.randrange(200_000)))
                continue
            name.mkdir()
            for entry in range(self.rng.randrange(120)):  # blocks of directories are freed and used for data: revokes
                (name / f"{'x' * self.rng.randrange(1, 150)}{entry}").write_bytes(b"d" * self.rng.randrange(100))

    def commit(self) -> None:
        """All of it is in the journal, and hardly anything yet where it belongs."""
        fd = os.open(self.root / "last", os.O_CREAT | os.O_WRONLY)
        try:
            os.write(fd, self.rng.randbytes(100))
            os.fsync(fd)
        finally:
            os.close(fd)


def tree_of(image: Path, at: Path) -> dict[str, bytes | None]:
    """Every file and directory, after the kernel has recovered the file system."""
    found: dict[str, bytes | None] = {}
    with mounted(image, at, "defaults") as root:
        for path in root.rglob("*"):
            found[str(path.relative_to(root))] = path.read_bytes() if path.is_file() else None
    return found


def total(path: Path) -> int:
    with open_raw(path) as source:
        return sum(end - start for start, end in ExtUsage(source).ranges())


RUNNING = (
    ("-t ext4", "defaults"),
    ("-t ext4 -b 4096", "defaults"),
    ("-t ext4 -b 4096 -J size=4", "data=journal"),
    ("-t ext4 -O ^64bit -J size=4", "data=journal"),
    ("-t ext4 -O ^metadata_csum", "data=writeback"),
    ("-t ext4 -O ^metadata_csum", "journal_checksum"),
    ("-t ext4", "journal_async_commit,data=writeback"),
    ("-t ext4 -O bigalloc -C 16384 -b 4096", "defaults"),
    ("-t ext4 -O orphan_file,metadata_csum_seed", "defaults"),
    ("-t ext3 -b 1024", "defaults"),
    ("-t ext3 -b 4096 -J size=4", "data=journal"),
)


@pytest.mark.parametrize(("options", "mount_options"), RUNNING)
def test_a_snapshot_of_a_running_machine(options: str, mount_options: str, tmp_path: Path, tool: Tool) -> None:
    disk = made_ext(tool, tmp_path / "disk", options, SIZE)
    snapshots = []
    with mounted(disk, tmp_path / "mnt", mount_options) as root:
        aging = Aging(root, seed=1)
        for number in range(3):
            aging.step(number)
            aging.commit()
            snapshots.append(Path(shutil.copyfile(disk, tmp_path / f"snapshot{number}")))
    for snapshot in snapshots:
        with open_raw(snapshot) as source:
            usage = ExtUsage(source)
            in_use = sum(end - start for start, end in usage.ranges())
            assert usage.first_doubt is None
            assert usage.replayed_blocks > 20, "there is something to recover"
            used = used_source(source)
            assert [note for note in used.notes if "not believed" in note] == []
            copy_used(used, tmp_path / "copy")
        shutil.copyfile(tmp_path / "copy", tmp_path / "checked")
        run(tool("e2fsck"), "-p", tmp_path / "checked", expect=(0, 1))
        run(tool("e2fsck"), "-fn", tmp_path / "checked")
        files = tree_of(snapshot, tmp_path / "mnt")
        assert len(files) > 100
        assert tree_of(tmp_path / "copy", tmp_path / "mnt") == files
        run(tool("e2fsck"), "-fn", tmp_path / "copy")
        assert total(snapshot) == in_use, "after the recovery as much is in use as was foreseen"
        snapshot.unlink()


@pytest.mark.parametrize(
    ("options", "mount_options", "reason"),
    [
        ("-t ext2", "defaults", "not unmounted cleanly"),
        ("-t ext4 -O ^has_journal", "defaults", "not unmounted cleanly"),
        ("-t ext4 -O fast_commit", "defaults", "fast commits"),
    ],
)
def test_a_snapshot_that_is_not_believed(
    options: str, mount_options: str, reason: str, tmp_path: Path, tool: Tool
) -> None:
    disk = made_ext(tool, tmp_path / "disk", options, SIZE)
    with mounted(disk, tmp_path / "mnt", mount_options) as root:
        aging = Aging(root, seed=2)
        aging.step(0)
        aging.commit()
        snapshot = Path(shutil.copyfile(disk, tmp_path / "snapshot"))
    with open_raw(snapshot) as source:
        used = used_source(source)
        assert reason in used.notes[0]
        copy_used(used, tmp_path / "copy")
    assert (tmp_path / "copy").read_bytes() == snapshot.read_bytes()


def fill(path: Path) -> None:
    """Write until the file system is full."""
    with path.open("wb", buffering=0) as file:
        while True:
            file.write(b"\xff" * MIB)


@pytest.mark.parametrize(
    "options",
    [
        "-t ext2 -b 1024",
        "-t ext3",
        "-t ext4",
        "-t ext4 -O bigalloc -C 32768",
        "-t ext4 -O ^metadata_csum,uninit_bg,^flex_bg",
        "-t ext4 -O fast_commit,inline_data,ea_inode,large_dir",
        "-t ext4 -O ^has_journal,meta_bg,^resize_inode -b 1024",
    ],
)
def test_an_aged_file_system(options: str, tmp_path: Path, tool: Tool) -> None:
    """Filled to the last block, emptied in parts, filled again, unmounted."""
    disk = made_ext(tool, tmp_path / "disk", options, SIZE)
    with mounted(disk, tmp_path / "mnt", "defaults") as root:
        aging = Aging(root, seed=3)
        for number in range(4):
            aging.step(number)
            if number == 1:
                with pytest.raises(OSError, match="No space left"):
                    fill(root / "all")
                (root / "all").unlink()
    with open_raw(disk) as source:
        used = used_source(source)
        assert used.notes == []
        assert used.used_bytes < 60 * MIB
        copy_used(used, tmp_path / "copy")
    run(tool("e2fsck"), "-fn", tmp_path / "copy")
    files = tree_of(disk, tmp_path / "mnt")
    assert len(files) > 100
    assert tree_of(tmp_path / "copy", tmp_path / "mnt") == files


@pytest.mark.parametrize(
    "options",
    [
        "-t ext3 -b 1024",
        "-t ext3 -b 4096",
        "-t ext4 -b 1024",
        "-t ext4 -b 4096",
        "-t ext4 -O metadata_csum_seed -b 1024",
        "-t ext4 -O meta_bg,^resize_inode -b 1024",
        "-t ext4 -O ^metadata_csum,uninit_bg -b 1024",
        "-t ext4 -O sparse_super2 -b 1024 -E num_backup_sb=1",
    ],
)
@pytest.mark.parametrize("start", [8, 40], ids=["one group", "more"])
def test_what_was_changed_while_it_was_mounted(options: str, start: int, tmp_path: Path, tool: Tool) -> None:
    """Grown and given another UUID and label: the kernel and tune2fs keep the copies of the superblock up."""
    disk = made_ext(tool, tmp_path / "disk", options, start * MIB)
    os.truncate(disk, 150 * MIB)
    with mounted(disk, tmp_path / "mnt", "defaults") as root:
        device = run("findmnt", "-n", "-o", "SOURCE", root).strip()
        aging = Aging(root, seed=4)
        run(tool("resize2fs"), device, expect=(0, 1))  # some cannot grow while they are mounted
        run(tool("tune2fs"), "-L", "other", device)
        run(tool("tune2fs"), "-U", "random", device, expect=(0, 1))  # where all checksums would change
        if start > 8:
            aging.step(0)
        aging.commit()
        snapshot = Path(shutil.copyfile(disk, tmp_path / "snapshot"))
    for path in (snapshot, disk):
        with open_raw(path) as source:
            used = used_source(source)
            assert [note for note in used.notes if "not believed" in note] == []
            assert used.used_bytes < source.size
