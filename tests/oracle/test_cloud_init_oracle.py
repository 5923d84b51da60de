# SPDX-License-Identifier: MIT
"""cloud-init itself judges what is written for it, and boots it in a namespace: its stages over a Debian's files.

A boot in a virtual machine is in tests/boot; here the same stages take seconds, without a kernel and systemd of their
own. The files are those of the system that the boots use.
"""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from ipaddress import ip_address, ip_interface
from pathlib import Path

import pytest

from ganeti_os.guest.cloud_init import NO_USER_DATA
from ganeti_os.guest.facts.instance import Facts
from ganeti_os.guest.facts.nics import NewAddress, NicNetwork
from ganeti_os.guest.network.cloud_config import network_config
from ganeti_os.guest.seed_volume import own_configuration
from tests.boot.conftest import WORK
from tests.conftest import need
from tests.fixtures.bootable_debian import CLOUD_13, bootable_debian

pytestmark = [pytest.mark.oracle, pytest.mark.root, pytest.mark.timeout(1800)]
Tool = Callable[[str], str]

KEY = 'ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIAABAgMEBQYHCAkKCwwNDg8QERITFBUWFxgZGhscHR4f an owner\'s: "key"'
HASH = "$6$salt$" + "x" * 86
_SET_UP = """
mount --make-rprivate /
mount -t overlay overlay -o "lowerdir=$1,upperdir=$2/upper,workdir=$2/work" "$2/root"
cd "$2/root"
mount -t proc proc proc
mount -t sysfs sysfs sys
mount -t tmpfs tmpfs run
mount --bind /dev dev
ip link set lo up
ip link add ens3 address aa:00:00:11:22:33 type veth peer name outside
"""
_BOOT = """
/usr/lib/cloud-init/ds-identify --force || exit 1
for stage in "init --local" init modules\\ --mode=config modules\\ --mode=final; do
  cloud-init $stage >/run/said 2>&1 || { echo "cloud-init $stage:"; cat /run/said; }
done
hostname; hostname -f; cat /etc/hostname
cat /etc/ssh/ssh_host_*_key.pub | sha256sum
"""


def known(text: str, gateway: str) -> NewAddress:
    interface = ip_interface(text)
    return NewAddress(interface.ip, interface.network, ip_address(gateway))


BOTH = NicNetwork(
    0,
    "AA:00:00:11:22:33",
    (known("192.0.2.10/24", "192.0.2.1"), known("2001:db8::10/64", "2001:db8::1")),
    (ip_address("192.0.2.53"), ip_address("2001:db8::53")),
    ("example.org",),
)
OUTSIDE = NicNetwork(1, "aa:00:00:11:22:34", (known("203.0.113.9/32", "198.51.100.1"),))
ASKS = NicNetwork(2, "aa:00:00:11:22:35")


@dataclass(frozen=True, slots=True)
class Guest:
    """A Debian with cloud-init: base is never changed, what is written goes into directory/upper."""

    base: Path
    directory: Path

    def run(self, script: str, *, before: str = "") -> str:
        """Run a script in the system, in namespaces that end with it; before is run outside, in the system's root."""
        inside = f"export PATH=/usr/sbin:/usr/bin:/sbin:/bin PYTHONDONTWRITEBYTECODE=1\n{script}"
        whole = f"set -eu\n{_SET_UP}\n{before}\nhostname $(cat etc/hostname)\nexec chroot . sh -c {shlex.quote(inside)}"
        command = ("unshare", "--mount", "--pid", "--fork", "--uts", "--net", "--kill-child", "sh", "-c", whole, "sh")
        words = [*command, str(self.base), str(self.directory)]
        done = subprocess.run(words, capture_output=True, text=True, check=False, timeout=300)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def write(self, path: str, data: bytes | str) -> None:
        file = self.directory / "upper" / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(data if isinstance(data, bytes) else data.encode())


@pytest.fixture
def guest(tmp_path: Path, tool: Tool) -> Guest:
    for name in ("mmdebstrap", "unshare", "ip"):
        tool(name)
    need("overlay" in Path("/proc/filesystems").read_text(), "this kernel has no overlay file system")
    WORK.mkdir(exist_ok=True)
    for name in ("upper", "work", "root"):
        (tmp_path / name).mkdir()
    return Guest(bootable_debian(WORK, CLOUD_13).tree, tmp_path)


def test_schemas(guest: Guest) -> None:
    guest.write("seed/none", NO_USER_DATA)
    guest.write("seed/own", own_configuration(HASH, (KEY,)))
    guest.write("seed/plain", own_configuration("", ()))
    guest.write("seed/network", network_config((BOTH, OUTSIDE, ASKS)))
    said = guest.run(
        "for f in none own plain; do cloud-init schema -c /seed/$f; done\n"
        "cloud-init schema -t network-config -c /seed/network"
    )
    assert said.count("Valid schema") == 4, said


def test_renderers(guest: Guest) -> None:
    guest.write("seed/network", network_config((BOTH, OUTSIDE, ASKS)))
    guest.write("seed/outside", network_config((OUTSIDE,)))  # alone, it has the default route
    convert = "cloud-init devel net-convert -p /seed/network -k yaml -D debian"
    said = guest.run(
        f"{convert} -d / -O netplan\n{convert} -d /nm -O network-manager\n{convert} -d /red -O sysconfig -D fedora\n"
        "/usr/libexec/netplan/generate\n"
        "ls /run/systemd/network/*; cat /run/systemd/network/*-eth?.network\n"
        "cat /nm/etc/NetworkManager/system-connections/*; cat /red/etc/sysconfig/*/*\n"
        "cloud-init devel net-convert -p /seed/outside -k yaml -D debian -d / -O netplan\n"
        "/usr/libexec/netplan/generate; cat /run/systemd/network/*-0-eth1.network\n"
    )
    expected = (
        *("PermanentMACAddress=aa:00:00:11:22:33", "Address=192.0.2.10/24", "Address=2001:db8::10/64"),
        *("DNS=192.0.2.53", "DNS=2001:db8::53", "Domains=example.org", "DHCP=ipv4"),
        "[Route]\nDestination=0.0.0.0/0\nGateway=192.0.2.1\n",
        "[Route]\nDestination=::/0\nGateway=2001:db8::1\n",
        "[Route]\nDestination=0.0.0.0/0\nGateway=198.51.100.1\nGatewayOnLink=true\n",
        *("address1=192.0.2.10/24", "route1=0.0.0.0/0,192.0.2.1", "route1=::/0,2001:db8::1", "address1=203.0.113.9/32"),
        *("IPADDR=192.0.2.10", "GATEWAY=192.0.2.1", "IPV6_DEFAULTGW=2001:db8::1", "HWADDR=aa:00:00:11:22:34"),
    )
    files = [line for line in said.splitlines() if line.endswith(".network")]
    assert files[0] == "/run/systemd/network/10-netplan-0-eth0.network"
    assert files[-1] == "/run/systemd/network/10-netplan-all-en.network", "networkd takes the first one that matches"
    assert [text for text in expected if text not in said] == [], said


@pytest.mark.parametrize("datasources", ["[ NoCloud, ConfigDrive, None ]", "[ Ec2 ]"])
def test_two_boots_with_a_rename(guest: Guest, datasources: str) -> None:
    """The same keys and instance-id, a new name in every place, a new address; the image rewrites /etc/hosts."""
    guest.write("etc/cloud/cloud.cfg.d/01_image.cfg", f"manage_etc_hosts: true\ndatasource_list: {datasources}\n")
    first = Facts(name="inst1.example.org", old_name=None, uuid="5eed", is_new=True, nics=(BOTH,))
    moved = replace(BOTH, addresses=(known("192.0.2.11/24", "192.0.2.1"), *BOTH.addresses[1:]))
    second = replace(first, name="web.example.net", old_name=first.name, is_new=False, nics=(moved,))
    booted = [_boot(guest, facts) for facts in (first, second)]
    assert booted[0][:3] == ["inst1", "inst1.example.org", "inst1"]
    assert booted[1][:3] == ["web", "web.example.net", "web"]
    assert booted[0][3] == booted[1][3]
    assert (guest.directory / "upper/var/lib/cloud/data/instance-id").read_text().strip() == "5eed-inst1.example.org"
    hosts = (guest.directory / "upper/etc/hosts").read_text()
    assert "127.0.1.1 web.example.net web\n" in hosts
    assert "inst1" not in hosts
    netplan = (guest.directory / "upper/etc/netplan/50-cloud-init.yaml").read_text()
    assert "192.0.2.11/24" in netplan
    assert "192.0.2.10/24" not in netplan
    # A boot without a rename changes nothing.
    assert guest.run(_BOOT).splitlines() == booted[1]


def _boot(guest: Guest, facts: Facts) -> list[str]:
    """Let the system become the instance, and boot it; returns the names and the keys that it has then."""
    root, python = shlex.quote(os.fspath(Path(__file__).parents[2])), shlex.quote(sys.executable)
    (guest.directory / "facts").write_text(repr(facts))
    before = f"PYTHONPATH={root} {python} -m tests.fixtures.becoming . {guest.directory}/facts >&2"
    return guest.run(_BOOT, before=before).splitlines()
