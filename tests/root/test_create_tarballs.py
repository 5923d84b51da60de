# SPDX-License-Identifier: MIT
"""Tarballs whose /boot and /usr share files, whose /boot is a symlink, that do not fit, or come from other systems."""

from __future__ import annotations

import gzip
import os
import stat
import subprocess
import tarfile
from pathlib import Path

import pytest

from tests.fixtures.block_devices import filled_file
from tests.fixtures.judges import inside, partitions
from tests.fixtures.node import PATH, ROOT, Node, create_environment, last_line
from tests.fixtures.programs import Tool
from tests.fixtures.tarballs import DIRECTORY, FILE, LINK, SYMLINK, Member, add

pytestmark = pytest.mark.root
MIB = 1 << 20
KERNEL = os.urandom(100_000)


@pytest.fixture
def node(tmp_path: Path) -> Node:
    return Node.make(tmp_path / "a node", IMAGE_NAME="x", IMAGE_TYPE="tarball", ARCH="x86_64", SWAP="no")


def tarball(node: Node, *members: Member, headers: dict[str, str] | None = None) -> Path:
    """A root with these members; headers are the first one's pax headers."""
    path = node.images / "x-x86_64.tar.gz"
    with tarfile.open(path, "w:gz", format=tarfile.PAX_FORMAT, compresslevel=1) as archive:
        for index, member in enumerate((*members, ("./etc", DIRECTORY, b""))):
            add(archive, member, headers=None if index else headers)
    return path


def installed(node: Node, tmp_path: Path, *, size: int = 200 * MIB, **environment: str) -> tuple[str, str]:
    """Create onto a new disk; returns its path and what was logged."""
    disk = filled_file(tmp_path / "disk", size)
    done = node.create(disk, **environment)
    assert done.returncode == 0, done.stderr
    return str(disk), done.stderr


@pytest.mark.parametrize("first", ["boot/vmlinuz-6.1", "usr/lib/modules/6.1/vmlinuz"])
@pytest.mark.parametrize("kernel", ["", "/boot/vmlinuz"], ids=["inside", "outside"])
def test_a_kernel_of_two_names(node: Node, tmp_path: Path, first: str, kernel: str) -> None:
    names = ["boot/vmlinuz-6.1", "usr/lib/modules/6.1/vmlinuz", "usr/lib/kernel", "boot/kernel"]
    links: list[Member] = [(f"./{name}", LINK, f"./{first}") for name in names if name != first]
    tarball(node, (f"./{first}", FILE, KERNEL), *links)
    disk, _ = installed(node, tmp_path, INSTANCE_HV_kernel_path=kernel)
    root = partitions(disk)[-1]
    with inside(disk, root, tmp_path) as point:
        assert (point / "usr/lib/kernel").read_bytes() == KERNEL
        assert (point / "usr/lib/kernel").samefile(point / "usr/lib/modules/6.1/vmlinuz")
        assert (point / "usr/lib/kernel").stat().st_nlink == (4 if kernel else 2)
    if not kernel:
        with inside(disk, partitions(disk)[0], tmp_path) as point:
            assert (point / "vmlinuz-6.1").read_bytes() == KERNEL
            assert (point / "vmlinuz-6.1").samefile(point / "kernel")


@pytest.mark.parametrize("umask", [0o000, 0o022, 0o077, 0o777])
def test_what_boot_is_mounted_on_has_its_mode_under_any_umask(node: Node, tmp_path: Path, umask: int) -> None:
    tarball(node, ("./boot/vmlinuz-6.1", FILE, KERNEL))
    disk = filled_file(tmp_path / "disk", 200 * MIB)
    command = ["sh", "-c", f'umask {umask:03o}; exec "$@"', "sh", *node.command("create")]
    environment = {"PATH": PATH, **create_environment(disk)}
    subprocess.run(command, cwd=ROOT, env=environment, check=True, capture_output=True)
    with inside(str(disk), partitions(str(disk))[-1], tmp_path) as point:
        assert stat.S_IMODE((point / "boot").stat().st_mode) == 0o755


FILLED: list[Member] = [("./usr/boot/vmlinuz", FILE, KERNEL), ("./usr/boot/grub/grub.cfg", FILE, b"menu")]
SYMLINKS: dict[str, list[Member]] = {
    "before what it leads to": [("./boot", SYMLINK, "usr/boot"), *FILLED],
    "after it": [*FILLED, ("./boot", SYMLINK, "usr/boot")],
    "absolute": [("./boot", SYMLINK, "/usr/boot"), *FILLED],
    "written through": [
        ("./usr/boot", DIRECTORY, b""),
        ("./boot", SYMLINK, "usr/boot"),
        ("./boot/vmlinuz", FILE, KERNEL),
        ("./boot/grub/grub.cfg", FILE, b"menu"),
    ],
}


@pytest.mark.parametrize("name", SYMLINKS)
def test_boot_as_a_symlink(node: Node, tmp_path: Path, name: str) -> None:
    tarball(node, *SYMLINKS[name])
    node.add_script("10-see", '#!/bin/sh\necho "BOOT_DEV=$BOOT_DEV" >&2\nls "$TARGET/usr/boot" >&2\n')
    disk, log = installed(node, tmp_path)
    assert "boot is not a directory, so its files stay in the root file system; the partition of /boot is empty" in log
    assert "BOOT_DEV=\n" in log
    boot, root = partitions(disk)
    assert (boot.get("bootable", False), root.get("bootable", False)) == (False, True)
    with inside(disk, root, tmp_path) as point:
        assert os.readlink(point / "boot").lstrip("/") == "usr/boot"
        assert (point / "usr/boot/vmlinuz").read_bytes() == KERNEL
        assert (point / "usr/boot/grub/grub.cfg").read_text() == "menu"
        lines = [line.split()[1] for line in (point / "etc/fstab").read_text().splitlines() if line[0] != "#"]
        assert lines == ["/"]
    with inside(disk, boot, tmp_path) as point:
        assert os.listdir(point) == ["lost+found"]


def test_a_boot_symlink_that_leads_out_of_the_guest_stays_a_symlink(node: Node, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    tarball(node, ("./boot", SYMLINK, str(outside)))
    disk, _ = installed(node, tmp_path)
    with inside(disk, partitions(disk)[1], tmp_path) as point:
        assert os.readlink(point / "boot") == str(outside)
    assert not os.listdir(outside)


@pytest.mark.parametrize("name", ["./boot/big", "./boot/link"])
def test_a_boot_that_is_too_small_names_the_setting(node: Node, tmp_path: Path, name: str) -> None:
    node.configure(IMAGE_NAME="x", IMAGE_TYPE="tarball", ARCH="x86_64", SWAP="no", BOOT_SIZE="8")
    big = os.urandom(9 * MIB)
    members: list[Member] = [(name, FILE, big)]
    if name == "./boot/link":
        members = [("./usr/big", FILE, big), (name, LINK, "./usr/big")]
    path = tarball(node, *members)
    done = node.create(filled_file(tmp_path / "disk", 100 * MIB))
    assert done.returncode == 1
    where = f"{path}: entry {name}: cannot be unpacked to {tmp_path / 'disk'} partition 1: "
    assert last_line(done).startswith(f"image create inst1.example.org: unpacking: {where}none of ")
    assert last_line(done).endswith(" blocks is free; /boot has 8 MiB; set BOOT_SIZE higher")


def test_a_disk_that_is_too_small_says_so(node: Node, tmp_path: Path) -> None:
    path = tarball(node, ("./usr/big", FILE, os.urandom(24 * MIB)))
    done = node.create(filled_file(tmp_path / "disk", 24 * MIB), INSTANCE_HV_kernel_path="/boot/vmlinuz")
    assert done.returncode == 1
    where = f"{path}: entry ./usr/big: cannot be unpacked to {tmp_path / 'disk'} partition 1: "
    assert f"unpacking: {where}none of " in last_line(done)
    assert last_line(done).endswith(" blocks is free; give the instance a larger disk")


def test_an_overlay_that_does_not_fit_into_boot_names_the_setting(node: Node, tmp_path: Path) -> None:
    tarball(node)
    overlays = tmp_path / "overlays"
    (overlays / "web/boot").mkdir(parents=True)
    (overlays / "web/boot/big").write_bytes(os.urandom(9 * MIB))
    settings = {"OVERLAY": "web", "OVERLAYS_DIR": str(overlays), "BOOT_SIZE": "8"}
    node.configure(IMAGE_NAME="x", IMAGE_TYPE="tarball", ARCH="x86_64", SWAP="no", **settings)
    done = node.create(filled_file(tmp_path / "disk", 100 * MIB))
    assert done.returncode == 1
    assert f"{overlays}/web: entry boot/big: cannot be copied to {tmp_path / 'disk'} partition 1: " in last_line(done)
    assert last_line(done).endswith("; /boot has 8 MiB; set BOOT_SIZE higher")


def test_attributes_of_another_system_are_left_out_with_one_warning(node: Node, tmp_path: Path) -> None:
    headers = {"SCHILY.xattr.com.apple.provenance": "1", "SCHILY.xattr.btrfs.compression": "zstd"}
    path = tarball(node, ("./etc/motd", FILE, b"welcome"), headers=headers)
    disk, log = installed(node, tmp_path, OSP_BOOTLOADER="none")
    assert [line for line in log.splitlines() if "warning: " in line] == [
        f"image create inst1.example.org: unpacking: warning: {path}: 2 extended attributes that the file system "
        "cannot hold are left out; the first: com.apple.provenance of ./etc/motd"
    ]
    with inside(disk, partitions(disk)[1], tmp_path) as point:
        assert (point / "etc/motd").read_text() == "welcome"


@pytest.mark.parametrize(
    ("name", "command"),
    [
        ("alpine-minirootfs-3.21.0-x86_64.tar.gz", ["gzip", "-1"]),
        ("rootfs.tar.xz", ["xz", "-0"]),
        ("rootfs.tar.zst", ["zstd", "-q", "-1"]),
        ("rootfs.tbz2", ["bzip2", "-1"]),
        ("rootfs.tar", ["cat"]),
    ],
)
def test_a_tarball_under_its_own_name(tmp_path: Path, tool: Tool, name: str, command: list[str]) -> None:
    node = Node.make(tmp_path / "a node", IMAGE_NAME=name, SWAP="no", IDENTITY="no")
    plain = tmp_path / "plain.tar"
    with tarfile.open(plain, "w", format=tarfile.PAX_FORMAT) as archive:
        for member in (("./etc", DIRECTORY, b""), ("./etc/os-release", FILE, b"ID=alpine\n")):
            add(archive, member)
    with plain.open("rb") as source, (node.images / name).open("wb") as target:
        subprocess.run([tool(command[0]), *command[1:]], stdin=source, stdout=target, check=True)
    disk, log = installed(node, tmp_path, INSTANCE_HV_kernel_path="/vmlinuz")
    assert f"{name} is installed" in log
    with inside(disk, partitions(disk)[-1], tmp_path) as point:
        assert (point / "etc/os-release").read_text() == "ID=alpine\n"


def test_a_disk_too_small_for_the_partitions(node: Node, tmp_path: Path) -> None:
    tarball(node)
    refused(node, tmp_path, "the partitions need", "the disk has 4194304 bytes (4 MiB); nothing was written")


@pytest.mark.parametrize("contents", [b"", b"hello\n", gzip.compress(b"hello\n", mtime=0), b"\x1f\x8b\x08"])
def test_a_tarball_that_is_none(node: Node, tmp_path: Path, contents: bytes) -> None:
    (node.images / "x-x86_64.tar.gz").write_bytes(contents)
    refused(node, tmp_path, "x-x86_64.tar.gz: ")


@pytest.mark.parametrize(
    ("boot", "words"),
    [
        ("7", "BOOT_SIZE is 7; a file system needs at least 8 MiB"),
        ("8", "5242880 bytes (5 MiB) are for the root file system"),
    ],
)
def test_partitions_too_small_for_a_file_system(node: Node, tmp_path: Path, boot: str, words: str) -> None:
    node.configure(IMAGE_NAME="x", ARCH="x86_64", IMAGE_TYPE="tarball", BOOT_SIZE=boot, SWAP="no")
    tarball(node)
    refused(node, tmp_path, words, size=14 * MIB)


def refused(node: Node, tmp_path: Path, *words: str, size: int = 4 * MIB) -> None:
    disk = filled_file(tmp_path / "disk", size)
    before = disk.read_bytes()
    done = node.create(disk)
    assert done.returncode == 1
    assert all(word in last_line(done) for word in words), done.stderr
    assert disk.read_bytes() == before, "the disk was written to"
