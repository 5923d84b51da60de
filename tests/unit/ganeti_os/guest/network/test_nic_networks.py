# SPDX-License-Identifier: MIT
"""What each NIC is to have: by Ganeti's variables, by the files in NETWORKS_DIR, by the settings."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from ganeti_os.guest.facts.nics import NicNetwork, nic_networks, with_one_default_route
from ganeti_os.guest.network.writing.nic_plan import nic_plans
from ganeti_os.request import parse_request
from ganeti_os.settings.settings import Layer, Paths, Settings
from ganeti_os.settings.shellfile import SettingsError
from tests.fixtures.network_guests import MACS, nic

NAME = "inst2.example.net"


def networks(
    directory: Path, *nics: dict[str, str], instance: str = "", subnet: str = "", **settings: str
) -> tuple[NicNetwork, ...]:
    for name, text in ((f"instances/{NAME}", instance), ("subnets/lan", subnet)):
        if text:
            (directory / name).parent.mkdir(parents=True, exist_ok=True)
            (directory / name).write_text(text)
    given = Settings.from_layers([Layer("x", settings)], paths=Paths("/none"))
    object.__setattr__(given, "networks_dir", os.fspath(directory))
    environment = {"OS_API_VERSION": "20", "INSTANCE_NAME": NAME, "OLD_INSTANCE_NAME": NAME, "DISK_COUNT": "0"}
    for one in nics:
        environment |= one
    return nic_networks(parse_request("rename", [], environment | {"NIC_COUNT": str(len(nics))}), given)


def told(found: NicNetwork) -> list[str]:
    return [f"{one.address} {one.network} {one.gateway}" for one in found.addresses]


def test_ganeti_tells_one_address_of_either_family(tmp_path: Path) -> None:
    found = networks(
        tmp_path,
        nic(0, "192.0.2.5", subnet="192.0.2.0/24", gateway="192.0.2.1")
        | {"NIC_0_NETWORK_SUBNET6": "2001:db8::/64", "NIC_0_NETWORK_GATEWAY6": "2001:db8::1"},
        nic(1, "2001:db8:1::5", subnet="2001:db8:1::/64", gateway="2001:db8:1::1"),
        nic(2),
    )
    assert [(one.index, one.mac, told(one)) for one in found] == [
        (0, MACS[0], ["192.0.2.5 192.0.2.0/24 192.0.2.1"]),  # its IPv6 address is the guest's to make (SLAAC)
        (1, MACS[1], ["2001:db8:1::5 2001:db8:1::/64 2001:db8:1::1"]),
        (2, MACS[2], []),
    ]


def test_files_add_the_family_that_ganeti_does_not_tell(tmp_path: Path) -> None:
    (found,) = networks(
        tmp_path,
        nic(0, "192.0.2.5", subnet="192.0.2.0/24"),
        instance="ADDRESS=10.0.0.1\nADDRESS6=2001:db8::5\nSUBNET=lan\n",
        subnet="NETMASK=8\nGATEWAY=10.0.0.254\nNETMASK6=64\nGATEWAY6=fe80::1\n",
    )
    assert told(found) == ["192.0.2.5 192.0.2.0/24 None", "2001:db8::5 2001:db8::/64 fe80::1"]


def test_files_tell_the_network_of_ganetis_address(tmp_path: Path) -> None:
    (found,) = networks(
        tmp_path,
        nic(0, "192.0.2.5"),
        instance="ADDRESS=192.0.2.5\nSUBNET=lan\n",
        subnet="NETMASK=25\nGATEWAY=192.0.2.1\n",
    )
    assert told(found) == ["192.0.2.5 192.0.2.0/25 192.0.2.1"]


def test_files_of_an_address_of_ipv6_alone(tmp_path: Path) -> None:
    (found,) = networks(tmp_path, nic(0), instance="ADDRESS=2001:db8::5\nSUBNET=lan\n", subnet="NETMASK=64\n")
    assert told(found) == ["2001:db8::5 2001:db8::/64 None"]


SERVERS = {"DNS_SERVERS": "192.0.2.53 2001:db8::53", "DNS_SEARCH": "a.example b.example"}


@pytest.mark.parametrize(
    ("instance", "subnet", "settings", "servers", "search"),
    [
        ("", "", {}, [], ()),
        ("", "", {"DNS_SERVERS": "192.0.2.53"}, ["192.0.2.53"], ("example.net",)),
        ("", "", SERVERS, ["192.0.2.53", "2001:db8::53"], ("a.example", "b.example")),
        (
            "ADDRESS=192.0.2.9\nSUBNET=lan\n",
            "DNS_SERVERS=192.0.2.1\n",
            SERVERS,
            ["192.0.2.1"],
            ("a.example", "b.example"),
        ),
        (
            "ADDRESS=192.0.2.9\nSUBNET=lan\nDNS_SERVERS='192.0.2.3, 192.0.2.4'\n",
            "DNS_SERVERS=192.0.2.1\nDNS_SEARCH=c.example\n",
            SERVERS,
            ["192.0.2.3", "192.0.2.4"],
            ("c.example",),
        ),
    ],
)
def test_name_servers(
    tmp_path: Path, instance: str, subnet: str, settings: dict[str, str], servers: list[str], search: tuple[str, ...]
) -> None:
    static = nic(0, "192.0.2.5", subnet="192.0.2.0/24")
    found = networks(tmp_path, static, nic(1), instance=instance, subnet=subnet, **settings)
    assert [[str(one) for one in each.name_servers] for each in found] == [servers, []]
    assert [each.search for each in found] == [search, ()]


def test_name_servers_go_with_the_gateway_and_not_with_dhcp(tmp_path: Path) -> None:
    static = nic(1, "192.0.2.5", subnet="192.0.2.0/24", gateway="192.0.2.1")
    plain = nic(0, "198.51.100.5", subnet="198.51.100.0/24")
    assert [bool(one.name_servers) for one in networks(tmp_path, plain, static, **SERVERS)] == [False, True]
    assert [bool(one.name_servers) for one in networks(tmp_path, nic(0), nic(1), **SERVERS)] == [False, False]


@pytest.mark.parametrize(
    ("instance", "subnet", "words"),
    [
        ("ADDRESS6=x\n", "", ":1: ADDRESS6 is 'x'; expected an IP address"),
        ("ADDRESS6=fe80::1%eth0\n", "", ":1: ADDRESS6 is 'fe80::1%eth0'; expected an address without an interface"),
        ("ADDRESS6=2001:db8::1\nSUBNET=lan\n", "NETMASK6=200\n", "subnets/lan:1: NETMASK6 is '200'; expected"),
        (
            "ADDRESS6=2001:db8::1\nSUBNET=lan\n",
            "GATEWAY6=10.0.0.1\n",
            "GATEWAY6 is '10.0.0.1'; expected an address of IPv6",
        ),
        ("ADDRESS=10.0.0.1\nDNS_SERVERS=ns\n", "", ":2: DNS_SERVERS is 'ns'; expected IP addresses with blanks"),
        (
            "ADDRESS=10.0.0.1\nSUBNET=lan\n",
            "DNS_SEARCH='a;b'\n",
            "subnets/lan:1: DNS_SEARCH is 'a;b'; expected",
        ),
    ],
)
def test_files_that_make_no_sense(tmp_path: Path, instance: str, subnet: str, words: str) -> None:
    with pytest.raises(SettingsError) as caught:
        networks(tmp_path, nic(0), instance=instance, subnet=subnet)
    assert words in str(caught.value)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("DNS_SERVERS", "ns.example.org"),
        ("DNS_SERVERS", " ".join(["192.0.2.1"] * 9)),
        ("DNS_SEARCH", "a..b"),
        ("DNS_SEARCH", "-a"),
        ("DNS_SEARCH", 'a"'),
        ("DNS_SEARCH", "a" * 64),
        ("DNS_SEARCH", ".".join(["a" * 60] * 5)),
    ],
)
def test_settings_that_make_no_sense(tmp_path: Path, name: str, text: str) -> None:
    with pytest.raises(SettingsError, match=name):
        networks(tmp_path, **{name: text})


def test_one_default_route_of_each_family(tmp_path: Path) -> None:
    found = with_one_default_route(
        networks(
            tmp_path,
            nic(0, "2001:db8::5", subnet="2001:db8::/64", gateway="2001:db8::1"),
            nic(1, "192.0.2.5", subnet="192.0.2.0/24", gateway="192.0.2.1"),
            nic(2, "198.51.100.5", subnet="198.51.100.0/24", gateway="198.51.100.1"),
        )
    )
    assert [str(one.addresses[0].gateway) for one in found] == ["2001:db8::1", "192.0.2.1", "None"]


@pytest.mark.parametrize(
    ("subnet", "gateway", "interface", "on_link"),
    [
        ("NETMASK=24\nGATEWAY=192.0.2.1\n", "192.0.2.1", "192.0.2.5/24", False),
        ("NETMASK=24\nGATEWAY=10.0.0.1\n", "10.0.0.1", "192.0.2.5/24", True),
        ("NETMASK=32\nGATEWAY=192.0.2.1\n", "192.0.2.1", "192.0.2.5/32", True),
        ("GATEWAY=192.0.2.1\n", "192.0.2.1", "192.0.2.5/32", True),
        ("NETMASK=24\n", "None", "192.0.2.5/24", False),
    ],
)
def test_plans(tmp_path: Path, subnet: str, gateway: str, interface: str, on_link: bool) -> None:
    nics = networks(tmp_path, nic(0), instance="ADDRESS=192.0.2.5\nSUBNET=lan\n", subnet=subnet)
    (one,) = nic_plans(nics)[0].addresses
    assert (str(one.interface), str(one.gateway), one.is_on_link) == (interface, gateway, on_link)


def test_a_gateway_in_the_links_scope_needs_no_route_of_its_own(tmp_path: Path) -> None:
    nics = networks(
        tmp_path, nic(0), instance="ADDRESS6=2001:db8::5\nSUBNET=lan\n", subnet="NETMASK6=64\nGATEWAY6=fe80::1\n"
    )
    assert not nic_plans(nics)[0].addresses[0].is_on_link
