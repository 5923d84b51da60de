# SPDX-License-Identifier: MIT
"""File systems that the kernel has filled, emptied and filled again, made smaller; then it uses them again."""

from __future__ import annotations

import errno
import os
import random
import shutil
import stat
from contextlib import suppress
from pathlib import Path

import pytest

from pydiskimg.fs.ext4.change.tree import open_changed_tree
from pydiskimg.fs.ext4.grow import plan_ext_growth
from pydiskimg.fs.ext4.shrink import shrink_ext
from pydiskimg.images.open_disk import open_disk
from pydiskimg.units import MIB
from tests.fixtures.ext_contents import contents_of
from tests.fixtures.ext_files import made_ext
from tests.fixtures.growing import loop, mounted_at
from tests.fixtures.programs import Tool, run
from tests.fixtures.synced import synced

pytestmark = pytest.mark.root

SIZE = 48 * MIB
# Small groups: directories, which the kernel spreads over groups, and their inodes have to move.
FEATURES = [
    "-t ext4 -b 4096",
    "-t ext4 -b 1024 -g 2048 -N 4096",
    "-t ext4 -b 1024 -O inline_data,metadata_csum_seed,orphan_file -g 2048",
    "-t ext4 -b 1024 -O bigalloc -C 4096 -g 8192",
    "-t ext4 -b 1024 -O meta_bg,^resize_inode,^has_journal -g 2048",
    "-t ext4 -b 1024 -O ea_inode -g 2048 -N 4096",
    "-t ext3 -b 1024 -g 2048 -I 128",
    "-t ext2 -b 1024 -g 2048",
]


def used_for_long(root: Path) -> None:
    """Leave files in pieces, directories that were larger, links, attributes, holes, and blocks never written."""
    rng = random.Random(1)
    paths = []
    for number in range(60):
        directory = root / f"d{number % 20}" / f"e{number}"
        directory.mkdir(parents=True)
        for index in range(rng.randrange(12)):
            path = directory / f"file {index}"
            path.write_bytes(rng.randbytes(rng.choice((0, 50, 700, 3000, 20000, 60000))))
            paths.append(path)
    (root / "big").mkdir()
    for number in range(500):
        (root / "big" / f"{number:04} {'y' * 60}").write_bytes(b"z" * (number % 200))
    rng.shuffle(paths)
    for path in paths[: len(paths) // 2]:
        path.unlink()
    for path in paths[len(paths) // 2 :][:30]:
        with path.open("r+b") as file:
            file.seek(100_000)
            file.write(rng.randbytes(9000))
        os.setxattr(path, "user.own", rng.randbytes(150))
        os.link(path, root / f"hard {path.parent.name} {path.name}")
    for path in paths[len(paths) // 2 :][30:50]:
        os.setxattr(path, "user.shared", b"q" * 200)
    (root / "symlink").symlink_to("x" * 200)
    os.mkfifo(root / "fifo")
    with (root / "in pieces").open("wb", buffering=0) as file:
        for number in range(300):
            file.write(rng.randbytes(1024))
            (root / f"between {number}").write_bytes(b"k" * 1024)
            if not number % 20:
                synced(root)
    for number in range(0, 300, 2):
        (root / f"between {number}").unlink()
    with (root / "never written").open("wb") as file, suppress(OSError):
        os.posix_fallocate(file.fileno(), 0, 700_000)


def shared_values(root: Path) -> None:
    """Have two files each share a value in an inode of its own, with high numbers.

    Their blocks of attributes differ: of one that is shared, and names a value, Linux 6.18 counts that twice.
    """
    (root / "filler").mkdir()
    for number in range(2000):
        (root / "filler" / str(number)).touch()
    for number in range(8):
        path = root / "filler" / f"with a value {number}"
        path.touch()
        os.setxattr(path, "user.own", bytes(60))  # the inode has no room for another
        os.setxattr(path, "user.number", b"%d" % number)
        os.setxattr(path, "user.large", bytes([number // 2]) * 5000)
        path.rename(root / path.name)
    shutil.rmtree(root / "filler")


def as_mounted(root: Path) -> dict[str, object]:
    found: dict[str, object] = {}
    for path in sorted(root.rglob("*")):
        status = path.lstat()
        data = path.read_bytes() if stat.S_ISREG(status.st_mode) else b""
        names = () if stat.S_ISLNK(status.st_mode) else os.listxattr(path)
        metadata = status.st_mode, status.st_nlink, status.st_size, status.st_mtime_ns, status.st_ctime_ns
        found[str(path.relative_to(root))] = metadata, data, {name: os.getxattr(path, name) for name in names}
    return found


def filled_up(root: Path) -> None:
    """Use the last block and the last inode, and give all of them back."""
    paths: list[Path] = []
    with pytest.raises(OSError, match="No space") as caught:
        _write_until_full(root, paths)
    assert caught.value.errno == errno.ENOSPC
    for number in range(3000):
        try:
            paths.append(root / f"empty {number}")
            paths[-1].touch()
        except OSError:
            break
    for path in paths:
        path.unlink(missing_ok=True)


def _write_until_full(root: Path, paths: list[Path]) -> None:
    for number in range(100_000):
        paths.append(root / f"more {number}")
        paths[-1].write_bytes(b"m" * 100_000)


@pytest.mark.parametrize("options", FEATURES)
def test_used_for_long(tmp_path: Path, tool: Tool, options: str) -> None:
    path, point = made_ext(tool, tmp_path / "image", options, SIZE), tmp_path / "point"
    with loop(path, 0, SIZE) as device, mounted_at(device, point):
        used_for_long(point)
        if "ea_inode" in options:
            shared_values(point)
        before = as_mounted(point)
    run(tool("e2fsck"), "-fn", path)
    with open_disk(path) as disk:
        contents = contents_of(disk)
    for size in (30 * MIB, None):
        with open_disk(path, writable=True) as disk:
            now = shrink_ext(disk, size)
        os.truncate(path, now)
        run(tool("e2fsck"), "-fn", path)
        with open_disk(path) as disk:
            assert contents_of(disk) == contents
    assert now < 17 * MIB
    with loop(path, 0, now) as device, mounted_at(device, point):
        assert as_mounted(point) == before
        filled_up(point)
        assert as_mounted(point).keys() == before.keys()
    run(tool("e2fsck"), "-fn", path)


def test_multiple_mount_protection(tmp_path: Path, tool: Tool) -> None:
    """While we change the file system the kernel does not mount it; afterwards it does."""
    path, point = made_ext(tool, tmp_path / "image", "-t ext4 -b 1024 -O mmp", 20 * MIB), tmp_path / "point"
    os.truncate(path, SIZE)
    with open_disk(path, writable=True) as disk:
        with open_changed_tree(disk) as tree:
            tree.write("/file", b"contents" * 20_000)
            with loop(path, 0, 20 * MIB) as device:
                run("mount", device, point, expect=(32,))
        plan_ext_growth(disk).write()
        size = shrink_ext(disk, 16 * MIB)
    with loop(path, 0, size) as device, mounted_at(device, point):
        assert (point / "file").read_bytes() == b"contents" * 20_000
        (point / "other").write_bytes(b"of the kernel")
    run(tool("e2fsck"), "-fn", path)
