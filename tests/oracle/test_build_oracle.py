# SPDX-License-Identifier: MIT
"""e2fsck, sfdisk, qemu-img and tar judge a disk that was built."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from pydiskimg.images.open import open_image
from pydiskimg.partitions.read import read_partition_table
from pydiskimg.protocols import Source, read_bytes
from tests.fixtures.checkout import ROOT
from tests.fixtures.programs import Tool, run
from tests.fixtures.small_system import system_tarball, system_tree

pytestmark = pytest.mark.oracle
_MADE = {"etc/fstab", "etc/hostname", "etc/hosts", "boot/grub", "lost+found"}


def built(tarball: Path, disk: Path, *words: str) -> None:
    run(sys.executable, "-m", "pydiskimg", "build", tarball, disk, "--hostname", "new", *words, cwd=ROOT)


def part(tool: Tool, source: Source, directory: Path, number: int) -> Path:
    """Return a partition as a file that e2fsck finds nothing in."""
    partition = read_partition_table(source)[number - 1]
    path = directory / f"partition{number}"
    path.write_bytes(read_bytes(source, partition.start, partition.length))
    run(tool("e2fsck"), "-fn", path)
    return path


@pytest.mark.parametrize("table", ["mbr", "gpt"])
@pytest.mark.parametrize("kind", ["ext2", "ext4"])
def test_programs_find_nothing_wrong(kind: str, table: str, tmp_path: Path, tool: Tool) -> None:
    tree = system_tree(tmp_path / "tree")
    tarball, disk = system_tarball(tmp_path / "tarball", tree), tmp_path / "disk.qcow2"
    built(tarball, disk, "-O", "qcow2", "--size", "64M", "--boot", "8M", "--swap", "1M", "--table", table, "-t", kind)
    assert json.loads(run(tool("qemu-img"), "check", "--output=json", disk))["check-errors"] == 0
    raw = tmp_path / "disk.raw"
    run(tool("qemu-img"), "convert", "-O", "raw", disk, raw)
    found = json.loads(run(tool("sfdisk"), "--json", raw))["partitiontable"]
    assert found["label"] == {"mbr": "dos"}.get(table, table)
    assert run(tool("sfdisk"), "--verify", raw).splitlines()[1] == "No errors detected."
    with open_image(disk) as image:
        numbers = (1, 3) if table == "mbr" else (2, 4)
        boot, root = (part(tool, image, tmp_path, number) for number in numbers)
    assert "vmlinuz-6.1.0-9-amd64" in run(tool("debugfs"), "-R", "ls -p /", boot)
    assert "Type: symlink" in run(tool("debugfs"), "-R", "stat /vmlinuz", root)


def listed(root: Path) -> dict[str, tuple[object, ...]]:
    """Return what tells files apart, by path, without those that a build makes or changes."""
    found: dict[str, tuple[object, ...]] = {}
    for directory, names, files in os.walk(root):
        for name in (*names, *files):
            path = Path(directory, name)
            key = str(path.relative_to(root))
            if key in _MADE or key.startswith("boot/grub/"):
                continue
            status = path.lstat()
            contents = os.readlink(path) if path.is_symlink() else path.read_bytes() if path.is_file() else b""
            times = None if key in ("etc", "boot") else status.st_mtime_ns  # what is made in them changes theirs
            found[key] = (status.st_mode, times, contents)
    return found


def test_the_files_are_those_that_tar_unpacks(tmp_path: Path, tool: Tool) -> None:
    tarball, disk = system_tarball(tmp_path / "tarball", system_tree(tmp_path / "tree")), tmp_path / "disk"
    built(tarball, disk, "--size", "64M")
    unpacked, ours = tmp_path / "unpacked", tmp_path / "ours"
    unpacked.mkdir()
    ours.mkdir()
    run(tool("tar"), "-xf", tarball, "-C", unpacked)
    with subprocess.Popen(
        [sys.executable, "-m", "pydiskimg", "tar-out", disk, "/", "-"], cwd=ROOT, stdout=subprocess.PIPE
    ) as packing:
        subprocess.run([tool("tar"), "-xpC", ours], stdin=packing.stdout, check=True)
    assert packing.returncode == 0
    assert listed(ours) == listed(unpacked)
