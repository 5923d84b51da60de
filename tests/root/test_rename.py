# SPDX-License-Identifier: MIT
"""The rename verb on whole disks, as Ganeti calls it: what is in the system afterwards, and what was refused."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.fixtures.node import Node, create_environment, last_line

pytestmark = pytest.mark.root
Tool = Callable[[str], str]
MIB = 1 << 20
SIZES = {"ext4": 60, "xfs": 320, "btrfs": 130}
FILES = {
    "etc/os-release": "ID=debian\n",
    "etc/hostname": "inst1\n",
    "etc/hosts": "127.0.0.1 localhost\n127.0.1.1\tinst1.example.org inst1\n192.0.2.10 inst1.example.org\n",
    "etc/network/interfaces": "auto eth0\niface eth0 inet static\n\taddress 192.0.2.10/24\n\tgateway 192.0.2.1\n",
}
RENAMED = {
    "etc/hostname": "inst2\n",
    "etc/hosts": "127.0.0.1 localhost\n127.0.1.1\tinst2.example.net inst2\n192.0.2.20 inst2.example.net\n",
    "etc/network/interfaces": "auto eth0\niface eth0 inet static\n\taddress 192.0.2.20/24\n\tgateway 192.0.2.1\n",
}


def environment(*disks: Path | str, **more: str) -> dict[str, str]:
    given = create_environment(disks[0] if disks else "/none", INSTANCE_NAME="inst2.example.net")
    paths = {f"DISK_{index}_PATH": os.fspath(path) for index, path in enumerate(disks)}
    nic = {"NIC_COUNT": "1", "NIC_0_MAC": "aa:00:00:00:00:01", "NIC_0_IP": "192.0.2.20"}
    count = {"DISK_COUNT": str(len(disks)), "OLD_INSTANCE_NAME": "inst1.example.org"}
    return {**given, **paths, **count, **nic, **more}


@contextmanager
def file_system(path: Path, tmp_path: Path, *, offset: int = 0, size: int | None = None) -> Iterator[Path]:
    """Mount a file system in a file with the system's own programs."""
    place = ["--offset", str(offset), *(["--sizelimit", str(size)] if size else [])]
    command = ["losetup", "--find", "--show", *place, str(path)]
    device = subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    point = tmp_path / "judge"
    point.mkdir(exist_ok=True)
    try:
        subprocess.run(["mount", device, point], check=True)
        try:
            yield point
        finally:
            subprocess.run(["umount", point], check=True)
    finally:
        subprocess.run(["losetup", "--detach", device], check=True)


def write_files(root: Path, files: dict[str, str]) -> None:
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)


def read_files(root: Path) -> dict[str, str]:
    return {name: (root / name).read_text() for name in RENAMED}


def formatted(tool: Tool, path: Path, fs_type: str, size_mib: int | None = None) -> Path:
    with path.open("wb") as file:
        file.truncate((size_mib or SIZES[fs_type]) * MIB)
    subprocess.run([tool(f"mkfs.{fs_type}"), "-q", path], check=True, capture_output=True)
    return path


@pytest.fixture
def node(tmp_path: Path) -> Node:
    return Node.make(tmp_path / "node")


@pytest.fixture
def ext4(tool: Tool, tmp_path: Path) -> Path:
    path = formatted(tool, tmp_path / "ext4", "ext4")
    with file_system(path, tmp_path) as root:
        write_files(root, FILES)
    return path


@pytest.mark.parametrize("fs_type", SIZES)
@pytest.mark.parametrize("table", ["", "dos", "gpt"])
def test_a_system_gets_its_new_name(node: Node, tool: Tool, tmp_path: Path, fs_type: str, table: str) -> None:
    path = formatted(tool, tmp_path / "fs", fs_type)
    with file_system(path, tmp_path) as root:
        write_files(root, FILES)
        (root / "etc/hosts").chmod(0o640)
        os.chown(root / "etc/hosts", 12, 34)
    disk, offset = path, 0
    if table:
        disk, offset = tmp_path / "disk", 20 * MIB
        with disk.open("wb") as file:
            file.truncate((SIZES[fs_type] + 40) * MIB)
        script = f"label: {table}\n1M,10M,L\n20M,{SIZES[fs_type]}M,L\n"
        subprocess.run(["sfdisk", "-q", disk], input=script, text=True, check=True)
        with disk.open("r+b") as file, path.open("rb") as source:
            file.seek(offset)
            shutil.copyfileobj(source, file, MIB)
        path.unlink()
    for _ in range(2):
        done = node.run("rename", **environment(disk))
        assert (done.returncode, done.stdout) == (0, ""), done.stderr
        with file_system(disk, tmp_path, offset=offset, size=SIZES[fs_type] * MIB) as root:
            assert read_files(root) == RENAMED
            status = (root / "etc/hosts").stat()
            assert (status.st_mode & 0o7777, status.st_uid, status.st_gid) == (0o640, 12, 34)
            assert sorted(os.listdir(root / "etc")) == ["hostname", "hosts", "network", "os-release"]
    assert "nothing was changed" in last_line(done)
