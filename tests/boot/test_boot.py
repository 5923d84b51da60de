# SPDX-License-Identifier: MIT
"""What create made boots in a virtual machine, with the kernel from outside and the root found by UUID."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from ganeti_os.guest.root import volumes
from pydiskimg.disk import open_disk
from tests.conftest import need
from tests.fixtures.debian_system import NAME, DebianSystem
from tests.fixtures.node import Node

pytestmark = [pytest.mark.boot, pytest.mark.root]


@pytest.mark.parametrize("image_type", ["tarball", "qcow2"])
def test_it_boots(tmp_path: Path, debian: DebianSystem, image_type: str) -> None:
    qemu = shutil.which("qemu-system-x86_64")
    need(qemu is not None, "qemu-system-x86_64 is not installed")
    node = Node.make(tmp_path / "node", IMAGE_NAME=NAME, IMAGE_TYPE=image_type, IMAGE_DIR=str(debian.directory))
    node.add_script("10-hostname", '#!/bin/sh\necho "$INSTANCE_NAME" >"$TARGET/etc/hostname"\n')
    disk = tmp_path / "disk"
    with disk.open("wb") as file:
        file.truncate(700 << 20)
    assert node.create(disk).returncode == 0
    with open_disk(disk) as opened:
        root = volumes(opened)[-1]
    assert root.content is not None
    done = subprocess.run(
        [
            *(str(qemu), "-accel", "tcg", "-m", "256", "-nographic", "-no-reboot", "-net", "none"),
            *("-kernel", str(debian.kernel), "-initrd", str(debian.initrd)),
            *("-append", f"console=ttyS0 quiet root=UUID={root.content.uuid} poweroff_when_up"),
            *("-drive", f"file={disk},format=raw,if=virtio"),
        ],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        timeout=180,
        check=False,
    )
    console = done.stdout.decode(errors="replace")
    assert f"SYSTEM IS UP: inst1.example.org, root on /dev/vda{root.partition.number}" in console, console[-2000:]
