# SPDX-License-Identifier: MIT
"""A system in an image that we made boots, with a kernel from outside and the root found by UUID."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path
from uuid import uuid4

import pytest

from pydiskimg.disks.new_file import new_disk_file
from pydiskimg.images.create import new_image
from pydiskimg.images.open import open_image
from pydiskimg.transfer.copy import copy
from tests.conftest import need
from tests.fixtures.debian_system import DebianSystem
from tests.fixtures.qcow2_images import run
from tests.fixtures.qcow2_system import install

pytestmark = [pytest.mark.boot, pytest.mark.root]


def console_of(disk: Path, disk_format: str, root_uuid: object, debian: DebianSystem) -> str:
    """Start the system on the disk, and return its console output until it powers off."""
    qemu = shutil.which("qemu-system-x86_64")
    need(qemu is not None, "qemu-system-x86_64 is not installed")
    done = subprocess.run(
        [
            *(str(qemu), "-accel", "tcg", "-m", "256", "-nographic", "-no-reboot", "-net", "none"),
            *("-kernel", str(debian.kernel), "-initrd", str(debian.initrd)),
            *("-append", f"console=ttyS0 quiet root=UUID={root_uuid} poweroff_when_up"),
            *("-drive", f"file={disk},format={disk_format},if=virtio"),
        ],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        timeout=500,
        check=False,
    )
    return done.stdout.decode(errors="replace")


def test_a_system_in_a_compressed_qcow2_of_ours_boots_and_leaves_it_clean(tmp_path: Path, debian: DebianSystem) -> None:
    """QEMU writes to it meanwhile: the root file system is mounted for writing. test_booting_builds.py has one that is
    not compressed.
    """
    root_uuid = uuid4()
    disk = tmp_path / "disk.qcow2"
    with new_image(disk, 700 << 20, format="qcow2", compress=True) as image:
        install(image, debian.tarball, tmp_path, root_uuid=root_uuid)
    console = console_of(disk, "qcow2", root_uuid, debian)
    assert "root on /dev/vda2" in console, console[-2000:]
    run("qemu-img", "check", "-q", "-f", "qcow2", str(disk))
    with open_image(disk, format="qcow2") as source, new_disk_file(tmp_path / "disk.raw", source.size) as raw:
        copy(source, raw)
    run("qemu-img", "compare", "-q", "-f", "qcow2", "-F", "raw", str(disk), str(tmp_path / "disk.raw"))
