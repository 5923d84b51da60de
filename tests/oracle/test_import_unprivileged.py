# SPDX-License-Identifier: MIT
"""import, export and rename of disks by an ordinary user on a plain file; e2fsck is the judge."""

from __future__ import annotations

import os
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from pydiskimg import open_tree
from pydiskimg.files.entry import Entry
from pydiskimg.fs.fat12 import make_fat12
from pydiskimg.units import MIB
from tests.fixtures.block_devices import beginning
from tests.fixtures.ext_files import sized
from tests.fixtures.made_entries import filled_file, folder, regular
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
    assert beginning(disk, MIB) == b"\xff" * MIB


BTRFS = "5d1b0a52-8c3e-4f0b-9b2f-0f6d3c1e7a11"
FILES: dict[str, Callable[[], list[Entry]]] = {
    "root": lambda: [folder("etc"), regular("etc/os-release")],
    "root without /var": lambda: [
        regular("etc/os-release"),
        regular("etc/fstab", f"UUID={BTRFS} /var btrfs\n".encode()),
    ],
    "boot": lambda: [regular("vmlinuz")],
}


def image_of(node: Node, tool: Tool, *parts: tuple[int, str]) -> Path:
    """Make a disk image with file systems of 8 MiB, each at that many MiB; of a btrfs its beginning."""
    path, volume = node.images / "image", node.directory / "volume"
    path.touch()
    os.truncate(path, SIZE)
    for start, kind in parts:
        if kind == "btrfs":
            run(tool("mkfs.btrfs"), "-q", "-U", BTRFS, sized(volume, 130 * MIB))
            os.truncate(volume, 8 * MIB)
        elif kind == "vfat":
            volume.write_bytes(make_fat12(MIB, {}, label="EFI", serial=1, sector_size=512, hidden_sectors=0))
        else:
            filled_file(volume, 8 * MIB, FILES[kind]())
        with path.open("r+b") as file:
            file.seek(start * MIB)
            file.write(volume.read_bytes())
        volume.unlink()
    places = "".join(f"start={start}M, size=8M, type=L\n" for start, _ in parts)
    run(tool("sfdisk"), "-q", path, given="label: gpt\n" + places)
    return path


@pytest.mark.parametrize("format_", ["raw", "qcow2"])
@pytest.mark.parametrize(
    "parts",
    [
        [(1, "btrfs")],
        [(1, "vfat"), (50, "btrfs")],
        [(1, "vfat"), (10, "boot"), (50, "btrfs")],
        [(10, "root without /var"), (50, "btrfs")],
    ],
)
def test_a_backup_on_a_pipe_that_is_to_be_mounted_is_refused_before_the_disk_is_written(
    node: Node, tool: Tool, format_: str, parts: list[tuple[int, str]]
) -> None:
    backup, disk = image_of(node, tool, *parts), node.directory / "disk"
    if format_ == "qcow2":
        backup = exported(node, backup)
    node.configure(IMPORT_IDENTITY="new", IMPORT_FORMAT=format_, **SETTINGS)
    disk.write_bytes(b"\xff" * SIZE)
    done = as_nobody(node, "import", stream_environment("import", disk), backup)
    assert done.returncode == 1
    assert "mounting needs root (CAP_SYS_ADMIN); without it IMPORT_IDENTITY=keep restores" in last_line(done)
    assert disk.read_bytes() == b"\xff" * SIZE


def exported(node: Node, image: Path) -> Path:
    node.configure(**SETTINGS)
    backup = node.directory / "backup"
    assert as_nobody(node, "export", stream_environment("export", image), output=backup).returncode == 0
    return backup


def test_a_root_that_is_found_on_the_pipe_is_restored_and_renamed(node: Node, tool: Tool) -> None:
    """What was kept to find it is read once more."""
    backup = exported(node, image_of(node, tool, (1, "vfat"), (10, "btrfs"), (50, "root")))
    disk = node.directory / "disk"
    node.configure(IMPORT_IDENTITY="new", **SETTINGS)
    done = as_nobody(node, "import", stream_environment("import", disk), backup)
    assert done.returncode == 0, done.stderr
    with open_tree(str(disk), partition=3) as root:
        assert root.read("/etc/hostname") == b"inst1\n"


def test_without_room_to_keep_what_tells_it_a_backup_is_refused_when_it_is_on_the_disk(node: Node, tool: Tool) -> None:
    image, disk = image_of(node, tool, (1, "vfat"), (50, "btrfs")), node.directory / "disk"
    node.configure(IMPORT_IDENTITY="new", IMPORT_FORMAT="raw", EXPORT_DIR="/does/not/exist", **SETTINGS)
    done = as_nobody(node, "import", stream_environment("import", disk), image)
    assert done.returncode == 1
    assert "/does/not/exist: cannot keep the beginning of a backup there temporarily (EXPORT_DIR)" in done.stderr
    assert "is left without its partition table: " in last_line(done)
    assert "mounting needs root (CAP_SYS_ADMIN); IMPORT_IDENTITY=keep restores it as it was" in last_line(done)
