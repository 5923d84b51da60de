# SPDX-License-Identifier: MIT
"""The scripts of ganeti-instance-image's names, enabled: each does what create does by itself, by the same code."""

from __future__ import annotations

import os
import shutil
import subprocess
import tarfile
from pathlib import Path

import pytest

from tests.fixtures.block_devices import filled_file
from tests.fixtures.grub_files import DIRECTORY, boot_image, grub_files
from tests.fixtures.judges import inside, partitions
from tests.fixtures.node import ROOT, Node, last_line
from tests.fixtures.tarballs import DIRECTORY as A_DIRECTORY
from tests.fixtures.tarballs import FILE, Member, add

pytestmark = pytest.mark.root
MIB = 1 << 20
SCRIPTS = ROOT / "ganeti_os/definition/instance-image.d"
KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIGfV8Y5yD0lGxgCc0GNb1sGxNfYb5C4sXrGQJb1x2n3u admin@example.org"
MEMBERS: tuple[Member, ...] = (
    ("./etc", A_DIRECTORY, b""),
    ("./root", A_DIRECTORY, b""),
    ("./etc/hostname", FILE, b"template\n"),
    ("./etc/passwd", FILE, b"root:x:0:0:root:/root:/bin/sh\n"),
    ("./etc/inittab", FILE, b"id:2:initdefault:\n"),
    ("./etc/network/interfaces", FILE, b"auto lo\niface lo inet loopback\n"),
    ("./sbin/ifup", FILE, b""),
    ("./sbin/getty", FILE, b""),
    ("./usr/sbin/sshd", FILE, b""),
    ("./etc/ssh/sshd_config", FILE, b""),
    ("./etc/ssh/ssh_host_ed25519_key", FILE, b"old"),
    ("./etc/ssh/ssh_host_ed25519_key.pub", FILE, b"old"),
    ("./etc/dhcp/dhclient.conf", FILE, b"request routers;\n"),
    ("./boot/vmlinuz-6.1.0-18-amd64", FILE, b"kernel"),
    ("./boot/initrd.img-6.1.0-18-amd64", FILE, b"initrd"),
)


@pytest.fixture
def node(tmp_path: Path) -> Node:
    node = Node.make(tmp_path / "a node", **settings())
    with tarfile.open(node.images / "x-x86_64.tar.gz", "w:gz", compresslevel=1) as archive:
        for member in MEMBERS:
            add(archive, member)
        for name, data in grub_files().items():
            add(archive, (f".{DIRECTORY}/{name}", FILE, data))
    return node


def settings(**more: str) -> dict[str, str]:
    fixed = {"IMAGE_NAME": "x", "IMAGE_TYPE": "tarball", "ARCH": "x86_64", "SWAP": "no", "BOOT_SIZE": "16"}
    return {**fixed, "IDENTITY": "no", "BOOTLOADER": "none", "AUTHORIZED_KEYS": KEY, **more}


def enable(node: Node, *names: str) -> None:
    """As the installation brings them, with chmod +x."""
    for name in names:
        shutil.copy(SCRIPTS / name, node.scripts / name)
        (node.scripts / name).chmod(0o755)


def create(node: Node, tmp_path: Path) -> tuple[Path, str]:
    disk = filled_file(tmp_path / "disk", 64 * MIB)
    nic = {"NIC_COUNT": "1", "NIC_0_MAC": "aa:00:00:11:22:33", "NIC_0_IP": "192.0.2.10", "NIC_0_MODE": "bridged"}
    network = {"NIC_0_NETWORK_SUBNET": "192.0.2.0/24", "NIC_0_NETWORK_GATEWAY": "192.0.2.1"}
    done = node.create(disk, **nic, **network, INSTANCE_HV_serial_console="True")
    assert done.returncode == 0, done.stderr
    return disk, done.stderr


def contents(disk: Path, tmp_path: Path) -> dict[str, str]:
    found = {}
    with inside(str(disk), partitions(str(disk))[-1], tmp_path) as point:
        for path in sorted(point.glob("etc/**/*")) + sorted(point.glob("root/.ssh/*")):
            if path.is_file():
                found[str(path.relative_to(point))] = path.read_bytes().decode("latin-1")
    return found


CHANGES = {
    "interfaces": ("etc/hostname", "inst1\n"),
    "ssh": ("etc/ssh/ssh_host_ed25519_key", "-----BEGIN OPENSSH PRIVATE KEY-----"),
    "root_ssh_key": ("root/.ssh/authorized_keys", KEY),
    "setup_console": ("etc/inittab", "ttyS0"),
    "zz_ddns": ("etc/dhcp/dhclient.conf", 'request routers;\nsend host-name "inst1";\n'),
}


def test_without_them_everything_stays(node: Node, tmp_path: Path) -> None:
    disk, _ = create(node, tmp_path)
    found = contents(disk, tmp_path)
    for path, text in CHANGES.values():
        assert text not in found.get(path, "")
    with disk.open("rb") as file:
        assert not any(file.read(512)[0x68:0x1B8]), "no boot code"


@pytest.mark.parametrize("name", CHANGES)
def test_each_does_its_step_and_no_other(node: Node, tmp_path: Path, name: str) -> None:
    enable(node, name)
    disk, _ = create(node, tmp_path)
    found = contents(disk, tmp_path)
    for script, (path, text) in CHANGES.items():
        assert (text in found.get(path, "")) == (script == name), (script, found.get(path))
    if name == "interfaces":
        assert "192.0.2.10" in "".join(text for path, text in found.items() if path.startswith("etc/network"))


def test_grub_writes_the_boot_loader(node: Node, tmp_path: Path) -> None:
    enable(node, "grub")
    disk, _ = create(node, tmp_path)
    with disk.open("rb") as file:
        head = file.read(MIB)
    assert head[0x68:0x1B8] == boot_image()[0x68:0x1B8]
    assert head[512:1012] == grub_files()["diskboot.img"][:500]
    boot, root = partitions(str(disk))
    assert [p["type"] for p in (boot, root)] == ["83", "83"]
    with inside(str(disk), boot, tmp_path) as point:
        menu = (point / "grub/grub.cfg").read_text()
        assert "linux /vmlinuz-6.1.0-18-amd64 root=UUID=" in menu
        assert "console=ttyS0" in menu
    alone, _ = create_with(node, tmp_path, BOOTLOADER="auto")
    assert alone[:0x1B8] == head[:0x1B8], "the code that create writes by itself"


def test_grub_writes_it_again_where_create_wrote_it(node: Node, tmp_path: Path) -> None:
    enable(node, "grub")
    node.configure(**settings(BOOTLOADER="auto"))
    disk, log = create(node, tmp_path)
    assert log.count("GRUB from /usr/lib/grub/i386-pc") == 2
    with disk.open("rb") as file:
        assert file.read(512)[0x68:0x1B8] == boot_image()[0x68:0x1B8]


def create_with(node: Node, tmp_path: Path, **more: str) -> tuple[bytes, str]:
    for script in node.scripts.iterdir():
        script.unlink()
    node.configure(**settings(**more))
    disk, log = create(node, tmp_path)
    with disk.open("rb") as file:
        return file.read(512), log


def test_all_of_them_together(node: Node, tmp_path: Path) -> None:
    overlay = node.directory / "etc/ganeti/instance-image/overlays/web/etc"
    overlay.mkdir(parents=True)
    (overlay / "motd").write_text("from the overlay\n")
    node.configure(**settings(OVERLAY="web"))
    enable(node, *os.listdir(SCRIPTS))
    disk, log = create(node, tmp_path)
    found = contents(disk, tmp_path)
    for path, text in CHANGES.values():
        assert text in found[path]
    assert found["etc/motd"] == "from the overlay\n"
    assert KEY not in log
    assert "libarchive" not in log


@pytest.mark.parametrize("scripts", [("interfaces",), ("cloud-init", "interfaces")])
def test_the_network_of_a_system_with_cloud_init(node: Node, tmp_path: Path, scripts: tuple[str, ...]) -> None:
    """Without a seed cloud-init would ask for DHCP at boot, or not run; with one it configures the network."""
    with tarfile.open(node.images / "x-x86_64.tar.gz", "w:gz", compresslevel=1) as archive:
        for member in MEMBERS:
            add(archive, member)
        add(archive, ("./etc/cloud/cloud.cfg", FILE, b"datasource_list: [NoCloud]\n"))
        for program in ("usr/bin/cloud-init", "usr/sbin/netplan"):
            add(archive, (f"./{program}", FILE, b""))
    enable(node, *scripts)
    disk, _ = create(node, tmp_path)
    found = contents(disk, tmp_path)
    disabled = "network: {config: disabled}" in found.get("etc/cloud/cloud.cfg.d/99_ganeti.cfg", "")
    in_files = any("192.0.2.10" in text for path, text in found.items() if path.startswith("etc/net"))
    assert (disabled, in_files) == ((True, True) if scripts == ("interfaces",) else (False, False))


def test_what_a_step_says(node: Node, tmp_path: Path) -> None:
    """Every line names the step, what has no effect says so, and what a person gets wrong is one sentence."""
    wrong = ("env -u BLOCKDEV", "env -u ROOT_DEV", "env BLOCKDEV=", "env -u INSTANCE_NAME")
    script = node.scripts / "asks"
    lines = [f'{how} "$GUEST_STEP" boot-loader && exit 1' for how in wrong]
    lines += ['"$GUEST_STEP" overlay', 'INSTANCE_HV_serial_console=False "$GUEST_STEP" console', "exit 0"]
    script.write_text("#!/bin/sh\n" + "\n".join(lines) + "\n")
    script.chmod(0o755)
    _, log = create(node, tmp_path)
    said = log.partition("asks\n")[2].splitlines()[:-1]
    device = "is not set; expected a block device, as create gives it to its scripts"
    assert said == [
        f"guest-step boot-loader: BLOCKDEV {device}",
        f"guest-step boot-loader: ROOT_DEV {device}",
        f"guest-step boot-loader: BLOCKDEV {device}",
        "guest-step boot-loader: INSTANCE_NAME is empty or not set; expected the instance's name",
        "guest-step overlay: OVERLAY is not set; nothing was copied",
        "guest-step console: Ganeti gives the instance no serial console (hypervisor parameter serial_console)",
        "guest-step console: the guest already has all of it; nothing was changed",
    ]


def test_a_step_that_fails_fails_the_installation(node: Node, tmp_path: Path) -> None:
    overlay = node.directory / "etc/ganeti/instance-image/overlays/web/etc/ssh"
    overlay.mkdir(parents=True)
    (overlay / "ssh_host_ed25519_key").mkdir()
    shutil.copy(SCRIPTS / "grub", node.scripts / "grub")
    (node.scripts / "grub").chmod(0o755)
    with tarfile.open(node.images / "x-x86_64.tar.gz", "w:gz", compresslevel=1) as archive:
        for member in MEMBERS:
            add(archive, member)
    done = node.create(filled_file(tmp_path / "disk", 64 * MIB))
    assert done.returncode == 1
    assert "guest-step boot-loader: " in done.stderr
    assert "the system has no /usr/lib/grub/i386-pc; add the package grub-pc-bin" in done.stderr
    assert last_line(done).endswith("instance-image.d/grub: exited with status 1")


def test_they_are_installed_and_not_enabled() -> None:
    for path in SCRIPTS.iterdir():
        assert path.stat().st_mode & 0o111 == 0
        assert subprocess.run(["sh", "-n", path], check=False).returncode == 0
