# SPDX-License-Identifier: MIT
"""A guest on ext4 is made and renamed without a mount and without root; e2fsck judges, debugfs shows what is in it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.fixtures.ext_files import sized
from tests.fixtures.node import NIC, PATH, REFUSED, ROOT, Node, create_environment, last_line

MIB = 1 << 20
NETWORK = "auto lo eth0\niface lo inet loopback\niface eth0 inet dhcp\n"
FILES = {
    "etc/os-release": "ID=debian\n",
    "etc/hostname": "image\n",
    "etc/hosts": "127.0.0.1 localhost\n127.0.1.1 image\n",
    "etc/machine-id": f"{'a' * 32}\n",
    "etc/network/interfaces": NETWORK,
    "etc/ssh/sshd_config": "",
    "usr/sbin/sshd": "",
    "sbin/ifup": "",
}


def partition(path: Path, files: dict[str, str], *, size_mib: int, kind: str = "ext4") -> bytes:
    tree = path.with_suffix(".tree")
    tree.mkdir()
    for name, text in files.items():
        (tree / name).parent.mkdir(parents=True, exist_ok=True)
        (tree / name).write_text(text)
    subprocess.run(["mke2fs", "-q", "-t", kind, "-d", tree, "-L", path.name, path, f"{size_mib}M"], check=True)
    return path.read_bytes()


def image(node: Node, tmp_path: Path, volumes: list[bytes]) -> list[int]:
    """Put a qcow2 of the partitions where create finds it; return where each begins (bytes)."""
    starts, script, at = [], "label: dos\n", 1
    raw = tmp_path / "raw"
    with raw.open("wb") as file:
        for data in volumes:
            starts.append(at * MIB)
            file.seek(at * MIB)
            file.write(data)
            script += f"{at}M,{len(data) // MIB}M,L\n"
            at += len(data) // MIB
        file.truncate((at + 1) * MIB)
    subprocess.run(["sfdisk", "-q", raw], input=script, text=True, check=True)
    target = node.images / "x-x86_64.qcow2"
    subprocess.run(["qemu-img", "convert", "-O", "qcow2", raw, target], check=True)
    return starts


def run(node: Node, verb: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run a verb as a user who has no capability and cannot make a namespace."""
    command = [sys.executable, "-c", REFUSED, verb, str(node.directory)]
    if os.geteuid() == 0:
        command = ["setpriv", "--bounding-set=-all", "--inh-caps=-all", *command]
    return subprocess.run(
        command, cwd=ROOT, env={"PATH": PATH, **environment}, capture_output=True, text=True, check=False
    )


def judged(disk: Path, start: int, tmp_path: Path) -> Path:
    """Return the file system that begins there, in a file of its own, once e2fsck finds nothing wrong with it."""
    volume = tmp_path / "volume"
    with disk.open("rb") as file:
        file.seek(start)
        volume.write_bytes(file.read())
    done = subprocess.run(["e2fsck", "-fn", volume], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout
    return volume


def cat(volume: Path, path: str) -> str:
    command = ["debugfs", "-R", f"cat {path}", str(volume)]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


SETTINGS = {"IMAGE_NAME": "x", "IMAGE_TYPE": "qcow2", "ARCH": "x86_64", "IDENTITY": "yes", "GROW": "yes"}


@pytest.fixture
def node(tmp_path: Path) -> Node:
    return Node.make(tmp_path / "node", **SETTINGS)


@pytest.mark.parametrize("kind", ["ext4", "ext2"])
def test_without_root(node: Node, tmp_path: Path, kind: str) -> None:
    (start,) = image(node, tmp_path, [partition(tmp_path / "root", FILES, size_mib=24, kind=kind)])
    disk = sized(tmp_path / "disk", 64 * MIB)
    done = run(node, "create", **create_environment(disk, **NIC))
    assert done.returncode == 0, done.stderr
    volume = judged(disk, start, tmp_path)
    assert cat(volume, "/etc/hostname") == "inst1\n"
    assert "inst1.example.org" in cat(volume, "/etc/hosts")
    assert cat(volume, "/etc/machine-id") != FILES["etc/machine-id"]
    assert "OPENSSH PRIVATE KEY" in cat(volume, "/etc/ssh/ssh_host_ed25519_key")
    names = {"INSTANCE_NAME": "inst2.example.net", "OLD_INSTANCE_NAME": "inst1.example.org"}
    for _ in range(2):
        done = run(node, "rename", **create_environment(disk, **NIC, **names))
        assert done.returncode == 0, done.stderr
        volume = judged(disk, start, tmp_path)
        assert cat(volume, "/etc/hostname") == "inst2\n"
        assert "inst2.example.net" in cat(volume, "/etc/hosts")
    assert "nothing was changed" in last_line(done)


def test_boot_and_var_on_file_systems_of_their_own(node: Node, tmp_path: Path) -> None:
    fstab = "LABEL=root / ext4 x 0 1\nLABEL=boot /boot ext4 x 0 2\nLABEL=var /var ext4 x 0 2\n"
    node.configure(**SETTINGS, KERNEL_ARGS="quiet")
    var = {"lib/dbus/machine-id": f"{'a' * 32}\n"}
    grub = "linux /vmlinuz root=LABEL=root ro\n"
    made = [
        partition(tmp_path / "boot", {"grub/grub.cfg": f"menuentry x {{\n{grub}}}\n"}, size_mib=8),
        partition(tmp_path / "var", var, size_mib=8),
        partition(tmp_path / "root", {**FILES, "etc/fstab": fstab, "var/x": "", "boot/x": ""}, size_mib=24),
    ]
    starts = image(node, tmp_path, made)
    disk = sized(tmp_path / "disk", 64 * MIB)
    done = run(node, "create", **create_environment(disk, **NIC))
    assert done.returncode == 0, done.stderr
    assert "quiet" in cat(judged(disk, starts[0], tmp_path), "/grub/grub.cfg")
    assert cat(judged(disk, starts[1], tmp_path), "/lib/dbus/machine-id") != var["lib/dbus/machine-id"]
    assert cat(judged(disk, starts[2], tmp_path), "/etc/hostname") == "inst1\n"
