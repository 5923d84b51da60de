# SPDX-License-Identifier: MIT
"""A real cloud-init boots with the seed on a CIDATA volume; test_booting_clouds has the one in the root.

Two boots, with a rename in between: under the same keys the system has its new name everywhere and answers at its new
address.
"""

from __future__ import annotations

from dataclasses import replace
from ipaddress import IPv4Address, IPv4Network, ip_address
from pathlib import Path

import pytest

from ganeti_os.guest.facts.instance import Facts
from ganeti_os.guest.facts.nics import NewAddress, NicNetwork
from ganeti_os.guest.seed_volume import renew_seed_volume, seed_volume
from ganeti_os.settings.settings import Layer, Settings
from pydiskimg.images.open_disk import open_disk
from tests.boot.conftest import Systems
from tests.fixtures.bootable_debian import CLOUD_13, PASSWORD
from tests.fixtures.bootable_images import CLOUD, BootableImage, bootable_image
from tests.fixtures.node import Node
from tests.fixtures.virtual_machine import Machine, Nic, running

# The system is made first, by one of the processes that need it.
pytestmark = [pytest.mark.boot, pytest.mark.root, pytest.mark.timeout(1800)]

OLD, NEW = "cloud1.example.org", "renamed2.example.net"
NIC = Nic(
    "aa:00:00:c1:0d:01", IPv4Address("198.51.100.71"), IPv4Network("198.51.100.0/24"), IPv4Address("198.51.100.1")
)
MOVED = replace(NIC, address=IPv4Address("198.51.100.72"))
KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIAABAgMEBQYHCAkKCwwNDg8QERITFBUWFxgZGhscHR4f owner"


@pytest.fixture
def image(systems: Systems) -> BootableImage:
    return bootable_image(systems(CLOUD_13), CLOUD)


def instance_disk(directory: Path) -> Path:
    disk = directory / "disk"
    with disk.open("wb") as file:
        file.truncate(2 << 30)
    return disk


def node_of(directory: Path, image: BootableImage, **settings: str) -> Node:
    name = image.qcow2.name.removesuffix("-x86_64.qcow2")
    return Node.make(
        directory / "node", IMAGE_DIR=str(image.directory), IMAGE_NAME=name, IMAGE_TYPE="qcow2", **settings
    )


def boot(disk: Path, name: str, nic: Nic, log: Path) -> dict[str, str]:
    """Boot the system, which has to be the instance, and return what two boots of it are compared by."""
    with running(disk, nic, log) as machine:
        machine.login(name.partition(".")[0], PASSWORD)
        assert machine.wait_until_up() == "running", machine.run("systemctl --failed")
        assert machine.run("hostname -f") == name
        assert machine.run("cat /etc/hostname") in (name, name.partition(".")[0])
        _check_hosts(machine, name)
        assert f"inet {nic.address}/{nic.network.prefixlen} " in machine.run("ip -4 addr show dev eth0")
        assert f"default via {nic.gateway} dev eth0" in machine.run("ip -4 route")
        found = {"keys": machine.run("cat /etc/ssh/ssh_host_*_key.pub"), "datasource": machine.run("cloud-id")}
        assert (shown := machine.host_keys())
        assert [key for key in shown if key not in found["keys"]] == []
        found["id"] = machine.run("cat /var/lib/cloud/data/instance-id")
        found["root's keys"] = machine.try_run("cat /root/.ssh/authorized_keys")[1]
        assert machine.try_run("cloud-init status --long")[1].count("errors: []") == 1
        machine.power_off()
    return found


def _check_hosts(machine: Machine, name: str) -> None:
    hosts = machine.run("grep -v '^#' /etc/hosts")
    words = hosts.split()
    assert name in words, hosts
    assert not {OLD, NEW, "packed-debian"} - {name} & set(words), hosts


def test_a_seed_on_a_volume(tmp_path: Path, image: BootableImage) -> None:
    """The root stays as its image made it: as if the node's kernel could not read it."""
    disk = instance_disk(tmp_path)
    done = node_of(tmp_path, image, IDENTITY="no").create(disk, INSTANCE_NAME=OLD)
    assert done.returncode == 0, done.stderr
    address = NewAddress(ip_address(NIC.address), NIC.network, NIC.gateway)
    nic = NicNetwork(0, NIC.mac, (address,))
    facts = Facts(name=OLD, old_name=None, uuid="5eed", is_new=True, nics=(nic,))
    settings = Settings.from_layers([Layer("test", {"AUTHORIZED_KEYS": KEY})])
    with open_disk(disk, writable=True) as opened:
        assert seed_volume(opened, facts, settings)
    first = boot(disk, OLD, NIC, tmp_path / "first.log")
    assert (first["id"], first["datasource"]) == (f"5eed-{OLD}", "nocloud")
    assert KEY in first["root's keys"].splitlines()
    moved = replace(nic, addresses=(replace(address, address=MOVED.address),))
    with open_disk(disk, writable=True) as opened:
        assert renew_seed_volume(opened, Facts(name=NEW, old_name=OLD, uuid="5eed", is_new=False, nics=(moved,)))
    assert boot(disk, NEW, MOVED, tmp_path / "second.log") == first
