# SPDX-License-Identifier: MIT
"""Until the system on a disk is the instance, the disk boots nowhere: killed or failed before that."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import left_attached, left_mounted, loop_devices, mounts
from tests.fixtures.growing import MIB, NEW, TABLES, loop, mounted_at
from tests.fixtures.node import PATH, ROOT, Node, create_environment, last_line, stream_environment
from tests.fixtures.odd_files import put_odd_file
from tests.root.test_create_fills_disk import system_image

pytestmark = pytest.mark.root

# Kills the verb when the system is mounted and about to become the instance.
_KILLED = """
import os, sys
from ganeti_os import main
from ganeti_os.install import customise
from ganeti_os.guest import new_identity

def kill(*arguments):
    os.kill(os.getpid(), 9)

customise.make_instance = new_identity.make_instance = kill
main.run_verb(sys.argv[1], sysconfdir=sys.argv[2] + "/etc", localstatedir=sys.argv[2] + "/var", argv=[])
"""


def run_killed(node: Node, verb: str, disk: Path, backup: Path) -> subprocess.CompletedProcess[bytes]:
    environment = create_environment(disk) if verb == "create" else stream_environment(verb, disk)
    with subprocess.Popen(["cat", backup], stdout=subprocess.PIPE) as cat:
        return subprocess.run(
            [sys.executable, "-c", _KILLED, verb, str(node.directory)],
            cwd=ROOT,
            env={"PATH": PATH, **environment},
            stdin=cat.stdout,
            stderr=subprocess.PIPE,
            check=False,
        )


def node_with_system(tmp_path: Path, table: str) -> tuple[Node, Path, Path]:
    """Return a node, the image of a system, which is its backup at once, and a disk for it."""
    node = Node.make(tmp_path / "node", IMAGE_NAME="system.raw", IMAGE_TYPE="raw", IMPORT_IDENTITY="new")
    image = system_image(node.images / "system.raw", table, "ext4")
    disk = tmp_path / "disk"
    with disk.open("wb") as file:
        file.truncate(NEW)
    return node, image, disk


@pytest.mark.parametrize("table", ["gpt", "mbr"])
@pytest.mark.parametrize("verb", ["create", "import"])
def test_killed_before_it_is_the_instance(tmp_path: Path, verb: str, table: str) -> None:
    node, image, disk = node_with_system(tmp_path, table)
    before = loop_devices(), mounts()
    done = run_killed(node, verb, disk, image)
    assert done.returncode == -9, done.stderr
    assert not left_attached(before[0], tmp_path)
    assert not left_mounted(before[1], tmp_path)
    with disk.open("rb") as file:
        assert not any(file.read(MIB))
    again = node.create(disk) if verb == "create" else node.restore(disk, image)
    assert again.returncode == 0, again.stderr
    with disk.open("rb") as file:
        assert file.read(512)[510:] == b"\x55\xaa"


@pytest.mark.parametrize("table", ["gpt", "mbr", "none"])
@pytest.mark.parametrize("verb", ["create", "import"])
def test_a_system_that_cannot_be_the_instance(tmp_path: Path, verb: str, table: str) -> None:
    node, image, disk = node_with_system(tmp_path, table)
    _, first, last = TABLES[table]
    with loop(image, first * MIB, (last - first) * MIB) as device, mounted_at(device, tmp_path / "hostile") as point:
        (point / "etc/hostname").unlink()
        put_odd_file(point / "etc/hostname", "fifo", link="")
    done = node.create(disk) if verb == "create" else node.restore(disk, image)
    assert done.returncode == 1
    sentence = last_line(done)
    assert "/etc/hostname" in sentence
    if verb == "import":
        assert "the system could not be given a new identity, and is left" in sentence
        assert sentence.endswith("IMPORT_IDENTITY=keep restores it as it was")
    with disk.open("rb") as file:
        assert not any(file.read(MIB))
        file.seek(NEW - MIB)
        assert not any(file.read())
