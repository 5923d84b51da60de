# SPDX-License-Identifier: MIT
"""A disk image's beginning comes when the system on it is the instance: killed before, the disk boots nothing."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest

from tests.fixtures.block_devices import filled_file, has_no_beginning
from tests.fixtures.growing import NEW
from tests.fixtures.node import NIC, Node, create_environment
from tests.root.test_create_fills_disk import check, system_image, table_of

pytestmark = pytest.mark.root
BOOT_CODE = b"\xeb\x63" + bytes(range(1, 255))


def bootable_system(path: Path, table: str) -> Path:
    system_image(path, table, "ext4")
    with path.open("r+b") as file:
        file.write(BOOT_CODE)
    return path


@pytest.mark.parametrize("grow", ["yes", "no"])
@pytest.mark.parametrize("table", ["mbr", "gpt"])
def test_killed_while_the_system_becomes_the_instance(tmp_path: Path, table: str, grow: str) -> None:
    node = Node.make(tmp_path / "node", IMAGE_NAME="system", IMAGE_TYPE="raw", ARCH="x86_64", GROW=grow)
    bootable_system(node.images / "system-x86_64.raw", table)
    disk = filled_file(tmp_path / "disk", NEW)
    process = node.start("create", **create_environment(disk, **NIC))
    assert process.stderr is not None
    for line in process.stderr:
        if "identity: /etc/" in line:  # the first file is written, and others follow
            process.send_signal(signal.SIGKILL)
            break
    process.communicate()
    assert process.returncode == -signal.SIGKILL
    assert has_no_beginning(disk)
    done = node.create(disk, **NIC)
    assert done.returncode == 0, done.stderr
    with disk.open("rb") as file:
        assert file.read(len(BOOT_CODE)) == BOOT_CODE
    if grow == "yes":
        check("ext4", disk, tmp_path, "inst1")


@pytest.mark.parametrize("table", ["mbr", "gpt"])
def test_scripts_see_a_table_without_boot_code_that_comes_afterwards(tmp_path: Path, table: str) -> None:
    node = Node.make(tmp_path / "node", IMAGE_NAME="system", IMAGE_TYPE="raw", ARCH="x86_64", IDENTITY="no", GROW="no")
    image = bootable_system(node.images / "system-x86_64.raw", table)
    seen = tmp_path / "seen"
    node.add_script("10-see", f'#!/bin/sh\nhead -c 512 "$BLOCKDEV" >"{seen}"\n')
    disk = filled_file(tmp_path / "disk", image.stat().st_size)
    done = node.create(disk)
    assert done.returncode == 0, done.stderr
    assert not any(seen.read_bytes()[:440])
    assert seen.read_bytes()[510:] == b"\x55\xaa"
    with disk.open("rb") as file, image.open("rb") as original:
        assert file.read(512) == original.read(512)
    assert table_of(disk)["partitions"]


def test_boot_code_that_a_script_writes_stays(tmp_path: Path) -> None:
    node = Node.make(tmp_path / "node", IMAGE_NAME="system", IMAGE_TYPE="raw", ARCH="x86_64", IDENTITY="no", GROW="no")
    image = bootable_system(node.images / "system-x86_64.raw", "mbr")
    node.add_script("10-boot", '#!/bin/sh\nprintf mine | dd of="$BLOCKDEV" conv=notrunc status=none\n')
    disk = filled_file(tmp_path / "disk", image.stat().st_size)
    assert node.create(disk).returncode == 0
    with disk.open("rb") as file:
        assert file.read(440) == b"mine".ljust(440, b"\0")
    assert [part["type"] for part in table_of(disk)["partitions"]] == [
        part["type"] for part in table_of(image)["partitions"]
    ]
