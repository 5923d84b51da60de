# SPDX-License-Identifier: MIT
"""create and import let a system fill the instance's disk, and change nothing by which it is known."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.fixtures.growing import MIB, NEW, OLD, TABLES, disk_with, loop, mounted_at, state
from tests.fixtures.node import Node, last_line

pytestmark = pytest.mark.root


def system_image(path: Path, table: str, fs_type: str) -> Path:
    """Make the image of a small Linux system, of 340 MiB."""
    disk_with(path, table, fs_type, contents=False)
    os.truncate(path, OLD)
    _, first, last = TABLES[table]
    with (
        loop(path, first * MIB, (last - first) * MIB) as device,
        mounted_at(device, path.parent / "filling") as point,
    ):
        (point / "etc").mkdir()
        (point / "etc/os-release").write_text("ID=test\n")
        (point / "etc/hostname").write_text("template\n")
    return path


def table_of(path: Path) -> dict[str, Any]:
    done = subprocess.run(["sfdisk", "--json", path], capture_output=True, text=True, check=False)
    return dict(json.loads(done.stdout)["partitiontable"]) if done.returncode == 0 else {"partitions": []}


def place_of_last(path: Path) -> tuple[int, int]:
    partitions = [p for p in table_of(path)["partitions"] if p["type"] not in ("5", "f")]
    if not partitions:
        return 0, path.stat().st_size // 512 * 512
    last = max(partitions, key=lambda p: int(p["start"]))
    return last["start"] * 512, last["size"] * 512


def known_by(path: Path) -> object:
    """Everything that names the disk, its partitions and file system."""
    found = table_of(path)
    partitions = [{k: v for k, v in p.items() if k not in ("size", "node")} for p in found["partitions"]]
    start, length = place_of_last(path)
    with loop(path, start, length, read_only=True) as device:
        tags = subprocess.run(
            ["blkid", "-p", "-o", "export", device], capture_output=True, text=True, check=True
        ).stdout
    kept = [line for line in tags.splitlines() if line.startswith(("UUID", "LABEL", "TYPE", "BLOCK_SIZE"))]
    return found.get("id"), found.get("label"), partitions, kept


def check(fs_type: str, path: Path, tmp_path: Path, host_name: str) -> None:
    start, length = place_of_last(path)
    command = {"xfs": ["xfs_repair", "-n"], "btrfs": ["btrfs", "check"]}.get(fs_type, ["e2fsck", "-fn"])
    with loop(path, start, length, read_only=True) as device:
        done = subprocess.run([*command, device], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
        options = {"xfs": "ro,norecovery,nouuid", "btrfs": "ro"}.get(fs_type, "ro,noload")
        with mounted_at(device, tmp_path / "judged", "-o", options) as point:
            assert (point / "etc/hostname").read_text() == f"{host_name}\n"
            size = os.statvfs(point)
            assert size.f_blocks * size.f_frsize > 0.8 * length


@pytest.mark.parametrize(
    ("table", "fs_type"),
    [(table, "ext4") for table in TABLES] + [("gpt", "xfs"), ("mbr", "btrfs"), ("none", "xfs"), ("logical", "ext3")],
)
def test_an_image_fills_the_disk(tmp_path: Path, table: str, fs_type: str) -> None:
    node = Node.make(tmp_path / "node", IMAGE_NAME="system", IMAGE_TYPE="raw")
    image = system_image(node.images / f"system-{os.uname().machine}.raw", table, fs_type)
    known = known_by(image)
    disk = tmp_path / "disk"
    with disk.open("wb") as file:
        file.truncate(NEW)
    done = node.create(disk)
    assert done.returncode == 0, done.stderr
    assert known_by(disk) == known
    start, length = place_of_last(disk)
    assert start + length > NEW - 2 * MIB
    check(fs_type, disk, tmp_path, "inst1")
    again = tmp_path / "again"
    shutil.copy(disk, again)
    assert node.create(again).returncode == 0, "a reinstall"
    check(fs_type, again, tmp_path, "inst1")


@pytest.mark.parametrize("switch", [{"GROW": "no"}, {"NOMOUNT": "yes"}])
def test_it_stays_as_large_as_it_is_where_the_settings_say_so(tmp_path: Path, switch: dict[str, str]) -> None:
    node = Node.make(tmp_path / "node", IMAGE_NAME="system", IMAGE_TYPE="raw", IDENTITY="no", **switch)
    image = system_image(node.images / f"system-{os.uname().machine}.raw", "gpt", "ext4")
    disk = tmp_path / "disk"
    with disk.open("wb") as file:
        file.truncate(NEW)
    assert node.create(disk).returncode == 0
    os.truncate(disk, OLD)
    assert state(disk) == state(image)


def test_lvm_is_told_and_installed(tmp_path: Path) -> None:
    node = Node.make(tmp_path / "node", IMAGE_NAME="system", IMAGE_TYPE="raw")
    image = node.images / f"system-{os.uname().machine}.raw"
    with image.open("wb") as file:
        file.truncate(64 * MIB)
    subprocess.run(["sfdisk", "-q", image], input="label: dos\n1M,20M,L,*\n30M,,V\n", text=True, check=True)
    with loop(image, 30 * MIB, 34 * MIB) as device:
        subprocess.run(["pvcreate", "-q", device], check=True, capture_output=True)
    disk = tmp_path / "disk"
    disk.write_bytes(bytes(100 * MIB))
    done = node.create(disk)
    assert done.returncode == 0, done.stderr
    assert "nothing to grow: the last partition (2) contains an LVM physical volume" in done.stderr


def test_an_import_fills_the_disk_and_keeps_the_machine(tmp_path: Path) -> None:
    node = Node.make(tmp_path / "node")
    guest = system_image(tmp_path / "guest", "gpt", "ext4")
    backup, disk = tmp_path / "backup", tmp_path / "disk"
    assert node.export(guest, backup).returncode == 0
    with disk.open("wb") as file:
        file.truncate(NEW)
    done = node.restore(disk, backup)
    assert done.returncode == 0, done.stderr
    assert known_by(disk) == known_by(guest)
    check("ext4", disk, tmp_path, "template")
    node.configure(IMPORT_IDENTITY="new")
    done = node.restore(disk, backup)
    assert done.returncode == 0, done.stderr
    check("ext4", disk, tmp_path, "inst1")
    assert f"{disk} is restored (" in last_line(done)


def test_a_disk_of_data_needs_no_identity(tmp_path: Path) -> None:
    node = Node.make(tmp_path / "node", IMPORT_IDENTITY="new")
    guest = disk_with(tmp_path / "guest", "mbr", "ext4")
    backup, disk = tmp_path / "backup", tmp_path / "disk"
    assert node.export(guest, backup).returncode == 0
    shutil.copy(guest, disk)
    done = node.restore(disk, backup)
    assert done.returncode == 0, done.stderr
    assert "no identity is changed: " in done.stderr.decode()
