# SPDX-License-Identifier: MIT
"""The written network is brought up by the programs of the guest: ifup, busybox, networkd, netplan before it."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.fixtures.guests import GuestFiles
from tests.fixtures.network_guests import ALPINE, ARCH, DEBIAN_CLOUD, DEBIAN_INSTALLED, System, nic, without_udev
from tests.fixtures.network_namespaces import Configured, configured
from tests.fixtures.programs import Tool

pytestmark = pytest.mark.root

ADDRESSES = ["198.51.100.7/24", "2001:db8::7/64"]
SECOND = nic(1, "203.0.113.9", subnet="203.0.113.0/25", gateway="203.0.113.1")
INSIDE, OUTSIDE = "198.51.100.1", "192.0.2.1"

# In a container as in a boot; ready is when every address is there.
NETWORKD = """
mount -t tmpfs -o mode=755 tmpfs /etc/systemd/network
cp "$1"/*.network /etc/systemd/network/
chmod 644 /etc/systemd/network/*
echo 0123456789abcdef0123456789abcdef > /run/machine-id
test -e /etc/machine-id || touch /etc/machine-id
mount --bind /run/machine-id /etc/machine-id
mkdir -p /run/systemd/netif/links /run/systemd/netif/leases /run/systemd/netif/lldp
chown -R systemd-network /run/systemd/netif
/lib/systemd/systemd-networkd &
daemon=$!
for try in $(seq 100); do
  test "$(ip -o addr show scope global | grep -cv tentative)" -ge 3 && ip -6 route | grep -q ^default && break
  sleep 0.1
done
kill "$daemon"
"""
# A veth has no driver, by which the rule tells a NIC from a VLAN on it.
UDEV = """
mkdir -p /run/udev/rules.d
sed 's/DRIVERS=="?[*]", //' "${1%/network/*}"/udev/rules.d/70-ganeti-nics.rules > /run/udev/rules.d/70-ganeti-nics.rules
for pair in ens3/nic0 ens4/nic1; do
  # As systemd 252 prints it, which renames, too, and 257, which does not.
  udevadm test -a add "/sys/class/net/${pair%/*}" 2>&1 | grep -qE "INTERFACE=${pair#*/}$|^  ${pair#*/}$"
  ip link set "${pair%/*}" name "${pair#*/}" 2>&- || test -e "/sys/class/net/${pair#*/}"
done
"""
IFUP = 'mkdir -p /run/network; ifup -a -i "$1" --state-dir=/run/network'
BUSYBOX = 'mkdir -p /run /run/network; busybox ifup -a -i "$1"'


def become(system: System, directory: Path, gateway: str) -> GuestFiles:
    guest = system.make(directory)
    guest.tell("instances/inst2.example.net", "ADDRESS=198.51.100.7\nADDRESS6=2001:db8::7\nSUBNET=lan\n")
    guest.tell("subnets/lan", f"NETMASK=24\nGATEWAY={gateway}\nNETMASK6=64\nGATEWAY6=2001:db8::1\n")
    guest.become("", "", **nic(0), **SECOND)
    return guest


def expected(gateway: str, first: str, second: str) -> Configured:
    return Configured(
        {first: ADDRESSES, second: ["203.0.113.9/25"]},
        [f"default {gateway} {first}", f"default 2001:db8::1 {first}"],
    )


@pytest.mark.parametrize("gateway", [INSIDE, OUTSIDE])
def test_ifupdown_by_the_names_that_udev_gives(tmp_path: Path, tool: Tool, gateway: str) -> None:
    tool("ifup")
    tool("udevadm")
    guest = become(DEBIAN_INSTALLED, tmp_path, gateway)
    found = configured(tool, UDEV + IFUP, guest.root / "etc/network/interfaces", names=("nic0", "nic1"))
    assert found == expected(gateway, "nic0", "nic1")


def test_ifupdown_without_udev_finds_the_nics_by_their_mac_addresses(tmp_path: Path, tool: Tool) -> None:
    tool("ifup")
    guest = become(without_udev(), tmp_path, INSIDE)
    found = configured(tool, IFUP, guest.root / "etc/network/interfaces")
    assert found == expected(INSIDE, "ens3", "ens4")


@pytest.mark.parametrize("gateway", [INSIDE, OUTSIDE])
def test_busybox_as_on_alpine(tmp_path: Path, tool: Tool, gateway: str) -> None:
    tool("busybox")
    guest = become(ALPINE, tmp_path, gateway)
    found = configured(tool, BUSYBOX, guest.root / "etc/network/interfaces", names=("eth0", "eth1"))
    assert found == expected(gateway, "eth0", "eth1")


@pytest.mark.parametrize("gateway", [INSIDE, OUTSIDE])
def test_networkd_takes_our_files_before_the_images(tmp_path: Path, tool: Tool, gateway: str) -> None:
    guest = become(ARCH, tmp_path, gateway)
    assert (guest.root / "etc/systemd/network/20-ethernet.network").exists()
    found = configured(tool, NETWORKD, guest.root / "etc/systemd/network")
    assert found == expected(gateway, "ens3", "ens4")


def test_netplan_gives_it_to_networkd(tmp_path: Path, tool: Tool) -> None:
    netplan = tool("netplan")
    guest = become(DEBIAN_CLOUD, tmp_path, OUTSIDE)
    # A veth's address is not one that its hardware has for good, as that of a virtual machine's NIC is.
    generate = f'{netplan} generate --root-dir={guest.root}\nsed -i s/^Permanent// "$1"/*\n'
    found = configured(tool, generate + NETWORKD, guest.root / "run/systemd/network")
    assert found == expected(OUTSIDE, "ens3", "ens4")
