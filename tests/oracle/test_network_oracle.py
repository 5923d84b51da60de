# SPDX-License-Identifier: MIT
"""The written network as the programs that read such files understand it: ifquery, netplan, libnm, the shell."""

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import need
from tests.fixtures.guests import GuestFiles
from tests.fixtures.network_guests import (
    ALMA_8,
    CENTOS_6,
    DEBIAN_CLOUD,
    DEBIAN_INSTALLED,
    GENTOO,
    LEAP_15,
    MACS,
    ROCKY_9,
    System,
    nic,
)
from tests.fixtures.programs import Tool, run

pytestmark = pytest.mark.oracle


def become(system: System, directory: Path, gateway: str = "198.51.100.1") -> GuestFiles:
    guest = system.make(directory)
    guest.tell("instances/inst2.example.net", "ADDRESS=198.51.100.7\nADDRESS6=2001:db8::7\nSUBNET=lan\n")
    guest.tell(
        "subnets/lan",
        f"NETMASK=24\nGATEWAY={gateway}\nNETMASK6=64\nGATEWAY6=2001:db8::1\n"
        "DNS_SERVERS='198.51.100.53 2001:db8::53'\nDNS_SEARCH='a.example b.example'\n",
    )
    guest.become("", "", **nic(0), **nic(1))
    return guest


def test_ifquery(tmp_path: Path, tool: Tool) -> None:
    guest = become(DEBIAN_INSTALLED, tmp_path)
    found = run(tool("ifquery"), "-i", str(guest.root / "etc/network/interfaces"), "nic0").splitlines()
    values = [line for line in found if line.startswith(("address", "netmask", "gateway", "dns"))]
    assert values == [
        "address: 198.51.100.7",
        "netmask: 255.255.255.0",
        "gateway: 198.51.100.1",
        "dns-nameservers: 198.51.100.53 2001:db8::53",
        "dns-search: a.example b.example",
        "address: 2001:db8::7",
        "netmask: 64",
        "gateway: 2001:db8::1",
    ]


def test_netplan_generate(tmp_path: Path, tool: Tool) -> None:
    guest = become(DEBIAN_CLOUD, tmp_path, "203.0.113.1")
    run(tool("netplan"), "generate", f"--root-dir={guest.root}")
    directory = guest.root / "run/systemd/network"
    assert sorted(path.name for path in directory.iterdir()) == ["10-netplan-nic0.network", "10-netplan-nic1.network"]
    lines = (directory / "10-netplan-nic0.network").read_text().splitlines()
    assert any(MACS[0] in line for line in lines)
    assert [line for line in lines if line.startswith(("Address", "DNS", "Domains", "Gateway", "Destination"))] == [
        "Address=198.51.100.7/24",
        "Address=2001:db8::7/64",
        "DNS=198.51.100.53",
        "DNS=2001:db8::53",
        "Domains=a.example b.example",
        "Destination=0.0.0.0/0",
        "Gateway=203.0.113.1",
        "GatewayOnLink=true",
        "Destination=::/0",
        "Gateway=2001:db8::1",
    ]
    assert "DHCP=ipv4" in (directory / "10-netplan-nic1.network").read_text()


class Connection:
    """A keyfile as NetworkManager's own library reads it."""

    def __init__(self, nm: ctypes.CDLL, connection: int) -> None:
        self._nm = nm
        self._connection = ctypes.c_void_p(connection)

    def _call(self, name: str, *arguments: object, returns: type = ctypes.c_char_p) -> Any:
        function = getattr(self._nm, name)
        function.restype = returns
        found = function(*arguments)
        return found.decode() if isinstance(found, bytes) else found

    def setting(self, family: str) -> ctypes.c_void_p:
        return ctypes.c_void_p(
            self._call(f"nm_connection_get_setting_{family}_config", self._connection, returns=ctypes.c_void_p)
        )

    def mac(self) -> object:
        wired = ctypes.c_void_p(
            self._call("nm_connection_get_setting_wired", self._connection, returns=ctypes.c_void_p)
        )
        return self._call("nm_setting_wired_get_mac_address", wired)

    def family(self, family: str) -> dict[str, object]:
        """Return what one family has."""
        setting = self.setting(family)
        found: dict[str, object] = {
            "method": self._call("nm_setting_ip_config_get_method", setting),
            "gateway": self._call("nm_setting_ip_config_get_gateway", setting),
        }
        count = self._call("nm_setting_ip_config_get_num_addresses", setting, returns=ctypes.c_uint)
        for number in range(count):
            one = ctypes.c_void_p(
                self._call("nm_setting_ip_config_get_address", setting, number, returns=ctypes.c_void_p)
            )
            prefix = self._call("nm_ip_address_get_prefix", one, returns=ctypes.c_uint)
            found[f"address{number}"] = f"{self._call('nm_ip_address_get_address', one)}/{prefix}"
        for kind, plural in (("dns", "dns"), ("dns_search", "dns_searches")):
            count = self._call(f"nm_setting_ip_config_get_num_{plural}", setting, returns=ctypes.c_uint)
            found[kind] = [self._call(f"nm_setting_ip_config_get_{kind}", setting, number) for number in range(count)]
        return found


@contextmanager
def connection(path: Path) -> Iterator[Connection]:
    """Read a keyfile; what libnm does not take is an error."""
    try:
        nm, glib = ctypes.CDLL("libnm.so.0"), ctypes.CDLL("libglib-2.0.so.0")
    except OSError as error:
        need(condition=False, reason=str(error))
    data = path.read_bytes()
    glib.g_key_file_new.restype = nm.nm_keyfile_read.restype = ctypes.c_void_p
    keyfile = ctypes.c_void_p(glib.g_key_file_new())
    assert glib.g_key_file_load_from_data(keyfile, data, ctypes.c_size_t(len(data)), 0, None)
    found = nm.nm_keyfile_read(keyfile, b"/etc/NetworkManager/system-connections", 0, None, None, None)
    assert found, data.decode()
    try:
        assert nm.nm_connection_verify(ctypes.c_void_p(found), None)
        yield Connection(nm, found)
    finally:
        glib.g_key_file_unref(keyfile)


def test_libnm(tmp_path: Path) -> None:
    guest = become(ROCKY_9, tmp_path, "203.0.113.1")
    directory = guest.root / "etc/NetworkManager/system-connections"
    common = {"dns_search": ["a.example", "b.example"], "method": "manual"}
    with connection(directory / "ganeti-nic0.nmconnection") as first:
        assert str(first.mac()).lower() == MACS[0]
        assert first.family("ip4") == common | {
            "gateway": "203.0.113.1",
            "address0": "198.51.100.7/24",
            "dns": ["198.51.100.53"],
        }
        assert first.family("ip6") == common | {
            "gateway": "2001:db8::1",
            "address0": "2001:db8::7/64",
            "dns": ["2001:db8::53"],
        }
    with connection(directory / "ganeti-nic1.nmconnection") as second:
        assert [second.family(family)["method"] for family in ("ip4", "ip6")] == ["auto", "auto"]


@pytest.mark.parametrize(
    ("system", "path", "names", "values"),
    [
        (
            ALMA_8,
            "etc/sysconfig/network-scripts/ifcfg-nic0",
            "IPADDR PREFIX NETMASK GATEWAY IPV6ADDR IPV6_DEFAULTGW DNS1 DNS2 DOMAIN",
            "198.51.100.7 24 255.255.255.0 198.51.100.1 2001:db8::7/64 2001:db8::1 198.51.100.53 2001:db8::53 "
            "a.example b.example",
        ),
        (CENTOS_6, "etc/sysconfig/network-scripts/ifcfg-nic1", "BOOTPROTO HWADDR", f"dhcp {MACS[1].upper()}"),
        (LEAP_15, "etc/sysconfig/network/ifcfg-nic0", "IPADDR IPADDR_1", "198.51.100.7/24 2001:db8::7/64"),
        (
            LEAP_15,
            "etc/sysconfig/network/config",
            "NETCONFIG_DNS_STATIC_SERVERS NETCONFIG_DNS_STATIC_SEARCHLIST",
            "198.51.100.53 2001:db8::53 a.example b.example",
        ),
        (
            GENTOO,
            "etc/conf.d/net",
            "config_nic0 routes_nic0 dns_servers_nic0 config_nic1",
            "198.51.100.7/24 2001:db8::7/64 default via 198.51.100.1 default via 2001:db8::1 198.51.100.53 "
            "2001:db8::53 dhcp",
        ),
    ],
)
def test_the_shell(tmp_path: Path, tool: Tool, system: System, path: str, names: str, values: str) -> None:
    guest = become(system, tmp_path)
    script = '. "$0"; echo ' + " ".join(f"${name}" for name in names.split())
    assert run(tool("sh"), "-euc", script, str(guest.root / path)) == f"{values}\n"
