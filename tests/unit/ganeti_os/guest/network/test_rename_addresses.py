# SPDX-License-Identifier: MIT
"""rename and static addresses: in each format what is replaced, and what is left because it is in doubt."""

from __future__ import annotations

import logging
import os
import tempfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ganeti_os.guest.network.files import NetworkFiles
from ganeti_os.guest.network.netplan import netplan_interfaces
from ganeti_os.settings.shellfile import SettingsError
from pydiskimg.errors import DiskImageError
from pydiskimg.system.edits.draft import Draft
from tests.fixtures.guests import NEW, OLD, GuestFiles

Files = dict[str, str | bytes]
NETWORK = {"NIC_0_NETWORK_SUBNET": "198.51.100.0/26", "NIC_0_NETWORK_GATEWAY": "198.51.100.62"}

DEBIAN: Files = {
    "/etc/network/interfaces": "# The loopback network interface\nauto lo\niface lo inet loopback\n\n"
    "# The primary network interface\nallow-hotplug ens3\niface ens3 inet static\n\taddress 192.0.2.10/24\n"
    "\tgateway 192.0.2.1\n\t# dns-* options are implemented by the resolvconf package, if installed\n"
    "\tdns-nameservers 192.0.2.1\n\tdns-search example.org\n",
}
DEBIAN_OLD: Files = {
    "/etc/network/interfaces": "source /etc/network/interfaces.d/*\n\nauto lo\niface lo inet loopback\n",
    "/etc/network/interfaces.d/eth0": "auto eth0\niface eth0 inet static\n    address 192.0.2.10\n"
    "    netmask 255.255.255.0\n    network 192.0.2.0\n    broadcast 192.0.2.255\n    gateway 192.0.2.1\n"
    "    up ip route add 203.0.113.0/24 via 192.0.2.1\n",
}
CENTOS_6: Files = {
    "/etc/sysconfig/network": "NETWORKING=yes\nHOSTNAME=inst1.example.org\nGATEWAY=192.0.2.1\n",
    "/etc/sysconfig/network-scripts/ifcfg-eth0": 'DEVICE="eth0"\nBOOTPROTO="static"\nIPADDR="192.0.2.10"\n'
    'NETMASK="255.255.255.0"\nDNS1="192.0.2.1"\nONBOOT="yes"\n',
    "/etc/sysconfig/network-scripts/ifcfg-lo": "DEVICE=lo\nIPADDR=127.0.0.1\nNETMASK=255.0.0.0\n",
    "/etc/sysconfig/network-scripts/ifcfg-eth0.bak": "DEVICE=eth0\nIPADDR=203.0.113.1\n",
}
CENTOS_7: Files = {
    "/etc/sysconfig/network-scripts/ifcfg-ens3": "TYPE=Ethernet\nBOOTPROTO=none\nNAME=ens3\nDEVICE=ens3\nONBOOT=yes\n"
    "IPADDR0=192.0.2.10\nPREFIX0=24\nGATEWAY0=192.0.2.1\nIPV6INIT=yes\n",
}
ROCKY_9: Files = {
    "/etc/NetworkManager/system-connections/ens3.nmconnection": "[connection]\nid=ens3\ntype=ethernet\n"
    "interface-name=ens3\n\n[ethernet]\n\n[ipv4]\naddress1=192.0.2.10/24,192.0.2.1\ndns=192.0.2.1;\nmethod=manual\n\n"
    "[ipv6]\naddr-gen-mode=eui64\nmethod=auto\n",
}
FEDORA: Files = {
    "/etc/NetworkManager/system-connections/Wired.nmconnection": "[connection]\nid=Wired\ntype=ethernet\n\n[ipv4]\n"
    "address1=192.0.2.10/24\ngateway=192.0.2.1\nmethod=manual\n",
}
UBUNTU: Files = {
    "/etc/netplan/00-installer-config.yaml": "# This is the network config written by 'subiquity'\nnetwork:\n"
    "  ethernets:\n    ens3:\n      addresses:\n      - 192.0.2.10/24\n      nameservers:\n        addresses:\n"
    "        - 192.0.2.1\n        search: [example.org]\n      routes:\n      - to: default\n        via: 192.0.2.1\n"
    "  version: 2\n",
}
UBUNTU_FLOW: Files = {
    "/etc/netplan/01.yaml": "network:\n  version: 2\n  ethernets:\n    ens3:\n      dhcp4: false\n"
    '      addresses: ["192.0.2.10/24"] # 192.0.2.10\n      gateway4: 192.0.2.1\n'
    "      nameservers: {addresses: [192.0.2.1]}\n      routes:\n        - via: 192.0.2.1\n"
    "          to: 203.0.113.0/24\n",
}
GENTOO: Files = {
    "/etc/conf.d/net": 'config_eth0="192.0.2.10/24"\nroutes_eth0="default via 192.0.2.1"\ndns_eth0="192.0.2.1"\n'
}
GENTOO_OLD: Files = {
    "/etc/conf.d/net": 'config_eth0=( "192.0.2.10 netmask 255.255.255.0 broadcast 192.0.2.255" )\n'
    'routes_eth0=(\n  "203.0.113.0/24 via 192.0.2.1"\n  "default gw 192.0.2.1"\n)\n',
}
OPENSUSE: Files = {
    "/etc/sysconfig/network/ifcfg-eth0": "BOOTPROTO='static'\nIPADDR='192.0.2.10/24'\nSTARTMODE='auto'\n",
    "/etc/sysconfig/network/routes": "default 192.0.2.1 - -\n203.0.113.0/24 192.0.2.1 - -\n",
}
NETWORKD: Files = {
    "/etc/systemd/network/10-ens3.network": "[Match]\nName=ens3\n\n[Network]\nAddress=192.0.2.10/24\n"
    "Gateway=192.0.2.1\nDNS=192.0.2.1\n\n[Route]\nDestination=203.0.113.0/24\nGateway=192.0.2.1\n",
}
SYSTEMS = {name: value for name, value in globals().items() if name.isupper() and isinstance(value, dict)}
del SYSTEMS["NETWORK"]


def system(name: str) -> Files:
    host = {} if "HOSTNAME" in str(SYSTEMS[name]) else {"/etc/hostname": "inst1\n"}
    return {
        "/etc/hosts": "127.0.0.1 localhost\n192.0.2.10 inst1.example.org inst1 # 192.0.2.10\n192.0.2.1 gw\n",
        **host,
        **SYSTEMS[name],
    }


def only_address(files: Files) -> Files:
    """The address replaced in plain text, and the names."""
    found = {path: str(text).replace("192.0.2.10", "192.0.2.77") for path, text in files.items()}
    found = {path: text.replace("inst1.example.org", NEW).replace("inst1", "inst2") for path, text in found.items()}
    return {path: text.replace("# 192.0.2.77", "# 192.0.2.10") for path, text in found.items()}


@pytest.mark.parametrize("name", SYSTEMS)
def test_the_address_alone(tmp_path: Path, name: str) -> None:
    guest = GuestFiles.make(tmp_path, system(name))
    for _ in range(2):
        guest.rename("192.0.2.77")
        assert guest.read() == only_address(system(name))


@pytest.mark.parametrize("name", SYSTEMS)
def test_nothing_known_changes_no_address(tmp_path: Path, name: str) -> None:
    guest = GuestFiles.make(tmp_path, system(name))
    guest.rename("", old=OLD, new=OLD)
    guest.rename(old=OLD, new=OLD)
    guest.rename("192.0.2.10", old=OLD, new=OLD, **NETWORK)
    assert guest.read() == system(name)


# What is in the files when the new network is known; resolvers and routes elsewhere keep what they have.
WHOLE = {
    "DEBIAN": ("address 198.51.100.5/26\n\tgateway 198.51.100.62", "dns-nameservers 192.0.2.1"),
    "DEBIAN_OLD": (
        "address 198.51.100.5\n    netmask 255.255.255.192\n    network 198.51.100.0\n    broadcast 198.51.100.63\n"
        "    gateway 198.51.100.62\n    up ip route add 203.0.113.0/24 via 192.0.2.1",
    ),
    "CENTOS_6": ('IPADDR="198.51.100.5"\nNETMASK="255.255.255.192"\nDNS1="192.0.2.1"', "GATEWAY=198.51.100.62"),
    "CENTOS_7": ("IPADDR0=198.51.100.5\nPREFIX0=26\nGATEWAY0=198.51.100.62",),
    "ROCKY_9": ("address1=198.51.100.5/26,198.51.100.62\ndns=192.0.2.1;",),
    "FEDORA": ("address1=198.51.100.5/26\ngateway=198.51.100.62",),
    "UBUNTU": ("- 198.51.100.5/26\n", "        - 192.0.2.1\n", "- to: default\n        via: 198.51.100.62"),
    "UBUNTU_FLOW": (
        'addresses: ["198.51.100.5/26"] # 192.0.2.10\n      gateway4: 198.51.100.62',
        "{addresses: [192.0.2.1]}",
        "- via: 192.0.2.1\n          to: 203",
    ),
    "GENTOO": ('"198.51.100.5/26"\nroutes_eth0="default via 198.51.100.62"\ndns_eth0="192.0.2.1"',),
    "GENTOO_OLD": (
        '"198.51.100.5 netmask 255.255.255.192 broadcast 198.51.100.63"',
        '"203.0.113.0/24 via 192.0.2.1"\n  "default gw 198.51.100.62"',
    ),
    "OPENSUSE": ("'198.51.100.5/26'", "default 198.51.100.62 - -\n203.0.113.0/24 192.0.2.1 - -"),
    "NETWORKD": ("Address=198.51.100.5/26\nGateway=198.51.100.62\nDNS=192.0.2.1", "113.0/24\nGateway=192.0.2.1"),
}


@pytest.mark.parametrize("name", SYSTEMS)
def test_the_whole_network(tmp_path: Path, name: str) -> None:
    guest = GuestFiles.make(tmp_path, system(name))
    for _ in range(2):
        guest.rename("198.51.100.5", **NETWORK)
        text = "".join(map(str, guest.read().values()))
        for part in WHOLE[name]:
            assert part in text
        assert "198.51.100.5 inst2.example.net inst2 # 192.0.2.10\n192.0.2.1 gw" in text


@pytest.mark.parametrize(
    ("line", "after"),
    [
        ("address1=192.0.2.10/24,192.0.2.1", "address1=198.51.100.5/26,198.51.100.62"),
        ("address=192.0.2.10/24", "address=198.51.100.5/26"),
        ("addresses=192.0.2.10/24", "addresses=198.51.100.5/26"),
        ("addresses1=192.0.2.10/24, 192.0.2.1", "addresses1=198.51.100.5/26, 198.51.100.62"),
        ("addresses1=192.0.2.10;24;192.0.2.1;", "addresses1=198.51.100.5;26;198.51.100.62;"),
        ("address1=192.0.2.10/24;192.0.2.1;", "address1=198.51.100.5/26;198.51.100.62;"),
        ("address1=192.0.2.10,24/192.0.2.1", "address1=198.51.100.5,26/198.51.100.62"),
        ("address1=192.0.2.10,192.0.2.1", "address1=198.51.100.5,198.51.100.62"),
        ("address12=192.0.2.10", "address12=198.51.100.5"),
        ("address-data=192.0.2.10", "address-data=192.0.2.10"),
    ],
)
def test_every_way_to_write_an_address_that_networkmanager_reads(tmp_path: Path, line: str, after: str) -> None:
    path = "/etc/NetworkManager/system-connections/ens3.nmconnection"
    head = "[connection]\nid=ens3\ninterface-name=ens3\n\n[ipv4]\nmethod=manual\n"
    guest = GuestFiles.make(tmp_path, {"/etc/hostname": "inst1\n", path: f"{head}{line}\n"})
    guest.rename("198.51.100.5", **NETWORK)
    assert guest.read()[path] == f"{head}{after}\n"


def eth(*addresses: str, first: int = 0, name: str = "eth") -> Files:
    stanzas = [f"iface {name}{first + n} inet static\n address {a}/24\n" for n, a in enumerate(addresses)]
    return {"/etc/hostname": "inst2\n", "/etc/network/interfaces": "".join(stanzas)}


def interfaces(guest: GuestFiles) -> list[str]:
    lines = str(guest.read()["/etc/network/interfaces"]).splitlines()
    return [line.split()[1].partition("/")[0] for line in lines if " address" in line]


@pytest.mark.parametrize(
    ("files", "ips", "after", "warned"),
    [
        (eth("10.0.0.1", "10.0.0.2"), ("10.0.0.3", "10.0.0.4"), ["10.0.0.3", "10.0.0.4"], ""),
        (eth("10.0.0.1", "10.0.0.2"), ("10.0.0.2", "10.0.0.1"), ["10.0.0.2", "10.0.0.1"], ""),
        (eth("10.0.0.1", "10.0.0.2"), ("", "10.0.0.4"), ["10.0.0.1", "10.0.0.4"], ""),
        (eth("10.0.0.1", first=1), ("10.0.0.3", ""), ["10.0.0.1"], "it is not clear which"),
        (eth("10.0.0.1", first=1), ("", "10.0.0.4"), ["10.0.0.4"], ""),
        (eth("10.0.0.1", "10.0.0.2", first=9, name="ens"), ("10.0.0.3", ""), ["10.0.0.3", "10.0.0.2"], ""),
        (eth("10.0.0.1", name="ens"), ("10.0.0.3", "10.0.0.4"), ["10.0.0.1"], "it is not clear which"),
        (eth("10.0.0.1", "10.0.0.2"), ("10.0.0.3",), ["10.0.0.1", "10.0.0.2"], "eth0 has 2 addresses"),
        (eth("10.0.0.1"), ("10.0.0.3",), ["10.0.0.3"], ""),
        (eth("10.0.0.1"), ("10.9.0.3",), ["10.9.0.3"], "10.9.0.3 is not in 10.0.0.0/24"),
        (eth("10.0.0.1"), ("nonsense",), ["10.0.0.1"], "which is not an IP address"),
        (eth("10.0.0.1"), ("2001:db8::1",), ["10.0.0.1"], ""),
        (eth("10.0.0.1", name="eth0:"), ("10.0.0.3",), ["10.0.0.3"], ""),
    ],
)
def test_which_interface(
    tmp_path: Path, files: Files, ips: tuple[str, ...], after: list[str], warned: str, caplog: pytest.LogCaptureFixture
) -> None:
    guest = GuestFiles.make(tmp_path, files)
    for _ in range(2):
        guest.rename(*ips)
        assert interfaces(guest) == after
    warnings = [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]
    assert bool(warnings) == bool(warned)
    assert warned in "".join(warnings)


def test_an_alias_is_a_second_address(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    files = eth("10.0.0.1")
    files["/etc/network/interfaces"] = (
        str(files["/etc/network/interfaces"]) + "iface eth0:1 inet static\n address 10.0.0.2\n"
    )
    guest = GuestFiles.make(tmp_path, files)
    guest.rename("10.0.0.3")
    assert interfaces(guest) == ["10.0.0.1", "10.0.0.2"]
    path = "/etc/network/interfaces"
    assert f"eth0 has 2 addresses; unchanged: {path}:2: 10.0.0.1, {path}:4: 10.0.0.2" in caplog.text


def test_both_families(tmp_path: Path) -> None:
    text = (
        "iface eth0 inet static\n address 10.0.0.1/24\n gateway 10.0.0.254\n"
        "iface eth0 inet6 static\n address 2001:db8::10\n netmask 64\n gateway 2001:db8::1\n"
    )
    guest = GuestFiles.make(tmp_path, {"/etc/hostname": "inst2\n", "/etc/network/interfaces": text})
    subnet = {"NIC_0_NETWORK_SUBNET6": "2001:db8:1::/56", "NIC_0_NETWORK_GATEWAY6": "2001:db8:1::1"}
    for _ in range(2):
        guest.rename("2001:db8:1::5", **subnet)
        assert guest.read()["/etc/network/interfaces"] == (
            "iface eth0 inet static\n address 10.0.0.1/24\n gateway 10.0.0.254\n"
            "iface eth0 inet6 static\n address 2001:db8:1::5\n netmask 56\n gateway 2001:db8:1::1\n"
        )


def test_families_in_one_file(tmp_path: Path) -> None:
    path = "/etc/sysconfig/network-scripts/ifcfg-eth0"
    text = "IPADDR=10.0.0.1\nPREFIX=24\nIPV6ADDR=2001:db8::10/64\nIPV6_DEFAULTGW=2001:db8::1\nGATEWAY=10.0.0.254\n"
    guest = GuestFiles.make(tmp_path, {"/etc/hostname": "inst2\n", path: text})
    guest.rename("198.51.100.5", **NETWORK)
    assert guest.read()[path] == (
        "IPADDR=198.51.100.5\nPREFIX=26\nIPV6ADDR=2001:db8::10/64\nIPV6_DEFAULTGW=2001:db8::1\nGATEWAY=198.51.100.62\n"
    )


@pytest.mark.parametrize(
    ("route", "is_default"),
    [
        ("Gateway=192.0.2.1\n", True),
        ("Destination=0.0.0.0/0\nGateway=192.0.2.1\n", True),
        ("Gateway=192.0.2.1\nDestination=203.0.113.0/24\n", False),
        ("Destination=203.0.113.0/24\nGateway=192.0.2.1\n\n[Route]\nMetric=5\n", False),
    ],
)
def test_networkd_has_a_section_for_each_route(tmp_path: Path, route: str, is_default: bool) -> None:
    path = "/etc/systemd/network/10-ens3.network"
    sections = ["Route]\nDestination=198.18.0.0/15\nGateway=192.0.2.3\n", f"Route]\n{route}"]
    for number, routes in enumerate((sections, sections[::-1])):
        text = "[" + "\n[".join(["Match]\nName=ens3\n", "Network]\nAddress=192.0.2.10/24\n", *routes])
        guest = GuestFiles.make(tmp_path / str(number), {"/etc/hostname": "inst1\n", path: text})
        guest.rename("198.51.100.5", **NETWORK)
        moved = text.replace("192.0.2.10/24", "198.51.100.5/26")
        assert guest.read()[path] == (moved.replace("192.0.2.1\n", "198.51.100.62\n") if is_default else moved)


@pytest.mark.parametrize("moved", [0, 1])
@pytest.mark.parametrize("style", ["Red Hat", "SuSE"])
def test_the_gateway_of_all_interfaces_goes_with_the_one_that_reaches_it(
    tmp_path: Path, style: str, moved: int
) -> None:
    common, line = ("network", "GATEWAY={}\n") if style == "Red Hat" else ("network/routes", "default {} - -\n")
    files = "network-scripts" if style == "Red Hat" else "network"
    guest = GuestFiles.make(
        tmp_path,
        {
            "/etc/hostname": "inst1\n",
            f"/etc/sysconfig/{files}/ifcfg-eth0": "IPADDR=192.0.2.10\nNETMASK=255.255.255.0\n",
            f"/etc/sysconfig/{files}/ifcfg-eth1": "IPADDR=10.0.0.5/24\n",
            f"/etc/sysconfig/{common}": line.format("192.0.2.1"),
        },
    )
    networks = [("192.0.2.0/24", "192.0.2.254"), ("10.0.0.0/24", "10.0.0.254")]
    told = {f"NIC_{n}_NETWORK_SUBNET": networks[n][0] for n in (0, 1)}
    told |= {f"NIC_{n}_NETWORK_GATEWAY": networks[n][1] for n in (0, 1)}
    guest.rename("192.0.2.11" if moved == 0 else "192.0.2.10", "10.0.0.6" if moved == 1 else "10.0.0.5", **told)
    assert ("10.0.0.6" in str(guest.read())) == (moved == 1)
    assert guest.read()[f"/etc/sysconfig/{common}"] == line.format("192.0.2.254" if moved == 0 else "192.0.2.1")


def test_files_of_networks_dir(tmp_path: Path) -> None:
    guest = GuestFiles.make(tmp_path, system("DEBIAN_OLD"))
    guest.tell(f"instances/{NEW}", "ADDRESS=198.51.100.5\nSUBNET=vlan42\n")
    guest.tell("subnets/vlan42", "NETMASK=255.255.255.192\nGATEWAY=198.51.100.62\nDNS_SERVERS='192.0.2.3'\n")
    guest.rename()
    text = "".join(map(str, guest.read().values()))
    for part in WHOLE["DEBIAN_OLD"]:
        assert part in text


def test_the_old_address_of_networks_dir_tells_which_one(tmp_path: Path) -> None:
    guest = GuestFiles.make(tmp_path, eth("10.0.0.1", "10.0.0.2", "10.0.0.9"))
    guest.tell(f"instances/{OLD}", "ADDRESS=10.0.0.2\n")
    guest.tell(f"instances/{NEW}", "ADDRESS=10.0.0.3\n")
    guest.rename()
    assert interfaces(guest) == ["10.0.0.1", "10.0.0.3", "10.0.0.9"]


def test_what_ganeti_says_comes_before_the_files(tmp_path: Path) -> None:
    guest = GuestFiles.make(tmp_path, eth("10.0.0.1"))
    guest.tell(f"instances/{NEW}", "ADDRESS=10.0.0.3\n")
    guest.rename("10.0.0.4")
    assert interfaces(guest) == ["10.0.0.4"]


@pytest.mark.parametrize(
    ("instance", "subnet", "words"),
    [
        ("ADDRESS=10.0.0\n", "", "ADDRESS is '10.0.0'; expected an IP address"),
        ("ADDRESS=10.0.0.3\nSUBNET=../x\n", "", "SUBNET is '../x'; expected the name of a file"),
        (
            "ADDRESS=10.0.0.3\nSUBNET=v\n",
            "NETMASK=255.0.255.0\n",
            "subnets/v:1: NETMASK is '255.0.255.0'; expected the netmask of 10.0.0.3, or the length of its prefix",
        ),
        ("ADDRESS=10.0.0.3\nSUBNET=v\n", "\nGATEWAY=2001:db8::1\n", "subnets/v:2: GATEWAY is '2001:db8::1'; expected"),
        ("ADDRESS=10.0.0.3\nSUBNET=v\n", "GATEWAY=x\n", "GATEWAY is 'x'; expected an address of IPv4, as 10.0.0.3 is"),
        ("ADDRESS=`ip`\n", "", "instances/inst2.example.net:1: found '`'"),
    ],
)
def test_files_of_networks_dir_that_make_no_sense(tmp_path: Path, instance: str, subnet: str, words: str) -> None:
    guest = GuestFiles.make(tmp_path, system("DEBIAN"))
    guest.tell(f"instances/{NEW}", instance)
    guest.tell("subnets/v", subnet)
    with pytest.raises(SettingsError) as caught:
        guest.rename()
    assert words in str(caught.value)
    assert guest.read() == system("DEBIAN")


@pytest.mark.parametrize("instance", ["ADDRESS=\nSUBNET=v\n", "SUBNET=v\n", "IP=10.0.0.3\n"])
def test_a_file_of_networks_dir_that_tells_no_address(
    tmp_path: Path, instance: str, caplog: pytest.LogCaptureFixture
) -> None:
    guest = GuestFiles.make(tmp_path, eth("10.0.0.1"))
    guest.tell(f"instances/{NEW}", instance)
    guest.rename()
    assert interfaces(guest) == ["10.0.0.1"]
    assert f"instances/{NEW} assigns no ADDRESS, so it is not used" in caplog.text


def test_empty_values_of_a_subnet_are_none(tmp_path: Path) -> None:
    guest = GuestFiles.make(tmp_path, eth("10.0.0.1"))
    guest.tell(f"instances/{NEW}", "ADDRESS=10.0.0.3\nSUBNET=v\n")
    guest.tell("subnets/v", "NETMASK=\nGATEWAY=\n")
    guest.rename()
    assert interfaces(guest) == ["10.0.0.3"]


def test_dhcp_is_left_alone(tmp_path: Path) -> None:
    files: Files = {
        "/etc/hostname": "inst2\n",
        "/etc/network/interfaces": "iface eth0 inet dhcp\n",
        "/etc/sysconfig/network-scripts/ifcfg-eth0": "BOOTPROTO=dhcp\nIPADDR=10.0.0.1\n",
        "/etc/netplan/a.yaml": "network:\n  ethernets:\n    eth0:\n      dhcp4: true\n",
        "/etc/conf.d/net": 'config_eth0="dhcp"\n',
        "/etc/hosts": "10.0.0.1 inst2\n",
    }
    guest = GuestFiles.make(tmp_path, files)
    guest.rename("10.0.0.3", **NETWORK)
    assert guest.read() == files


KEYS = ["network:", "ethernets:", "eth0:", "addresses:", "routes:", "gateway4: ", "via: ", "to: default", "10.0.0.1/24"]
MARKS = ["\n", "\n  ", "\n    ", "\n      ", "- ", "[", "]", '"', "'", "#", "{", "}", ",", "\xff", "&a", "*a"]
FRAGMENTS = st.sampled_from(KEYS + MARKS)


@given(st.lists(FRAGMENTS, max_size=60).map("".join))
def test_netplan_finds_addresses_where_they_are(tmp_path_factory: pytest.TempPathFactory, text: str) -> None:
    data = text.encode("latin-1")

    class Files:
        def list(self, path: str) -> list[str]:
            return ["a.yaml"]

        def stat(self, path: str, *, follow_symlinks: bool = True) -> os.stat_result:
            return os.stat(__file__)

        def read(self, path: str, *, limit: int = 1 << 20) -> bytes:
            return data

    for interface in netplan_interfaces(NetworkFiles(Draft(Files()))):  # type: ignore[arg-type]
        for field in [*interface.addresses, *interface.others]:
            assert data[field.span.start : field.span.end] == field.span.text
            assert field.span.text in (b"10.0.0.1", b"24") or field.kind == "gateway"


def test_deep_yaml_ends_quickly(tmp_path: Path) -> None:
    files: Files = {"/etc/hostname": "inst2\n", "/etc/netplan/a.yaml": b"- " * 250000 + b"\n" + b"a\n" * 200000}
    guest = GuestFiles.make(tmp_path, files)
    guest.rename("10.0.0.3")
    assert guest.read()["/etc/hostname"] == "inst2\n"


@settings(max_examples=200, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.sampled_from(sorted(SYSTEMS)), st.integers(0, 1 << 20), st.binary(max_size=3), st.integers(0, 3))
def test_damaged_files(tmp_path: Path, name: str, position: int, inserted: bytes, removed: int) -> None:
    """Whatever the files say: done, or one message and nothing changed; a second run changes nothing."""
    files = system(name)
    path = sorted(SYSTEMS[name])[position % len(SYSTEMS[name])]
    data = str(files[path]).encode()
    place = position % len(data)
    with tempfile.TemporaryDirectory(dir=tmp_path) as directory:
        guest = GuestFiles.make(Path(directory), {**files, path: data[:place] + inserted + data[place + removed :]})
        before, refusal = guest.read(), None
        try:
            guest.rename("198.51.100.5", **NETWORK)
        except DiskImageError as error:
            refusal = str(error)
        if refusal is not None:
            assert "\n" not in refusal
            assert guest.read() == before
            return
        after = guest.read()
        guest.rename("198.51.100.5", **NETWORK)
        assert guest.read() == after


def test_an_address_from_a_pool_is_not_the_instances(tmp_path: Path) -> None:
    """As in systemd's own /usr/lib/systemd/network/80-container-ve.network."""
    pool = "[Match]\nKind=veth\nName=ve-*\n\n[Network]\nAddress=0.0.0.0/28\nDHCPServer=yes\n"
    guest = GuestFiles.make(tmp_path, {"/etc/hostname": "inst1\n", "/etc/systemd/network/80-ve.network": pool})
    guest.rename("192.0.2.20")
    assert guest.read()["/etc/systemd/network/80-ve.network"] == pool
