# SPDX-License-Identifier: MIT
"""OVERLAY: which directory it is, and which ones are refused before anything is written."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from ganeti_os.install.overlay import OverlayError, find_overlay, put_overlay, reached_by
from ganeti_os.log import Messages
from ganeti_os.settings.settings import Layer, Settings
from pydiskimg.disks.memory import MemoryDisk
from pydiskimg.fs.ext4.change.joined import JoinedTree
from pydiskimg.fs.ext4.change.tree import open_changed_tree
from pydiskimg.fs.ext4.make import make_ext
from tests.fixtures.node import Node, last_line

SIZE = 1 << 20
POLICY = "etc/selinux/targeted/contexts/files"


def find(directory: Path, name: str) -> str | None:
    return find_overlay(Settings.from_layers([Layer("test", {"OVERLAYS_DIR": str(directory), "OVERLAY": name})]))


def test_none_is_wanted(tmp_path: Path) -> None:
    assert find(tmp_path / "missing", "") is None


def test_found(tmp_path: Path) -> None:
    (tmp_path / "web").mkdir()
    assert find(tmp_path, "web") == str(tmp_path / "web")


def test_missing(tmp_path: Path) -> None:
    (tmp_path / "mail").mkdir()
    with pytest.raises(OverlayError, match=f"{tmp_path}/web: the overlay does not exist .* contains: mail$"):
        find(tmp_path, "web")
    with pytest.raises(OverlayError, match=f"the directory {tmp_path}/no does not exist$"):
        find(tmp_path / "no", "web")
    (tmp_path / "file").touch()
    with pytest.raises(OverlayError, match="file: is not a directory"):
        find(tmp_path, "file")


@pytest.mark.parametrize("which", ["", "web"])
def test_world_writable(tmp_path: Path, which: str) -> None:
    (tmp_path / "d" / "web").mkdir(parents=True)
    (tmp_path / "d" / which).chmod(0o777)
    with pytest.raises(OverlayError, match=r"all users can write to it \(mode 0777\)"):
        find(tmp_path / "d", "web")


def test_create_refuses_before_it_writes(tmp_path: Path) -> None:
    node = Node.make(tmp_path / "node", IMAGE_NAME="x", ARCH="x86_64", IMAGE_TYPE="raw", OVERLAY="web")
    (node.images / "x-x86_64.raw").write_bytes(b"\0x" * 256)
    disk = tmp_path / "disk"
    disk.write_bytes(b"\xff" * SIZE)
    done = node.create(disk)
    assert done.returncode == 1
    assert "web: the overlay does not exist (OVERLAY)" in last_line(done)
    assert disk.read_bytes() == b"\xff" * SIZE


def test_nomount_leaves_it_out(tmp_path: Path) -> None:
    node = Node.make(tmp_path / "node", IMAGE_NAME="x", ARCH="x86_64", IMAGE_TYPE="raw", OVERLAY="web", NOMOUNT="yes")
    (node.images / "x-x86_64.raw").write_bytes(b"\0x" * 256)
    disk = tmp_path / "disk"
    disk.write_bytes(b"\xff" * SIZE)
    done = node.create(disk)
    assert done.returncode == 0, done.stderr
    assert "NOMOUNT=yes: the overlay web is not copied" in done.stderr


def test_it_gets_the_labels_of_the_guests_policy(tmp_path: Path) -> None:
    """A directory in place of a symlink too; a /boot on a file system of its own has none."""
    (tmp_path / "web/boot").mkdir(parents=True)
    (tmp_path / "web/etc/new").mkdir(parents=True)
    for path in ("boot/loader", "etc/new/file"):
        (tmp_path / "web" / path).touch()
    disks = [MemoryDisk(8 << 20), MemoryDisk(8 << 20)]
    for disk in disks:
        make_ext(disk, kind="ext4")
    with open_changed_tree(disks[0]) as root, open_changed_tree(disks[1]) as boot:
        root.make_directory("/boot")
        above = ""
        for name in POLICY.split("/"):
            above += f"/{name}"
            root.make_directory(above)
        root.write("/etc/selinux/config", b"SELINUX=enforcing\nSELINUXTYPE=targeted\n")
        lines = b"/etc(/.*)? system_u:object_r:etc_t:s0\n/boot(/.*)? system_u:object_r:boot_t:s0\n"
        root.write(f"/{POLICY}/file_contexts", lines)
        root.symlink("/etc/new", "nowhere")
        tree = JoinedTree(root)
        tree.join("/boot", boot)
        put_overlay(str(tmp_path / "web"), tree, Messages(os_name="image", verb="create"))
        label = "system_u:object_r:etc_t:s0\0"
        for path in ("/etc/new", "/etc/new/file"):
            assert root.attribute(path, "security.selinux") == label.encode()
        assert root.attribute("/etc", "security.selinux") is None
        assert boot.attribute("/loader", "security.selinux") is None


@pytest.fixture
def guest() -> Iterator[JoinedTree]:
    """A guest with /boot of its own, and in it a /boot/efi that is not opened."""
    disks = [MemoryDisk(8 << 20), MemoryDisk(8 << 20)]
    for disk in disks:
        make_ext(disk, kind="ext2")
    with open_changed_tree(disks[0]) as root, open_changed_tree(disks[1]) as boot:
        for path in ("/boot", "/etc", "/deep", "/deep/er"):
            root.make_directory(path)
        boot.make_directory("/efi")
        root.write("/file", b"")
        links = {"in": "boot/efi", "below": "/boot/efi/EFI/x", "by": "second", "second": "boot/efi/no"}
        hostile = {"circle": "circle/x", "one": "two", "two": "/one", "up": "../../boot/../etc", "to-root": "/"}
        for name, target in {**links, **hostile, "growing": "a/" * 500 + "growing", "not": "/etc/none"}.items():
            root.symlink(f"/{name}", target)
        boot.symlink("/back", "../deep/er/../../boot/efi")
        tree = JoinedTree(root)
        tree.join("/boot", boot)
        yield tree


@pytest.mark.parametrize(
    "path", ["boot/efi", "boot/efi/x", "in", "in/x", "below", "by", "boot/back/x", "to-root/boot/efi"]
)
def test_what_goes_onto_another_file_system_by_whatever_path(tmp_path: Path, guest: JoinedTree, path: str) -> None:
    (tmp_path / path).mkdir(parents=True)
    (tmp_path / "file/none").mkdir(parents=True)
    assert reached_by(str(tmp_path), guest, ["/boot/efi", "/srv"]) == ["/boot/efi"]


def test_what_goes_elsewhere(tmp_path: Path, guest: JoinedTree) -> None:
    for path in ("boot/x", "circle/x", "one", "up/x", "to-root/etc", "growing", "not/x", "file/x", "new/efi"):
        (tmp_path / path).mkdir(parents=True)
    (tmp_path / "in").symlink_to("boot/efi")
    (tmp_path / "below").touch()
    assert reached_by(str(tmp_path), guest, ["/boot/efi"]) == []
    (tmp_path / "srv").mkdir()
    assert reached_by(str(tmp_path), guest, ["/boot/efi", "/srv"]) == ["/srv"]
