# SPDX-License-Identifier: MIT
"""The network configuration for cloud-init: what is known about each NIC, as YAML."""

from __future__ import annotations

from ipaddress import ip_address, ip_interface

import yaml

from ganeti_os.guest.facts.nics import NewAddress, NicNetwork
from ganeti_os.guest.network.cloud_config import network_config
from ganeti_os.guest.network.writing.nic_plan import HEADER

MAC = "AA:00:00:11:22:33"


def known(text: str, gateway: str | None = None) -> NewAddress:
    interface = ip_interface(text)
    return NewAddress(interface.ip, interface.network, ip_address(gateway) if gateway else None)


def ethernets(*nics: NicNetwork) -> dict[str, object]:
    text = network_config(nics)
    assert text.startswith(HEADER)
    found = yaml.safe_load(text)
    assert found.keys() == {"version", "ethernets"}
    assert found["version"] == 2
    ethernets: dict[str, object] = found["ethernets"]
    return ethernets


MATCH = {"match": {"macaddress": MAC.lower()}, "set-name": "eth0"}


def test_both_families() -> None:
    addresses = (known("192.0.2.10/24", "192.0.2.1"), known("2001:db8::10/64", "2001:db8::1"))
    servers = (ip_address("192.0.2.53"), ip_address("2001:db8::53"))
    assert ethernets(NicNetwork(0, MAC, addresses, servers, ("example.org", "example.net"))) == {
        "0-eth0": {
            **MATCH,
            "addresses": ["192.0.2.10/24", "2001:db8::10/64"],
            "routes": [{"to": "0.0.0.0/0", "via": "192.0.2.1"}, {"to": "::/0", "via": "2001:db8::1"}],
            "nameservers": {
                "addresses": ["192.0.2.53", "2001:db8::53"],
                "search": ["example.org", "example.net"],
            },
        }
    }


def test_gateways_outside_the_network() -> None:
    addresses = (known("192.0.2.10/32", "198.51.100.1"), known("2001:db8::10/128", "fe80::1"))
    assert ethernets(NicNetwork(0, MAC, addresses)) == {
        "0-eth0": {
            **MATCH,
            "addresses": ["192.0.2.10/32", "2001:db8::10/128"],
            "routes": [
                {"to": "0.0.0.0/0", "via": "198.51.100.1", "on-link": True},
                {"to": "::/0", "via": "fe80::1"},
            ],
        }
    }


def test_nics_without_a_known_address_ask() -> None:
    alone = NewAddress(ip_address("192.0.2.10"))
    second = NicNetwork(1, "aa:00:00:11:22:34")
    assert ethernets(NicNetwork(0, MAC, (alone,)), second, NicNetwork(2, None)) == {
        "0-eth0": {**MATCH, "dhcp4": True},
        "0-eth1": {
            "match": {"macaddress": "aa:00:00:11:22:34"},
            "set-name": "eth1",
            "dhcp4": True,
            "optional": True,
        },
        "eth2": {"dhcp4": True, "optional": True},
    }


def test_an_address_without_a_gateway() -> None:
    assert ethernets(NicNetwork(0, MAC, (known("192.0.2.10/24"),))) == {
        "0-eth0": {**MATCH, "addresses": ["192.0.2.10/24"]}
    }
