# SPDX-License-Identifier: MIT
"""ext2, ext3 and ext4 grow in a machine whose kernel lets us; e2fsck and the files judge, also after a crash."""

from __future__ import annotations

import os
import random
import re
import shutil
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from pydiskimg.disk import open_disk
from pydiskimg.fs.ext4 import make_ext
from pydiskimg.growth.partition import plan_partition_growth
from pydiskimg.region import Region
from tests.conftest import need
from tests.fixtures.debian_system import DebianSystem
from tests.fixtures.growing import MIB, NEW, OLD, digest, disk_with, fill, loop, mounted_at
from tests.fixtures.python_machine import machine_command, python_machine

pytestmark = [pytest.mark.boot, pytest.mark.root]

SCRIPT = """
import os, sys, traceback
sys.path.insert(0, "/project")
from pydiskimg.disk import open_disk
from pydiskimg.errors import DiskImageError
from pydiskimg.growth import grow_last_volume
print("GROWING", flush=True)
for path in sorted("/dev/" + name for name in os.listdir("/dev") if name.startswith("vd") and len(name) == 3):
    try:
        with open_disk(path, writable=True) as disk:
            print("GREW", grow_last_volume(disk), flush=True)
    except DiskImageError as error:
        print("ERROR", type(error).__name__, error, flush=True)
    except BaseException:
        traceback.print_exc()
print("ALL DONE", flush=True)
"""
IMPORTS = ("pydiskimg.disk", "pydiskimg.growth")


def in_pages(path: Path) -> Path:
    """The machine's disks are whole sectors."""
    os.truncate(path, NEW // 512 * 512)
    return path


def ours(path: Path) -> Path:
    disk_with(path, "gpt", "ext4", "-q")
    with open_disk(path, writable=True) as disk:
        make_ext(Region(disk, 30 * MIB, 309 * MIB), kind="ext4")
    _fill(path)
    return path


def _fill(path: Path) -> None:
    with loop(path, 30 * MIB, 309 * MIB) as device, mounted_at(device, path.parent / "filling") as point:
        fill(point)


def unmounted_by_a_crash(path: Path) -> Path:
    """What is in the file while it is mounted: the journal has to be replayed."""
    living = disk_with(path.with_name("living"), "mbr", "ext4", "-q", contents=False)
    with loop(living, 30 * MIB, 310 * MIB) as device, mounted_at(device, path.parent / "filling") as point:
        fill(point)
        subprocess.run(["sync", "-f", point], check=True)
        shutil.copy(living, path)
    living.unlink()
    return path


DISKS: dict[str, Callable[[Path], Path]] = {
    "ext4": lambda path: disk_with(path, "mbr", "ext4", "-q"),
    "ext3": lambda path: disk_with(path, "logical", "ext3", "-q"),
    "ext2": lambda path: disk_with(path, "none", "ext2", "-q"),
    "no resize_inode": lambda path: disk_with(path, "gpt", "ext4", "-q", "-O", "^resize_inode"),
    "small blocks": lambda path: disk_with(path, "mbr", "ext4", "-q", "-b", "1024", "-O", "^64bit"),
    "ours": ours,
    "crashed": unmounted_by_a_crash,
    "sparse_super2": lambda path: disk_with(path, "mbr", "ext4", "-q", "-O", "sparse_super2,^resize_inode"),
}


@pytest.fixture(scope="module")
def machine(tmp_path_factory: pytest.TempPathFactory, debian: DebianSystem) -> Path:
    need(shutil.which("qemu-system-x86_64") is not None, "qemu-system-x86_64 is not installed")
    return python_machine(tmp_path_factory.mktemp("machine"), debian, SCRIPT, imports=IMPORTS)


@pytest.fixture(scope="module")
def contents(tmp_path_factory: pytest.TempPathFactory) -> str:
    place = tmp_path_factory.mktemp("contents")
    fill(place)
    return digest(place)


def judged(path: Path, contents: str, tmp_path: Path, *, recover: bool = False) -> int:
    """Check the file system in the last partition and its files; return its size in bytes."""
    with open_disk(path) as disk:
        growth = plan_partition_growth(disk, 512)
    start = growth.partition.start if growth else 0
    length = growth.partition.length if growth else path.stat().st_size // 512 * 512
    with loop(path, start, length) as device:
        if recover:  # the journal, as at every boot
            assert subprocess.run(["e2fsck", "-p", device], check=False, capture_output=True).returncode in (0, 1)
        done = subprocess.run(["e2fsck", "-fn", device], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout
        with mounted_at(device, tmp_path / "judged", "-o", "ro") as point:
            assert digest(point) == contents
        header = subprocess.run(["dumpe2fs", "-h", device], capture_output=True, text=True, check=True).stdout
    return _number("Block count", header) * _number("Block size", header)


def _number(name: str, header: str) -> int:
    return int(re.findall(rf"^{name}: +(\d+)$", header, re.MULTILINE)[0])


def test_ext_grows(tmp_path: Path, machine: Path, debian: DebianSystem, contents: str) -> None:
    disks = [in_pages(make(tmp_path / f"disk{number}")) for number, make in enumerate(DISKS.values())]
    done = subprocess.run(
        machine_command(debian, machine, disks), stdin=subprocess.DEVNULL, capture_output=True, timeout=300, check=False
    )
    console = done.stdout.decode(errors="replace")
    assert "ALL DONE" in console, console[-3000:]
    said = dict(zip(DISKS, re.findall(r"^(?:GREW|ERROR) .*(?=\r)", console, re.MULTILINE), strict=True))
    sizes = {name: judged(path, contents, tmp_path) for name, path in zip(DISKS, disks, strict=True)}
    refused = said.pop("sparse_super2")
    assert re.search(
        r"ERROR FileSystemError /dev/vdh: partition 3 was grown to 570 MiB, its ext4 file system of 310 MiB did not "
        r"follow, which harms nothing that is in it: .*a feature with which the kernel does not grow it, such as ",
        refused,
    )
    assert sizes.pop("sparse_super2") == 310 * MIB
    for name, sentence in said.items():
        assert sentence.startswith("GREW /dev/vd"), sentence
        where = NEW // MIB - sizes[name] // MIB
        assert where <= (41 if name == "ext3" else 31), (name, sentence)


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_a_crash_of_the_machine(tmp_path: Path, machine: Path, debian: DebianSystem, contents: str, seed: int) -> None:
    """The machine stops at an instant after growing began: the disk has a table, and what the journal makes whole."""
    path = in_pages(disk_with(tmp_path / "disk", "gpt", "ext4", "-q"))
    process = subprocess.Popen(
        machine_command(debian, machine, [path]), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    try:
        next(line for line in process.stdout if "GROWING" in line)
        time.sleep(random.Random(seed).uniform(0, 1))
    finally:
        process.kill()
        process.stdout.close()
        process.wait()
    assert judged(path, contents, tmp_path, recover=True) >= OLD - 31 * MIB
