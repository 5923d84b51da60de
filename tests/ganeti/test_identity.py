# SPDX-License-Identifier: MIT
"""The instance is itself, by the real client: names, addresses of Ganeti's networks, keys and boot, on the disks."""

from __future__ import annotations

import ipaddress
import lzma
import shlex
import struct
from collections.abc import Iterator
from pathlib import Path

import pytest

from ganeti_os.guest.network.new_addresses import NewAddress, nic_networks
from ganeti_os.protocol import parse_request
from ganeti_os.settings import Settings
from tests.fixtures.debian_system import DebianSystem
from tests.fixtures.ganeti_lab import BRIDGE, IMAGES, SYSCONFDIR, Lab
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
from tests.fixtures.growing import loop, mounted_at
from tests.fixtures.judges import partitions
from tests.fixtures.whole_debian import GRUB, MACHINE_ID, make_whole_debian

pytestmark = pytest.mark.ganeti
NETWORK, SUBNET, GATEWAY = "proof", "198.51.100.0/24", "198.51.100.1"
SUBNET6, GATEWAY6 = "2001:db8:100::/64", "2001:db8:100::1"
NICS = (f"ip=pool,network={NETWORK},mac=generate", "mac=generate")
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
    told = [f"{name}: {line}" for name, log in logs.items() for line in log.splitlines() if "warning" in line.lower()]
    assert told == []
    assert [line for line in "\n".join(said).splitlines() if "warning" in line.lower()] == []


def add_at_once(lab: Lab, *names: str, os: str) -> list[str]:
    """Add instances at the same time; returns what the client says of each."""
    clients = [lab.start(*add_command(name, os=os, nics=NICS)) for name in names]
    said = [client.communicate()[0] for client in clients]
    assert [client.returncode for client in clients] == [0] * len(names), said
    return said


def assert_is(found: Identity, name: str, nics: list[Nic]) -> None:
    """The system has the name, and of its NICs in the network and beside it the addresses and nothing else."""
    assert found.host_name == name.partition(".")[0]
    assert found.own_line[1:3] == (name, found.host_name)
    assert ("192.0.2.77", "backup") in found.hosts
    text = found.network_text()
    assert nics[0].ip is not None
    assert ipaddress.ip_address(nics[0].ip) in ipaddress.ip_network(SUBNET)
    assert nics[0].ip in text
    assert GATEWAY in text
    assert [text.lower().count(nic.mac) for nic in nics[:1]] != [0]


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


@pytest.mark.parametrize("kind", ["whole", "wholedisk"])
def test_the_life_of_an_identity(whole: Lab, tmp_path: Path, quiet: list[str], kind: str) -> None:
    """Two instances at once; the first is renamed at once and again, exported, imported, and reinstalled."""
    lab = whole
    first, second, renamed, again, copy, other = (f"{kind}{number}.lab.example" for number in "abcdef")
    quiet += add_at_once(lab, first, second, os=f"image+{kind}")
    quiet.append(rename(lab, first, renamed))
    nics = {name: nics_of(lab, name) for name in (renamed, second)}
    found = {name: identity_of(lab, name, tmp_path) for name in nics}
    for name, identity in found.items():
        assert_is(identity, name, nics[name])
        assert identity.machine_id in ("", "uninitialized")
    print(found[renamed])
    assert len(found[renamed].keys) == len(found[second].keys) == 3
    assert not found[renamed].keys & found[second].keys
