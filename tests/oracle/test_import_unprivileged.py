# SPDX-License-Identifier: MIT
"""import, export and rename of disks by an ordinary user on a plain file; e2fsck is the judge."""

from __future__ import annotations

import os
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from pydiskimg import open_tree
from pydiskimg.units import MIB
from tests.fixtures.node import Node, create_environment, last_line, stream_environment
from tests.fixtures.programs import Tool, run
from tests.fixtures.verbs_of_nobody import (
    SETTINGS,
    SIZE,
    as_nobody,
    checked,
    disk_image,
    node_of_anyone,
    only_fat,
)

pytestmark = pytest.mark.oracle


@pytest.fixture
def node() -> Iterator[Node]:
    with node_of_anyone() as made:
        yield made


def test_a_disk_on_ext_is_imported_and_exported(node: Node, tool: Tool, tmp_path: Path) -> None:
    """It becomes another machine, without a mount, and a backup that is what came but for that."""
    backup, disk = disk_image(node, tool, "ext4"), node.directory / "disk"
    node.configure(IMPORT_IDENTITY="new", IMPORT_FORMAT="raw", **SETTINGS)
    done = as_nobody(node, "import", stream_environment("import", disk), backup)
    assert done.returncode == 0, done.stderr
    checked(disk, tool, tmp_path)
    with open_tree(str(disk), partition=2) as root:
        assert root.read("/etc/hostname") == b"inst1\n"
    stream = tmp_path / "stream"
    done = as_nobody(node, "export", stream_environment("export", disk), output=stream)
    assert done.returncode == 0, done.stderr
    with open_tree(str(stream), format="qcow2", partition=1) as boot:
        assert boot.list("/") == ["kernel", "loader", "lost+found"]


def test_a_disk_on_ext_is_renamed(node: Node, tool: Tool, tmp_path: Path) -> None:
    disk = disk_image(node, tool, "ext4")
    environment = create_environment(disk, OLD_INSTANCE_NAME="inst1", INSTANCE_NAME="inst2")
    done = as_nobody(node, "rename", environment)
    assert done.returncode == 0, done.stderr
    checked(disk, tool, tmp_path)
    with open_tree(str(disk), partition=2) as root:
        assert root.read("/etc/hostname") == b"inst2\n"


def test_a_backup_that_is_to_be_mounted_is_refused_where_it_can_be_looked_at_first(node: Node, tool: Tool) -> None:
    path, backup, disk = node.images / "disk.img", node.directory / "backup.tar", node.directory / "disk"
    image = only_fat(node, tool)
    run(tool("qemu-img"), "convert", "-q", "-O", "qcow2", image, path)
    with tarfile.open(backup, "w") as archive:
        archive.add(path, "disk.img")
    node.configure(IMPORT_IDENTITY="new", EXPORT_DIR=str(node.directory), **SETTINGS)
    disk.write_bytes(b"\xff" * MIB)
    os.truncate(disk, SIZE)
    done = as_nobody(node, "import", stream_environment("import", disk), backup)
    assert done.returncode == 1
    assert "mounting needs root (CAP_SYS_ADMIN); without it IMPORT_IDENTITY=keep restores" in last_line(done)
    assert disk.read_bytes()[:MIB] == b"\xff" * MIB


@pytest.mark.parametrize("format_", ["raw", "qcow2"])
def test_a_backup_on_a_pipe_that_is_to_be_mounted_is_refused_where_its_beginning_tells(
    node: Node, tool: Tool, format_: str
) -> None:
    backup, disk = only_fat(node, tool), node.directory / "disk"
    if format_ == "qcow2":
        backup = exported(node, backup)
    node.configure(IMPORT_IDENTITY="new", IMPORT_FORMAT=format_, **SETTINGS)
    disk.write_bytes(b"\xff" * MIB)
    os.truncate(disk, SIZE)
    done = as_nobody(node, "import", stream_environment("import", disk), backup)
    assert done.returncode == 1
    assert "mounting needs root (CAP_SYS_ADMIN); without it IMPORT_IDENTITY=keep restores" in last_line(done)
    assert disk.read_bytes()[:MIB] == b"\xff" * MIB


def exported(node: Node, image: Path) -> Path:
    node.configure(**SETTINGS)
    os.truncate(image, SIZE)
    backup = node.directory / "backup"
    assert as_nobody(node, "export", stream_environment("export", image), output=backup).returncode == 0
    return backup


def test_a_backup_on_a_pipe_of_which_too_little_is_seen_is_refused_when_it_is_on_the_disk(
    node: Node, tool: Tool
) -> None:
    """Its second partition, which may hold a root that is read without a mount, begins after what is looked at."""
    image, disk = only_fat(node, tool), node.directory / "disk"
    os.truncate(image, SIZE)
    run(tool("sfdisk"), "-q", image, given="label: dos\nstart=1M, size=1M, type=c\nstart=40M, type=83\n")
    node.configure(IMPORT_IDENTITY="new", IMPORT_FORMAT="raw", **SETTINGS)
    done = as_nobody(node, "import", stream_environment("import", disk), image)
    assert done.returncode == 1
    assert "is left without its partition table: " in last_line(done)
    assert "mounting needs root (CAP_SYS_ADMIN); IMPORT_IDENTITY=keep restores it as it was" in last_line(done)
