# SPDX-License-Identifier: MIT
"""File systems that we made smaller: e2fsck judges, their files are compared, resize2fs says how small they can be."""

from __future__ import annotations

import os
import random
from collections.abc import Iterator
from pathlib import Path

import pytest

from pydiskimg.disks.memory import MemoryDisk
from pydiskimg.disks.region import Region
from pydiskimg.errors import DoesNotFitError, FileSystemError
from pydiskimg.fs.ext4.grow import plan_ext_growth
from pydiskimg.fs.ext4.layout import SUPERBLOCK
from pydiskimg.fs.ext4.shrink.minimum import minimum_size
from pydiskimg.fs.ext4.shrink.shrink import shrink_ext
from pydiskimg.fs.ext4.tree import open_ext_tree
from pydiskimg.protocols import Source
from pydiskimg.units import KIB, MIB
from tests.fixtures.ext_contents import contents_of
from tests.fixtures.ext_files import made_ext
from tests.fixtures.programs import Tool, run
from tests.fixtures.stopping_disk import LosingDisk, StoppedError, StoppingDisk

pytestmark = pytest.mark.oracle

SIZE = 40 * MIB
# What mke2fs is told, and whether resize2fs -M makes as little of it as we do within two percent.
FEATURES = {
    "-t ext2 -b 1024": True,
    "-t ext2 -r 0 -b 4096": True,
    "-t ext3 -b 1024": True,
    "-t ext3 -b 1024 -I 128 -g 2048": True,
    "-t ext4 -b 1024": False,
    "-t ext4 -b 4096": True,
    "-t ext4 -b 65536": True,
    "-t ext4 -b 1024 -O ^64bit,^metadata_csum,uninit_bg -I 128": False,
    "-t ext4 -b 1024 -O ^flex_bg": True,
    "-t ext4 -b 1024 -O metadata_csum_seed,orphan_file": False,
    "-t ext4 -b 1024 -O ^has_journal": False,
    "-t ext4 -b 1024 -O meta_bg,^resize_inode": False,
    "-t ext2 -b 1024 -O meta_bg,^resize_inode,^sparse_super": True,
    "-t ext4 -b 1024 -g 1024": False,
    "-t ext4 -b 1024 -O ^resize_inode": False,
    "-t ext4 -b 1024 -E resize=300000": False,
    "-t ext4 -b 1024 -O sparse_super2 -g 2048": False,
    "-t ext4 -b 1024 -O quota,project -g 2048": False,
    "-t ext4 -b 1024 -O inline_data -g 1024": False,
    # resize2fs refuses.
    "-t ext4 -b 1024 -O bigalloc -C 4096 -g 4096": False,
    "-t ext4 -b 4096 -O bigalloc,sparse_super2 -C 16384 -g 8192": False,
    "-t ext4 -b 1024 -O ^metadata_csum,bigalloc,^resize_inode -C 8192": False,
}


def filled(root: Path) -> Path:
    """Put files of many kinds below a directory."""
    rng = random.Random(1)
    for number in range(40):
        (root / f"directory {number % 7}").mkdir(exist_ok=True)
        (root / f"directory {number % 7}" / f"file {number}").write_bytes(rng.randbytes(rng.randrange(60000)))
    (root / "many").mkdir()
    for number in range(120):
        (root / "many" / f"{number} {'n' * 60}").write_bytes(rng.randbytes(rng.choice((0, 1, 900))))
    (root / "many" / "deep" / "deeper").mkdir(parents=True)
    os.link(root / "many" / f"1 {'n' * 60}", root / "hard")
    (root / "symlink").symlink_to("x" * 100)
    (root / "fast symlink").symlink_to("y")
    with (root / "sparse").open("wb") as file:
        file.seek(3 * MIB)
        file.write(rng.randbytes(5000))
    return root


@pytest.fixture(scope="module")
def contents(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return filled(tmp_path_factory.mktemp("contents"))


def everything(source: Source) -> object:
    """Contents and metadata of all files, with their times."""
    names = ("st_size", "st_mtime_ns", "st_ctime_ns", "st_atime_ns", "st_rdev")
    with open_ext_tree(source) as tree:
        times = {path: [getattr(status, name) for name in names] for path, status in tree.walk()}
    return contents_of(source), times


def disk_of(tool: Tool, directory: Path, options: str, contents: Path, size: int = SIZE) -> MemoryDisk:
    path = made_ext(tool, directory / "image", options, size, contents)
    if "quota" in options:  # mke2fs does not count the files that it puts there
        run(tool("e2fsck"), "-fy", path, expect=(0, 1))
    disk = MemoryDisk(size)
    disk.data[:] = path.read_bytes()
    return disk


def judged(tool: Tool, directory: Path, disk: MemoryDisk, size: int | None = None, *, first: str = "-fn") -> Path:
    """Have e2fsck check what there is of a disk, after it may have put something in order."""
    path = directory / "judged"
    path.write_bytes(bytes(disk.data)[:size])
    if first != "-fn":
        run(tool("e2fsck"), first, path, expect=(0, 1))
    run(tool("e2fsck"), "-fn", path)
    return path


@pytest.mark.parametrize("options", list(FEATURES))
def test_to_the_minimum_and_back(tmp_path: Path, tool: Tool, contents: Path, options: str) -> None:
    disk = disk_of(tool, tmp_path, options, contents)
    before, minimum = everything(disk), minimum_size(disk)
    for size in (23 * MIB + 5 * KIB, None):
        shrunk = shrink_ext(disk, size)
        assert shrunk <= (size or minimum)
        judged(tool, tmp_path, disk, shrunk)
        assert everything(Region(disk, 0, shrunk)) == before
    assert shrunk == minimum
    assert minimum_size(disk) <= shrunk
    theirs = tmp_path / "image"
    if FEATURES[options]:
        run(tool("resize2fs"), "-M", theirs)
        assert shrunk <= theirs.stat().st_size * 1.02 + 4 * 64 * KIB
    plan_ext_growth(disk).write()
    judged(tool, tmp_path, disk)
    assert everything(disk) == before


def test_no_smaller_than_the_minimum(tmp_path: Path, tool: Tool, contents: Path) -> None:
    disk = disk_of(tool, tmp_path, "-t ext4 -b 1024", contents)
    before, minimum = bytes(disk.data), minimum_size(disk)
    with pytest.raises(DoesNotFitError, match=f"cannot become as small as .* at least {minimum} bytes") as caught:
        shrink_ext(disk, minimum - 4096)
    assert caught.value.needed == minimum
    assert bytes(disk.data) == before
    assert shrink_ext(disk, SIZE * 2) == SIZE
    assert bytes(disk.data) == before


def test_what_is_refused(tmp_path: Path, tool: Tool, contents: Path) -> None:
    disk = disk_of(tool, tmp_path, "-t ext4 -O mmp", contents)
    before = bytes(disk.data)
    with pytest.raises(FileSystemError, match="has the feature mmp"):
        shrink_ext(disk)
    assert bytes(disk.data) == before
    disk = disk_of(tool, tmp_path, "-t ext2 -b 1024", contents)
    disk.data[1024 + SUPERBLOCK.offsets["s_state"]] = 0
    before = bytes(disk.data)
    with pytest.raises(FileSystemError, match="it was not unmounted cleanly"):
        shrink_ext(disk)
    assert bytes(disk.data) == before


STOPPED = [
    "-t ext4 -b 1024 -g 1024",
    "-t ext3 -b 1024 -g 2048 -I 128",
    "-t ext4 -b 1024 -O meta_bg,^resize_inode,orphan_file -g 2048",
    "-t ext4 -b 1024 -O bigalloc -C 4096 -g 4096",
    "-t ext4 -b 1024 -O ^has_journal -g 1024",
    "-t ext2 -b 1024 -g 1024",
]


def stopped(start: bytes, *, losing: bool) -> Iterator[MemoryDisk]:
    """Yield a disk for some of the writes after which it may end; the last has them all."""
    rng = random.Random(5)
    writes = 0
    while True:
        disk = MemoryDisk(len(start))
        disk.data[:] = start
        dying = LosingDisk(disk, writes, KIB) if losing else StoppingDisk(disk, writes)
        try:
            shrink_ext(dying)
        except StoppedError:
            if isinstance(dying, LosingDisk):
                dying.lose(rng)
            writes += rng.choice((1, 7, 17, 29, 43))
        else:
            dying.flush()
            yield disk
            return
        yield disk


@pytest.mark.parametrize("losing", [False, True])
@pytest.mark.parametrize("options", STOPPED)
def test_stopped_at_writes(tmp_path: Path, tool: Tool, options: str, *, losing: bool) -> None:
    """e2fsck -p finds all files in a file system of the old or a smaller size; without a journal e2fsck -y does."""
    has_journal = "ext2" not in options and "^has_journal" not in options
    root = tmp_path / "root"
    root.mkdir()
    for number in range(30):
        (root / f"d{number % 5}").mkdir(exist_ok=True)
        (root / f"d{number % 5}" / f"file {number}").write_bytes(random.Random(number).randbytes(number * 700))
    disk = disk_of(tool, tmp_path, options, root, 10 * MIB)
    before, sizes = contents_of(disk), set()
    for dead in stopped(bytes(disk.data), losing=losing):
        path = judged(tool, tmp_path, dead, first="-fp" if has_journal else "-fy")
        checked = MemoryDisk(10 * MIB)
        checked.data[:] = path.read_bytes()
        assert contents_of(checked) == before
        sizes.add(minimum_size(checked))
    assert sizes
