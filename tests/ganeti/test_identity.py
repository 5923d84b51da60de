# SPDX-License-Identifier: MIT
"""The identity of an instance, with the real client: names, addresses of Ganeti's networks, keys and boot files."""

from __future__ import annotations

import ipaddress
import lzma
import re
import struct
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from ganeti_os.guest.facts.nics import NewAddress, nic_networks
from ganeti_os.request import parse_request
from ganeti_os.settings.settings import Settings
from tests.fixtures.debian_system import DebianSystem
from tests.fixtures.ganeti_lab import BRIDGE, IMAGES, SYSCONFDIR, Lab
from tests.fixtures.growing import loop, mounted_at
from tests.fixtures.judges import inside, partitions
from tests.fixtures.lab_identity import Identity, Nic, identity_of, menu_and_fstab, nics_of, roots_in, uuids
from tests.fixtures.lab_instances import (
    MIB,
    add_command,
    backup_import,
    contents,
    export,
    rename,
    root_of,
)
from tests.fixtures.whole_debian import GRUB, make_whole_debian

pytestmark = pytest.mark.ganeti
NETWORK, SUBNET, GATEWAY = "proof", "198.51.100.0/24", "198.51.100.1"
SUBNET6, GATEWAY6 = "2001:db8:100::/64", "2001:db8:100::1"
NICS = (f"ip=pool,network={NETWORK},mac=generate", "mac=generate")
BOOTED_ID = "fedcba9876543210fedcba9876543210"
KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIA== me@example.org"


@pytest.fixture(scope="module")
def whole(lab: Lab, debian: DebianSystem, tmp_path_factory: pytest.TempPathFactory) -> Lab:
    """The lab with a network of Ganeti's, and the variants whole (a tarball, ifupdown) and wholedisk (netplan)."""
    make_whole_debian(debian, lab.path(IMAGES), tmp_path_factory.mktemp("whole"))
    lab.publish("whole", IMAGE_NAME="whole-debian", IMAGE_TYPE="tarball", SWAP_SIZE="32")
    lab.publish("wholedisk", IMAGE_NAME="whole-debian", IMAGE_TYPE="qcow2")
    of_six = (f"--network6={SUBNET6}", f"--gateway6={GATEWAY6}")
    lab.succeed("gnt-network", "add", f"--network={SUBNET}", f"--gateway={GATEWAY}", *of_six, NETWORK)
    lab.succeed("gnt-network", "connect", "--nic-parameters", f"mode=bridged,link={BRIDGE}", NETWORK)
    return lab


@pytest.fixture
def quiet(lab: Lab) -> Iterator[list[str]]:
    """What the client says goes into this list: neither it nor a verb's log may have a warning."""
    directory = lab.path("/var/log/ganeti/os")
    before = set(directory.glob("*.log"))
    said: list[str] = []
    yield said
    logs = {log.name: log.read_text() for log in set(directory.glob("*.log")) - before}
    assert logs
    assert [f"{name}: {line}" for name, log in logs.items() for line in warnings(log)] == []
    assert warnings("\n".join(said)) == []


def warnings(text: str) -> list[str]:
    """Return the lines that warn, but for what Debian 13's Ganeti and socat say of their own options every time."""
    lines = (line for line in text.splitlines() if "warning" in line.lower())
    return [line for line in lines if not re.search(r"socat: W OpenSSL|-check: This option is deprecated", line)]


def add_at_once(lab: Lab, *names: str, os: str) -> list[str]:
    """Add instances at the same time; returns what the client says of each."""
    clients = [lab.start(*add_command(name, os=os, nics=NICS)) for name in names]
    said = [client.communicate()[0] for client in clients]
    assert [client.returncode for client in clients] == [0] * len(names), said
    return said


def assert_is(found: Identity, name: str, nics: list[Nic]) -> None:
    """The system has the name; NIC 0 has by its MAC the address and gateway of Ganeti's network, NIC 1 asks DHCP."""
    assert found.host_name == name.partition(".")[0]
    assert found.own_line[1:] == (name, found.host_name)
    assert ("192.0.2.77", "backup") in found.hosts
    assert nics[0].ip is not None
    assert ipaddress.ip_address(nics[0].ip) in ipaddress.ip_network(SUBNET)
    text = found.network_text()
    assert set(re.findall(r"198\.51\.100\.\d+", text)) == {nics[0].ip, GATEWAY}
    assert re.findall(r"(?:[0-9a-f]{2}:){5}[0-9a-f]{2}", text) == [nic.mac for nic in nics]
    assert text.count("inet dhcp" if "iface nic1" in text else "dhcp4: true") == 1
    assert "debian-small" not in " ".join(word for line in found.hosts for word in line)


def assert_gone(found: Identity, *old: str | None) -> None:
    """Names and addresses that were the instance's before are nowhere in its files."""
    text = found.network_text() + "\n" + "\n".join(" ".join(line) for line in found.hosts)
    assert [
        word for word in old if word is not None and re.search(rf"(?<![\w.]){re.escape(word)}(?![\w.])", text)
    ] == []


def in_first_sectors(disk: Path, boot_uuid: str) -> None:
    """The first sector is GRUB's, its core unpacks to what it says, and looks for the file system with the UUID."""
    with disk.open("rb") as file:
        head = file.read(MIB)
    image = (GRUB / "boot.img").read_bytes()
    assert head[:3] == image[:3]
    assert head[0x68:0x1B8] == image[0x68:0x1B8]
    sector = int.from_bytes(head[0x5C:0x64], "little")
    core = head[sector * 512 :]
    assert core[:500] == (GRUB / "diskboot.img").read_bytes()[:500]
    packed, whole = struct.unpack_from("<II", core, 512 + 8)
    start = 512 + (GRUB / "lzma_decompress.img").stat().st_size
    filters = [{"id": lzma.FILTER_LZMA1, "lc": 3, "lp": 0, "pb": 2, "dict_size": 1 << 16}]
    raw = lzma.LZMADecompressor(lzma.FORMAT_RAW, filters=filters).decompress(core[start : start + packed], whole)
    assert len(raw) == whole
    assert f"search.fs_uuid {boot_uuid} root\n".encode() in raw


def assert_boots(lab: Lab, name: str, tmp_path: Path) -> None:
    """GRUB, its menu and fstab of a tarball's instance name its own file systems."""
    boot, swap, root = uuids(lab, name)
    in_first_sectors(lab.disk(name), boot)
    menu, mounted = menu_and_fstab(lab, name, tmp_path)
    assert roots_in(menu) == {root}
    assert mounted == {"/": root, "/boot": boot, "swap": swap}


def facts(lab: Lab, name: str, tmp_path: Path, kind: str) -> Identity:
    """Read the identity of an instance with the NICs that Ganeti knows, after asserting that it is right."""
    found = identity_of(lab, name, tmp_path)
    assert_is(found, name, nics_of(lab, name))
    assert len(found.keys) == 3
    if kind == "whole":
        assert_boots(lab, name, tmp_path)
    return found


@pytest.mark.parametrize("kind", ["whole", "wholedisk"])
def test_the_life_of_an_identity(whole: Lab, tmp_path: Path, quiet: list[str], kind: str) -> None:
    """Two instances at once; the first is renamed at once and, after a boot, again, exported, imported, reinstalled."""
    lab = whole
    first, second, between, renamed, copy, other = (f"{kind}{number}.lab.example" for number in "abcdef")
    quiet += add_at_once(lab, first, second, os=f"image+{kind}")
    quiet.append(rename(lab, first, between))
    before, beside = facts(lab, between, tmp_path, kind), facts(lab, second, tmp_path, kind)
    assert before.machine_id == beside.machine_id == ""  # systemd makes one when it boots
    assert not before.keys & beside.keys
    with _changed_root(lab, between, tmp_path) as point:
        (point / "etc/machine-id").write_text(f"{BOOTED_ID}\n")
    quiet.append(rename(lab, between, renamed))
    original = facts(lab, renamed, tmp_path, kind)
    assert_gone(original, first, between, *(name.partition(".")[0] for name in (first, between)))
    assert original == replace(before, host_name=original.host_name, hosts=original.hosts, machine_id=BOOTED_ID)

    export(lab, renamed, said=quiet)
    was = renamed, original.host_name, nics_of(lab, renamed)[0].ip, nics_of(lab, renamed)[0].mac
    quiet.append(backup_import(lab, renamed, copy, nics=NICS, sizes=("800M",)))
    restored = facts(lab, copy, tmp_path, kind)
    assert_gone(restored, *was)
    assert (restored.keys, restored.machine_id) == (original.keys, BOOTED_ID)
    if kind == "wholedisk":  # one of the two will do: it is a rename of what was restored
        quiet.append(backup_import(lab, renamed, other, "-O", "import_identity=new", nics=NICS))
        new = facts(lab, other, tmp_path, kind)
        assert_gone(new, *was)
        assert new.machine_id == ""
        assert not new.keys & original.keys

    quiet.append(lab.succeed("gnt-instance", "reinstall", "-f", renamed))
    reinstalled = facts(lab, renamed, tmp_path, kind)
    assert reinstalled.machine_id == ""
    assert not reinstalled.keys & (original.keys | beside.keys)
    assert reinstalled.network == original.network


@contextmanager
def _changed_root(lab: Lab, name: str, tmp_path: Path) -> Iterator[Path]:
    """Mount the root as a guest that runs has it, to be changed."""
    disk = lab.written_disk(name)
    place = partitions(str(disk))[-1]
    with loop(disk, place["offset"], place["length"]) as device, mounted_at(device, tmp_path / "changed") as point:
        yield point


def test_a_guest_that_was_attacked(whole: Lab, tmp_path: Path) -> None:
    """Its network's files and keys lead to the node's: neither a rename nor a reinstall touches anything there."""
    lab, name, renamed = whole, "attacked.lab.example", "defended.lab.example"
    add_at_once(lab, name, os="image+whole")
    trap = lab.path("/srv/ganeti/trap")
    for path in ("network/interfaces", "ssh/ssh_host_rsa_key", "udev/70-ganeti-nics.rules", "hosts", "machine-id"):
        (trap / path).parent.mkdir(parents=True, exist_ok=True)
        (trap / path).write_text("auto eth0\niface eth0 inet static\n address 198.51.100.2/24\n")
    before = contents(trap)
    with _changed_root(lab, name, tmp_path) as point:
        for path, of_node in {
            "etc/network": "network",
            "etc/ssh": "ssh",
            "etc/udev/rules.d": "udev",
            "etc/hosts": "hosts",
            "etc/machine-id": "machine-id",
        }.items():
            (point / path).rename(point / f"{path}.theirs")
            (point / path).symlink_to(f"/srv/ganeti/trap/{of_node}")
    said = rename(lab, name, renamed)
    assert contents(trap) == before, said
    assert "/etc/udev/rules.d: cannot be made" in said  # which the log and the client name, and nothing is written
    with root_of(lab, renamed, tmp_path) as point:
        assert (point / "etc/hostname").read_text() == "attacked\n"
    lab.succeed("gnt-instance", "reinstall", "-f", renamed)
    assert contents(trap) == before
    facts(lab, renamed, tmp_path, "whole")


def test_identity_no_leaves_all_as_the_image_has_it(whole: Lab, tmp_path: Path, quiet: list[str]) -> None:
    """What differs then is what the kernel writes when it mounts: nothing in the files."""
    lab, name = whole, "nobody.lab.example"
    quiet.append(lab.succeed(*add_command(name, "-O", "identity=no", os="image+wholedisk", nics=NICS)))
    image = tmp_path / "image.raw"
    found = next(lab.path(IMAGES).glob("whole-debian-*.qcow2"))
    subprocess.run(["qemu-img", "convert", "-O", "raw", found, image], check=True)
    (place,) = partitions(str(image))
    with inside(str(image), place, tmp_path) as point:
        expected = contents(point)
    with root_of(lab, name, tmp_path) as point:
        assert contents(point) == expected


def test_access_by_private_parameters(whole: Lab, tmp_path: Path, quiet: list[str]) -> None:
    """They are on the disk, and neither in a log nor in what Ganeti tells of the instance."""
    lab, name = whole, "private.lab.example"
    private = f"--os-parameters-private=authorized_keys={KEY}"
    quiet.append(lab.succeed(*add_command(name, private, os="image+whole", nics=NICS)))
    with root_of(lab, name, tmp_path) as point:
        assert (point / "root/.ssh/authorized_keys").read_text() == f"{KEY}\n"
        assert (point / "root/.ssh/authorized_keys").stat().st_mode & 0o777 == 0o600
        assert "root:*:" in (point / "etc/shadow").read_text()
    assert not [log for log in lab.path("/var/log/ganeti/os").glob("*.log") if KEY in log.read_text()]


def test_the_nics_as_ganeti_passes_them(whole: Lab, tmp_path: Path) -> None:
    """What a script of the administrator's gets is what Ganeti passed: of it, the addresses of the NICs are read."""
    lab, name, scripts, told = whole, "told.lab.example", f"{SYSCONFDIR}/environment.d", "/srv/ganeti/environment"
    lab.add_script(f"{scripts}/print", f"#!/bin/sh\nexec env -0 >{told}\n")
    lab.publish("told", IMAGE_NAME="whole-debian", IMAGE_TYPE="qcow2", CUSTOMIZE_DIR=scripts)
    alone = "ip=2001:db8:7::7,mac=generate"
    lab.succeed(*add_command(name, os="image+told", nics=(*NICS, alone)))
    pairs = (item.partition("=") for item in lab.path(told).read_text().split("\0") if item)
    passed = {key: value for key, _, value in pairs}
    expected = {"NETWORK_NAME": NETWORK, "NETWORK_SUBNET": SUBNET, "NETWORK_GATEWAY": GATEWAY}
    expected |= {"NETWORK_SUBNET6": SUBNET6, "NETWORK_GATEWAY6": GATEWAY6, "MODE": "bridged", "BRIDGE": BRIDGE}
    assert {key: passed.get(f"NIC_0_{key}") for key in expected} == expected
    assert "NIC_1_IP" not in passed
    known = nics_of(lab, name)
    read = nic_networks(parse_request("create", [], passed), Settings.from_layers([]))
    assert [nic.mac for nic in read] == [nic.mac for nic in known]
    assert known[0].ip is not None
    first = NewAddress(ipaddress.ip_address(known[0].ip), ipaddress.ip_network(SUBNET), ipaddress.ip_address(GATEWAY))
    assert [nic.addresses for nic in read] == [
        (first,),
        (),
        (NewAddress(ipaddress.ip_address("2001:db8:7::7")),),
    ]


@pytest.fixture
def kvm(whole: Lab) -> Iterator[Lab]:
    """The lab with the hypervisor KVM, which starts nothing here; its instances go at the end."""
    whole.succeed("gnt-cluster", "modify", "--enabled-hypervisors=fake,kvm", "-H", "kvm:kernel_path=,initrd_path=")
    yield whole
    listed = whole.succeed("gnt-instance", "list", "--no-headers", "-o", "name,hypervisor")
    for name in (line.split()[0] for line in listed.splitlines() if line.split()[1] == "kvm"):
        whole.succeed("gnt-instance", "remove", "-f", "--shutdown-timeout=0", name)
    whole.succeed("gnt-cluster", "modify", "--enabled-hypervisors=fake")


def test_the_serial_console_is_a_parameter_of_the_hypervisor(kvm: Lab, tmp_path: Path) -> None:
    """The menu of the instance that has one shows it there, after a rename, too; the other's does not."""
    lab, names = kvm, {"true": "serial.lab.example", "false": "silent.lab.example"}
    menus = {}
    for value, name in names.items():
        lab.succeed(*add_command(name, "-H", f"kvm:serial_console={value}", os="image+whole", nics=NICS))
        menus[value], _ = menu_and_fstab(lab, name, tmp_path)
    assert "console=ttyS0" in menus["true"]
    assert "console=ttyS0" not in menus["false"]
    said = rename(lab, names["true"], "serial2.lab.example")
    assert "console=ttyS0" in menu_and_fstab(lab, "serial2.lab.example", tmp_path)[0], said
