# SPDX-License-Identifier: MIT
"""Tarballs, dumps and disk images become instances for an ordinary user on a plain file; e2fsck is the judge."""

from __future__ import annotations

import gzip
import io
import os
import random
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from pydiskimg import open_tree
from pydiskimg.fs.ext4.change.tree import open_changed_tree
from pydiskimg.fs.fat12 import make_fat12
from pydiskimg.images.open_disk import open_disk
from pydiskimg.regions.region import Region
from pydiskimg.units import MIB
from tests.fixtures.block_devices import beginning
from tests.fixtures.dumps import Dir, File, dump
from tests.fixtures.grub_files import DIRECTORY as GRUB
from tests.fixtures.grub_files import grub_files
from tests.fixtures.node import PATH, ROOT, Node, create_environment, last_line, stream_environment
from tests.fixtures.programs import Tool, run
from tests.fixtures.tarballs import DIRECTORY, FILE, add
from tests.fixtures.verbs_of_nobody import (
    SETTINGS,
    SIZE,
    as_nobody,
    checked,
    disk_image,
    node_of_anyone,
    only_fat,
    read_table,
)

pytestmark = pytest.mark.oracle


@pytest.fixture
def node() -> Iterator[Node]:
    with node_of_anyone() as made:
        yield made


def tarball(node: Node) -> Path:
    path = node.images / "x-x86_64.tar.gz"
    with tarfile.open(path, "w:gz", compresslevel=1) as archive:
        for name in ("etc", "boot", "usr/lib"):
            add(archive, (name, DIRECTORY, b""))
        owned = tarfile.TarInfo("etc/owned")
        owned.uid, owned.gid, owned.mode, owned.size = 70000, 5, 0o4750, 4
        archive.addfile(owned, io.BytesIO(b"file"))
        add(archive, ("boot/vmlinuz-6.1", FILE, b"kernel"))
        add(archive, ("etc/fstab", FILE, b"/dev/sda1 / ext4 defaults 0 1\nproc /proc proc defaults 0 0\n"))
        for name, data in grub_files().items():
            add(archive, (f".{GRUB}/{name}", FILE, data))
    return path


@pytest.mark.parametrize("kind", ["ext2", "ext4"])
def test_a_tarball_with_an_overlay_becomes_a_bootable_instance(
    node: Node, tool: Tool, tmp_path: Path, kind: str
) -> None:
    overlays = node.directory / "overlays"
    (overlays / "web/boot").mkdir(parents=True)
    (overlays / "web/boot/loader.conf").write_text("from the overlay")
    (overlays / "web/etc").mkdir()
    (overlays / "web/etc/motd").write_text("welcome")
    node.configure(IMAGE_TYPE="tarball", FILESYSTEM=kind, OVERLAY="web", OVERLAYS_DIR=str(overlays), **SETTINGS)
    tarball(node)
    disk = node.directory / "disk"
    done = as_nobody(node, "create", create_environment(disk))
    assert done.returncode == 0, done.stderr
    partitions = checked(disk, tool, tmp_path)
    assert [partition.length // MIB for partition in partitions[:2]] == [16, 8]
    with open_tree(str(disk), partition=3) as root, open_tree(str(disk), partition=1) as boot:
        assert root.read("/etc/hostname") == b"inst1\n"
        assert root.read("/etc/motd") == b"welcome"
        owned = root.stat("/etc/owned")
        assert (owned.st_uid, owned.st_gid, owned.st_mode & 0o7777) == (70000, 5, 0o4750)
        lines = [line.split()[1:3] for line in root.read("/etc/fstab").decode().splitlines() if line[0] != "#"]
        assert lines == [["/", kind], ["/boot", kind], ["none", "swap"], ["/proc", "proc"]]
        assert root.list("/boot") == []
        assert boot.list("/") == ["grub", "loader.conf", "lost+found", "vmlinuz-6.1"]
        assert boot.read("/grub/i386-pc/normal.mod") == grub_files()["normal.mod"]
    with disk.open("rb") as file:
        assert any(file.read(440)), "there is no boot code"


def overlay(node: Node) -> dict[str, str]:
    """Make an overlay for the root and for /boot; return its settings."""
    overlays = node.directory / "overlays"
    for directory in ("boot", "etc/deep", "lib", "loader"):
        (overlays / "web" / directory).mkdir(parents=True)
    for name in ("boot/b.conf", "etc/motd", "etc/deep/new", "lib/module", "loader/entry"):
        (overlays / "web" / name).write_text(f"the overlay's {name}")
    (overlays / "web/etc/deep/large").write_bytes(bytes(range(1, 251)) * 20000)
    (overlays / "web/etc/link").symlink_to("/etc/shadow")
    os.link(overlays / "web/etc/motd", overlays / "web/boot/motd")
    os.utime(overlays / "web/etc", ns=(5, 1_600_000_000_000_000_001))
    return {"OVERLAY": "web", "OVERLAYS_DIR": str(overlays)}


@pytest.mark.parametrize(("kind", "guest_mount"), [("ext4", "yes"), ("ext2", "no")])
def test_a_disk_image_with_an_overlay_becomes_an_instance(
    node: Node, tool: Tool, tmp_path: Path, kind: str, guest_mount: str
) -> None:
    node.configure(IMAGE_TYPE="raw", GUEST_MOUNT=guest_mount, **overlay(node), **SETTINGS)
    disk_image(node, tool, kind)
    disk = node.directory / "disk"
    done = as_nobody(node, "create", create_environment(disk))
    assert done.returncode == 0, done.stderr
    assert "copying the overlay: 13 entries, " in done.stderr
    checked(disk, tool, tmp_path)
    with open_tree(str(disk), partition=2) as root, open_tree(str(disk), partition=1) as boot:
        assert root.read("/etc/hostname") == b"inst1\n"
        assert root.read("/etc/motd") == boot.read("/motd") == b"the overlay's etc/motd"
        assert root.read("/etc/deep/large", limit=8 * MIB) == bytes(range(1, 251)) * 20000
        assert root.read("/usr/lib/module") == b"the overlay's lib/module"
        assert root.readlink("/etc/link") == "/etc/shadow"
        assert root.list("/boot") == ["below"]
        assert boot.list("/") == ["b.conf", "kernel", "loader", "lost+found", "motd"]
        assert boot.list("/loader") == ["entry"]


def with_efi(node: Node, tool: Tool) -> Path:
    """Make a disk image with a /boot/efi, which is a FAT, to which symlinks of the root and of /boot lead."""
    path = disk_image(node, tool, "ext4")
    run(tool("sfdisk"), "-q", "--append", path, given="9M,1M,ef\n")
    with open_disk(str(path), writable=True) as image:
        image.write(9 * MIB, make_fat12(MIB, {}, label="EFI", serial=1, sector_size=512, hidden_sectors=9 * MIB // 512))
        with open_changed_tree(Region(image, 10 * MIB, 28 * MIB, name="root")) as tree:
            tree.append("/etc/fstab", b"/dev/vda3 /boot/efi vfat\ntmpfs /run tmpfs\n")
            tree.symlink("/efi", "boot/efi/EFI")
            tree.symlink("/loader2", "/boot/up/boot/efi/not/there")
            tree.make_directory("/run")
        with open_changed_tree(Region(image, MIB, 8 * MIB, name="boot")) as tree:
            tree.make_directory("/efi")
            tree.make_directory("/efi/EFI")
            tree.symlink("/vendor", "../loader2")
            tree.symlink("/up", "..")
    return path


@pytest.mark.parametrize("directory", ["boot/efi", "efi/deep", "boot/vendor"])
def test_an_overlay_with_something_for_boot_efi_is_what_is_mounted_for(node: Node, tool: Tool, directory: str) -> None:
    """A FAT is not written here; where it may not be mounted, the verb says so."""
    settings = {"IMAGE_TYPE": "raw", **overlay(node), **SETTINGS}
    disk = node.directory / "disk"
    with_efi(node, tool)
    (node.directory / "overlays/web" / directory).mkdir(parents=True)
    before = disk.read_bytes()
    node.configure(**settings)
    done = as_nobody(node, "create", create_environment(disk))
    assert done.returncode == 1
    assert "mounting needs root (CAP_SYS_ADMIN)" in last_line(done)
    assert disk.read_bytes() == before
    node.configure(GUEST_MOUNT="no", **settings)
    done = as_nobody(node, "create", create_environment(disk))
    assert done.returncode == 0, done.stderr
    assert (
        "/boot/efi of the guest is left alone (GUEST_MOUNT=no), and the overlay's files there are hidden" in done.stderr
    )


def test_what_the_guest_mounts_over_an_overlays_files_is_told(node: Node, tool: Tool) -> None:
    """An overlay for other places of a guest with a /boot/efi needs no mount."""
    node.configure(IMAGE_TYPE="raw", **overlay(node), **SETTINGS)
    with_efi(node, tool)
    (node.directory / "overlays/web/run/nginx").mkdir(parents=True)
    done = as_nobody(node, "create", create_environment(node.directory / "disk"))
    assert done.returncode == 0, done.stderr
    told = [line.partition("warning: ")[2] for line in done.stderr.splitlines() if "left alone" in line]
    why = "the file system that its fstab mounts there is not opened"
    assert told == [f"/run of the guest is left alone ({why}), and the overlay's files there are hidden"]


def compressed(image: Path, node: Node) -> dict[str, str]:
    """Compress an image in its place; return the settings for it."""
    name = f"y{image.suffix}.gz"
    (node.images / name).write_bytes(gzip.compress(image.read_bytes(), compresslevel=1))
    image.unlink()
    return {**SETTINGS, "IMAGE_NAME": name}


@pytest.mark.parametrize("is_qcow2", [False, True])
def test_a_compressed_image_on_ext_needs_no_right_to_mount(
    node: Node, tool: Tool, tmp_path: Path, is_qcow2: bool
) -> None:
    path = disk_image(node, tool, "ext4")
    if is_qcow2:
        run(tool("qemu-img"), "convert", "-q", "-O", "qcow2", path, path.with_suffix(".qcow2"))
        path = path.with_suffix(".qcow2")
    node.configure(**overlay(node), **compressed(path, node))
    disk = node.directory / "disk"
    done = as_nobody(node, "create", create_environment(disk), in_namespace=is_qcow2)
    assert done.returncode == 0, done.stderr
    checked(disk, tool, tmp_path)
    with open_tree(str(disk), partition=2) as root:
        assert (root.read("/etc/hostname"), root.read("/etc/motd")) == (b"inst1\n", b"the overlay's etc/motd")


@pytest.mark.parametrize("in_namespace", [False, True])
def test_a_compressed_image_that_is_to_be_mounted_is_refused_before_anything_is_written(
    node: Node, tool: Tool, in_namespace: bool
) -> None:
    path = only_fat(node, tool)
    node.configure(**compressed(path, node))
    disk = node.directory / "disk"
    disk.write_bytes(b"\xff" * MIB)
    os.truncate(disk, SIZE)
    done = as_nobody(node, "create", create_environment(disk), in_namespace=in_namespace)
    assert done.returncode == 1
    assert "mounting needs root (CAP_SYS_ADMIN); IDENTITY=no copies" in last_line(done)
    assert beginning(disk, MIB) == b"\xff" * MIB


def test_a_compressed_image_larger_than_the_disk_is_refused_before_anything_is_written(node: Node) -> None:
    """Its beginning does not tell how large it is, and without the right to mount it is unpacked first."""
    path = node.images / "large.raw"
    with path.open("wb") as file:
        file.write(b"\x55\xaa" * 256)
        file.truncate(SIZE + MIB)
    node.configure(**compressed(path, node))
    disk = node.directory / "disk"
    disk.write_bytes(b"\xff" * MIB)
    os.truncate(disk, SIZE)
    done = as_nobody(node, "create", create_environment(disk))
    assert done.returncode == 1
    said = "y.raw.gz is larger than the disk, which has 67108864 bytes (64 MiB); nothing was written"
    assert f"the image {node.images}/{said}" in last_line(done)
    assert beginning(disk, MIB) == b"\xff" * MIB


@pytest.mark.parametrize("guest_mount", ["yes", "no"])
def test_an_overlay_for_an_image_without_a_linux_system(node: Node, guest_mount: str) -> None:
    """Nothing could be copied into it, which GUEST_MOUNT=no tells of, as of all that it leaves alone."""
    node.configure(IMAGE_TYPE="raw", GUEST_MOUNT=guest_mount, **overlay(node), **SETTINGS)
    (node.images / "x-x86_64.raw").write_bytes(bytes(510) + b"\x55\xaa" + bytes(MIB))
    done = as_nobody(node, "create", create_environment(node.directory / "disk"))
    assert "no root file system was found" in done.stderr
    left = "name, network and keys stay those of the image, and the overlay is not copied: "
    assert (done.returncode, left in done.stderr) == ((1, False) if guest_mount == "yes" else (0, True))


def test_an_overlay_that_cannot_be_copied_leaves_no_system_that_looks_complete(node: Node, tool: Tool) -> None:
    settings = overlay(node)
    (node.directory / "overlays/web/usr").write_text("where the guest has a directory with a file in it")
    node.configure(IMAGE_TYPE="raw", **settings, **SETTINGS)
    disk_image(node, tool, "ext4")
    done = as_nobody(node, "create", create_environment(node.directory / "disk"))
    assert done.returncode == 1
    where = f"copying the overlay: {node.directory}/overlays/web: entry usr: "
    assert f"{where}it would replace a directory that is not empty" in last_line(done)
    assert read_table(node.directory / "disk") == []


def dumps() -> tuple[bytes, bytes]:
    root: dict[int, File | Dir] = {
        2: Dir([(b"etc", 11), (b"boot", 12)]),
        11: Dir([(b"hostname", 13)]),
        12: Dir([(b"hidden", 14)], mode=0o40700),
        13: File(data=b"old\n"),
        14: File(data=b"below the mount point"),
    }
    boot: dict[int, File | Dir] = {2: Dir([(b"vmlinuz", 11)], mode=0o40711), 11: File(data=b"kernel", uid=0, gid=0)}
    return dump(root), dump(boot)


@pytest.mark.parametrize(
    ("verb", "order"), [("create", ()), ("import", ("root", "boot")), ("import", ("boot", "root"))]
)
def test_dumps_become_an_instance(node: Node, tool: Tool, tmp_path: Path, verb: str, order: tuple[str, ...]) -> None:
    disk, backup = node.directory / "disk", None
    data = dict(zip(("root", "boot"), dumps(), strict=True))
    if verb == "create":
        node.configure(IMAGE_TYPE="dump", **SETTINGS)
        (node.images / "x-x86_64-root.dump").write_bytes(data["root"])
        (node.images / "x-x86_64-boot.dump").write_bytes(data["boot"])
        done = as_nobody(node, verb, create_environment(disk))
    else:
        node.configure(IMPORT_IDENTITY="new", **SETTINGS)
        backup = node.directory / "backup.tar"
        with tarfile.open(backup, "w") as archive:
            for name in order:
                add(archive, (f"{name}.dump", FILE, data[name]))
        done = as_nobody(node, verb, stream_environment("import", disk), backup)
    assert done.returncode == 0, done.stderr
    checked(disk, tool, tmp_path)
    with open_tree(str(disk), partition=3) as root, open_tree(str(disk), partition=1) as boot:
        assert root.read("/etc/hostname") == b"inst1\n"
        assert root.read("/boot/hidden") == b"below the mount point"
        assert (root.stat("/boot").st_mode & 0o777, boot.stat("/").st_mode & 0o777) == (0o700, 0o711)
        assert boot.list("/") == ["lost+found", "vmlinuz"]


def test_a_script_is_what_root_is_needed_for_and_nothing_was_written(node: Node) -> None:
    tarball(node)
    node.add_script("10-any", "#!/bin/sh\n")
    disk = node.directory / "disk"
    disk.write_bytes(b"\xff" * MIB)
    os.truncate(disk, SIZE)
    done = as_nobody(node, "create", create_environment(disk))
    assert done.returncode == 1
    assert "mounting needs root (CAP_SYS_ADMIN); customisation scripts run in the mounted system; " in last_line(done)
    assert beginning(disk, MIB) == b"\xff" * MIB


def test_a_boot_that_is_no_mount_point_is_told(node: Node) -> None:
    root: dict[int, File | Dir] = {2: Dir([(b"boot", 11)]), 11: File(mode=0o120777, data=b"/")}
    backup = node.directory / "backup.tar"
    with tarfile.open(backup, "w") as archive:
        for name, data in (("root", dump(root)), ("boot", dumps()[1])):
            add(archive, (f"{name}.dump", FILE, data))
    done = as_nobody(node, "import", stream_environment("import", node.directory / "disk"), backup)
    assert done.returncode == 1
    assert last_line(done).endswith("partition 3, /boot: cannot be a mount point: it does not lead to a directory")


# Writes are counted, and instead of the last one the process is gone, as with kill -9.
COUNTED = """
import os, sys
from ganeti_os import main
from pydiskimg.disks.descriptor import DescriptorDisk

left, plain = int(sys.argv[1]), DescriptorDisk.write

def write(disk, offset, data):
    global left
    left -= 1
    if left == 0:
        os._exit(9)
    os.write(1, b".")
    plain(disk, offset, data)

DescriptorDisk.write = write
main.run_verb("create", sysconfdir=sys.argv[2] + "/etc", localstatedir=sys.argv[2] + "/var", argv=[])
"""


def create_until(node: Node, disk: Path, count: int) -> subprocess.CompletedProcess[str]:
    """Create, and end before the write of this number."""
    disk.write_bytes(b"\xff" * MIB)
    os.truncate(disk, SIZE)
    return subprocess.run(
        [sys.executable, "-c", COUNTED, str(count), str(node.directory)],
        cwd=ROOT,
        env={"PATH": PATH, **create_environment(disk)},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.parametrize("image_type", ["tarball", "raw"])
def test_a_table_is_there_when_all_else_is_and_not_before(node: Node, tool: Tool, image_type: str) -> None:
    if image_type == "raw":
        node.configure(IMAGE_TYPE="raw", **overlay(node), **SETTINGS)
        disk_image(node, tool, "ext4")
    else:
        tarball(node)
    disk = node.directory / "disk"
    done = create_until(node, disk, 1 << 20)
    assert done.returncode == 0, done.stderr
    assert len(read_table(disk)) == (2 if image_type == "raw" else 3)
    count = len(done.stdout)
    before = random.Random(count).sample(range(1, count), 6)
    for stop in [*before, count - 1, count]:
        done = create_until(node, disk, stop)
        assert done.returncode == 9, done.stderr
        assert read_table(disk) == [], f"after {stop} of {count} writes"
