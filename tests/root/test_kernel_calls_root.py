# SPDX-License-Identifier: MIT
"""Every mount(2) of a guest's file system by a verb: what docs/hostile-images.md says goes to the node's kernel."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from pydiskimg import open_tree
from tests.fixtures.block_devices import filled_file
from tests.fixtures.growing import loop, mounted_at
from tests.fixtures.node import PATH, ROOT, Node, create_environment, last_line, stream_environment
from tests.fixtures.verbs_of_nobody import SETTINGS
from tests.oracle.test_create_unprivileged import overlay, with_efi

pytestmark = pytest.mark.root
Tool = Callable[[str], str]
MIB = 1 << 20
SIZES = {"ext4": 24, "xfs": 320, "btrfs": 130}
RDONLY, NOSUID, NODEV, NOEXEC = 1, 2, 4, 8
CLOSED, OPEN = NOSUID | NODEV | NOEXEC, NOSUID | NODEV
OPTIONS = {"ext4": "errors=remount-ro,noinit_itable", "xfs": "nouuid", "btrfs": "skip_balance"}
LOOK = {"ext4": "noload", "xfs": "norecovery", "btrfs": "rescue=nologreplay"}

# Runs a verb and notes what it gives to mount(2), in whatever process.
RECORDER = """
import json, os, runpy, sys
from pydiskimg.linux import mounts
log, real = sys.argv.pop(1), mounts.mount
def mount(source, target, fs_type, flags, options=""):
    if source is not None and source.startswith("/dev/"):
        with open(log, "a") as file:
            file.write(json.dumps([fs_type, flags, options, os.path.basename(target)]) + "\\n")
    real(source, target, fs_type, flags, options)
mounts.mount = mount
runpy.run_module("ganeti_os", run_name="__main__")
"""


def recorded(
    node: Node, verb: str, environment: Mapping[str, str], log: Path, *, stdin: Path | None = None
) -> list[list[object]]:
    command = node.command(verb)
    assert command[1:3] == ["-m", "ganeti_os"]
    command[1:3] = ["-c", RECORDER, str(log)]
    with open(stdin or os.devnull, "rb") as given:
        # import takes a pipe only.
        source = subprocess.Popen(["cat"], stdin=given, stdout=subprocess.PIPE)
        done = subprocess.run(
            command,
            cwd=ROOT,
            env={"PATH": PATH, **environment},
            stdin=source.stdout,
            capture_output=True,
            check=False,
            timeout=120,
        )
        assert source.stdout is not None
        source.stdout.close()
        source.wait()
    assert done.returncode == 0, done.stderr.decode()
    return [json.loads(line) for line in log.read_text().splitlines()] if log.exists() else []


def system(tool: Tool, tmp_path: Path, fs_type: str, fstab: str = "") -> Path:
    path = tmp_path / f"{fs_type}.img"
    with path.open("wb") as file:
        file.truncate(SIZES[fs_type] * MIB)
    subprocess.run([tool(f"mkfs.{fs_type}"), "-q", path], check=True, capture_output=True)
    with loop(path, 0, SIZES[fs_type] * MIB) as device, mounted_at(device, tmp_path / "filling") as root:
        (root / "etc").mkdir()
        (root / "boot").mkdir()
        for name, text in {"os-release": "ID=test\n", "hostname": "inst1\n", "fstab": fstab}.items():
            (root / "etc" / name).write_text(text)
    return path


def looked_at(fs_type: str) -> list[object]:
    return [fs_type, RDONLY | CLOSED, f"{OPTIONS[fs_type]},{LOOK[fs_type]}", "target"]


@pytest.fixture
def node(tmp_path: Path) -> Node:
    return Node.make(tmp_path / "node")


@pytest.mark.parametrize("fs_type", SIZES)
def test_rename(node: Node, tool: Tool, tmp_path: Path, fs_type: str) -> None:
    environment = create_environment(system(tool, tmp_path, fs_type), OLD_INSTANCE_NAME="inst1", INSTANCE_NAME="inst2")
    mounts = [] if fs_type == "ext4" else [looked_at(fs_type), [fs_type, CLOSED, OPTIONS[fs_type], "target"]]
    assert recorded(node, "rename", environment, tmp_path / "log") == mounts


def test_an_ext_that_is_not_changed_here(node: Node, tool: Tool, tmp_path: Path) -> None:
    """It is found without a mount, mounted to be changed, or left as it is."""
    disk = system(tool, tmp_path, "ext4")
    seen = "set_super_value state 3"
    subprocess.run([tool("debugfs"), "-w", "-R", seen, disk], check=True, capture_output=True)
    before = disk.read_bytes()
    environment = create_environment(disk, OLD_INSTANCE_NAME="inst1", INSTANCE_NAME="inst2")
    node.configure(GUEST_MOUNT="no")
    done = node.run("rename", **environment)
    assert done.returncode == 0
    assert "the kernel has seen errors in it" in last_line(done)
    assert "GUEST_MOUNT=no, so it is not mounted" in last_line(done)
    assert disk.read_bytes() == before
    node.configure()
    assert recorded(node, "rename", environment, tmp_path / "log") == [["ext4", CLOSED, OPTIONS["ext4"], "target"]]


@pytest.mark.parametrize("fs_type", ["xfs", "btrfs"])
def test_what_is_never_mounted(node: Node, tool: Tool, tmp_path: Path, fs_type: str) -> None:
    node.configure(GUEST_MOUNT="no")
    disk = system(tool, tmp_path, fs_type)
    before = disk.read_bytes()
    environment = create_environment(disk, OLD_INSTANCE_NAME="inst1", INSTANCE_NAME="inst2")
    assert recorded(node, "rename", environment, tmp_path / "log") == []
    done = node.run("rename", **environment)
    assert done.returncode == 0
    assert "the system keeps its name and addresses: " in last_line(done)
    assert f"GUEST_MOUNT=no, so these were not examined: the whole disk ({fs_type})" in last_line(done)
    assert disk.read_bytes() == before


def test_an_image_that_is_never_mounted(node: Node, tool: Tool, tmp_path: Path) -> None:
    """Neither for its identity nor to grow; the administrator's scripts do not run, and the overlay is not copied."""
    (node.directory / "etc/ganeti/instance-image/overlays/mine").mkdir(parents=True)
    node.configure(IMAGE_NAME="image", IMAGE_TYPE="qemu", GUEST_MOUNT="no", GROW="yes", IDENTITY="yes", OVERLAY="mine")
    node.add_script("10-nothing", "#!/bin/sh\nexit 1\n")
    system(tool, tmp_path, "xfs").rename(node.images / f"image-{os.uname().machine}.img")
    environment = create_environment(filled_file(tmp_path / "target", 400 * MIB))
    assert recorded(node, "create", environment, tmp_path / "log") == []
    done = node.run("create", **environment)
    assert done.returncode == 0
    assert "warning: GUEST_MOUNT=no: the customisation scripts in " in done.stderr
    assert "name, network and keys stay those of the image, and the overlay is not copied: " in done.stderr
    assert "contains xfs, which can grow only while it is mounted" in done.stderr


@pytest.mark.parametrize("fs_type", SIZES)
def test_import_that_grows(node: Node, tool: Tool, tmp_path: Path, fs_type: str) -> None:
    """ext4 grows without the kernel."""
    node.configure(GROW="yes")
    backup = system(tool, tmp_path, fs_type)
    disk = tmp_path / "disk"
    with disk.open("wb") as file:
        file.truncate(600 * MIB)
    mounts = recorded(node, "import", stream_environment("import", disk), tmp_path / "log", stdin=backup)
    assert mounts == ([] if fs_type == "ext4" else [[fs_type, CLOSED, OPTIONS[fs_type], "target"]])


def test_export_and_a_copy_mount_nothing(node: Node, tool: Tool, tmp_path: Path) -> None:
    disk = system(tool, tmp_path, "ext4")
    assert recorded(node, "export", stream_environment("export", disk), tmp_path / "log") == []
    node.configure(IMAGE_NAME="image", IMAGE_TYPE="qemu", NOMOUNT="yes")
    shutil.copyfile(disk, node.images / f"image-{os.uname().machine}.img")
    target = filled_file(tmp_path / "target", 24 * MIB)
    assert recorded(node, "create", create_environment(target), tmp_path / "log") == []


@pytest.mark.parametrize("scripts", [False, True])
def test_customising_a_disk_image(node: Node, tool: Tool, tmp_path: Path, scripts: bool) -> None:
    disk = tmp_path / "disk.img"
    with disk.open("wb") as file:
        file.truncate(80 * MIB)
    subprocess.run(["sfdisk", "-q", disk], input="label: dos\n1M,24M,L\n30M,24M,L\n", text=True, check=True)
    root = system(tool, tmp_path, "ext4", "UUID=x / ext4\n/dev/vda2 /boot ext4\n")
    with disk.open("r+b") as file:
        file.seek(MIB)
        file.write(root.read_bytes())
        file.seek(30 * MIB)
        file.write(system(tool, tmp_path, "ext4").read_bytes())
    shutil.copyfile(disk, node.images / f"image-{os.uname().machine}.img")
    overlay = node.directory / "etc/ganeti/instance-image/overlays/mine"
    overlay.mkdir(parents=True)
    (overlay / "motd").write_text("hello\n")
    node.configure(IMAGE_NAME="image", IMAGE_TYPE="qemu", OVERLAY="mine")
    if scripts:
        node.add_script("10-nothing", "#!/bin/sh\n")
    target = filled_file(tmp_path / "target", 80 * MIB)
    mounts = [["ext4", OPEN, OPTIONS["ext4"], point] for point in ("target", "boot")]
    assert recorded(node, "create", create_environment(target), tmp_path / "log") == (mounts if scripts else [])


def test_an_overlay_goes_onto_boot_efi_by_a_symlink(node: Node, tool: Tool, tmp_path: Path) -> None:
    """As it does in the running guest; the kernel of the tests may have no vfat, and any file system will do."""
    node.configure(IMAGE_TYPE="raw", **overlay(node), **SETTINGS)
    image, efi = with_efi(node, tool), tmp_path / "efi.img"
    efi.write_bytes(bytes(MIB))
    subprocess.run([tool("mke2fs"), "-q", "-t", "ext4", "-O", "^has_journal", efi], check=True)
    with image.open("r+b") as file:
        file.seek(9 * MIB)
        file.write(efi.read_bytes())
    (node.directory / "overlays/web/boot/up/boot/efi").mkdir(parents=True)
    (node.directory / "overlays/web/boot/up/boot/efi/loader.efi").write_text("from the overlay")
    disk = filled_file(tmp_path / "target", 64 * MIB)
    mounts = recorded(node, "create", create_environment(disk), tmp_path / "log")
    assert [mount[3] for mount in mounts] == ["target", "boot", "efi"]
    assert all(mount[1] == CLOSED for mount in mounts)
    with loop(disk, 9 * MIB, MIB) as device, mounted_at(device, tmp_path / "efi") as found:
        assert (found / "loader.efi").read_text() == "from the overlay"
    with open_tree(str(disk), partition=1) as boot:
        assert boot.list("/efi") == ["EFI"]


@pytest.mark.parametrize("scripts", [False, True])
def test_a_tarball_is_mounted_for_scripts_alone(node: Node, tmp_path: Path, scripts: bool) -> None:
    (tmp_path / "tree/etc").mkdir(parents=True)
    archive = node.images / f"image-{os.uname().machine}.tar.gz"
    subprocess.run(["tar", "-C", tmp_path / "tree", "-czf", archive, "."], check=True)
    node.configure(IMAGE_NAME="image", IMAGE_TYPE="tarball", SWAP="no")
    if scripts:
        node.add_script("10-nothing", "#!/bin/sh\n")
    target = filled_file(tmp_path / "target", 200 * MIB)
    mounts = [["ext4", OPEN, OPTIONS["ext4"], point] for point in ("target", "boot")]
    assert recorded(node, "create", create_environment(target), tmp_path / "log") == (mounts if scripts else [])
