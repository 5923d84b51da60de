# SPDX-License-Identifier: MIT
"""Every form in which a guest's network files spell an address: all of it becomes the new network, and nothing else."""

from __future__ import annotations

import logging
import re
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ganeti_os.guest.facts.nics import NewAddress, NicNetwork
from ganeti_os.guest.network.change_addresses import change_addresses
from pydiskimg.files.mounted_tree import open_mounted_tree
from pydiskimg.system.edits.draft import Draft
from tests.fixtures.addressed_guests import NETPLAN_HEAD, NETWORK, contents
from tests.fixtures.guests import GuestFiles, warnings

KEYFILE = "[connection]\nid=ens3\ninterface-name=ens3\n\n[ipv4]\nmethod=manual\n"
IFCFG = "/etc/sysconfig/network-scripts"

# OLD, OLD/24, MASK, NET, CAST, GATE and their new values stand for what changes.
OLD = {"ADDR": "192.0.2.10", "PLEN": "24", "MASK": "255.255.255.0", "NETW": "192.0.2.0", "CAST": "192.0.2.255"}
NEW = {"ADDR": "198.51.100.5", "PLEN": "26", "MASK": "255.255.255.192", "NETW": "198.51.100.0", "CAST": "198.51.100.63"}
OLD["GATE"], NEW["GATE"] = "192.0.2.1", "198.51.100.62"
KEPT = "203.0.113.0/24 192.0.2.1"  # a route elsewhere, resolvers: what stays is spelled out in the files

FORMS: dict[str, dict[str, str]] = {
    # NetworkManager
    "keyfile in /usr/lib": {
        "/usr/lib/NetworkManager/system-connections/ens3.nmconnection": KEYFILE + "address1=ADDR/PLEN,GATE\n"
    },
    "keyfile in /run": {"/run/NetworkManager/system-connections/ens3": KEYFILE + "addresses=ADDR/PLEN\ngateway=GATE\n"},
    "keyfile, a default route": {
        "/etc/NetworkManager/system-connections/a": KEYFILE
        + "address1=ADDR/PLEN\nroute1=0.0.0.0/0,GATE,100\nroute2=203.0.113.0/24,192.0.2.1\ndns=192.0.2.1;ADDR;\n"
        "route2_options=src=ADDR,table=7\n"
    },
    "keyfile, routes of old": {
        "/etc/NetworkManager/system-connections/a": KEYFILE
        + "addresses1=ADDR;PLEN;GATE;\nroutes1=0.0.0.0;0;GATE;1;\nroutes2=203.0.113.0;24;192.0.2.1;1;\n"
    },
    # systemd-networkd
    "networkd, drop-in": {
        "/etc/systemd/network/10-a.network": "[Match]\nName=ens3\n\n[Network]\nDNS=192.0.2.1\n",
        "/etc/systemd/network/10-a.network.d/address.conf": "[Network]\nAddress=ADDR/PLEN\nGateway=GATE\n",
    },
    "networkd, drop-in of a file that netplan makes at boot": {
        "/etc/systemd/network/10-netplan-ens3.network.d/override.conf": "[Address]\nAddress = ADDR/PLEN\n"
        "Broadcast=CAST\n\n[Route]\nGateway=GATE\n\n[Route]\nDestination=203.0.113.0/24\nGateway=192.0.2.1\n"
        "PreferredSource=ADDR\n\n[RoutingPolicyRule]\nFrom=ADDR/32\n",
    },
    "networkd, address in the file and gateway in a drop-in": {
        "/etc/systemd/network/a.network": "[Match]\nName=ens3\n[Network]\nAddress=ADDR/PLEN\n",
        "/run/systemd/network/a.network.d/b.conf": "[Network]\nGateway=GATE\n",
    },
    "networkd in /usr/lib": {
        "/usr/lib/systemd/network/a.network": "[Match]\nName=ens3\n[Network]\nAddress=ADDR/PLEN\nGateway=GATE\n",
        "/lib/systemd/network/other.network": "[Match]\nName=ens9\n",
    },
    "networkd, a continued line": {
        "/etc/systemd/network/a.network": "[Match]\nName=ens3\n[Network]\nAddress=\\\n  ADDR/PLEN\nGateway= \\\nGATE\n"
    },
    "networkd, an empty value takes back": {
        "/etc/systemd/network/a.network": "[Match]\nName=ens3\n[Network]\nAddress=10.0.0.1/8\n",
        "/etc/systemd/network/a.network.d/a.conf": "[Network]\nAddress=\nAddress=ADDR/PLEN\n",
    },
    # Red Hat and SuSE
    "ifcfg, routes as ip route": {
        f"{IFCFG}/ifcfg-eth0": "DEVICE=eth0\nIPADDR=ADDR\nPREFIX=PLEN\n",
        f"{IFCFG}/route-eth0": "default via GATE dev eth0\n203.0.113.0/24 via 192.0.2.1 src ADDR\n",
        f"{IFCFG}/rule-eth0": "from ADDR table 7\n",
    },
    "ifcfg, numbered routes": {
        f"{IFCFG}/ifcfg-eth0": "DEVICE=eth0\nIPADDR0=ADDR\nNETMASK0=MASK\n",
        f"{IFCFG}/route-eth0": "ADDRESS0=0.0.0.0\nNETMASK0=0.0.0.0\nGATEWAY0=GATE\n"
        "ADDRESS1=203.0.113.0\nNETMASK1=255.255.255.0\nGATEWAY1=192.0.2.1\n",
    },
    "ifcfg, a high number": {f"{IFCFG}/ifcfg-eth0": "IPADDR12=ADDR\nPREFIX12=PLEN\nGATEWAY12=GATE\n"},
    "ifcfg of an alias": {f"{IFCFG}/ifcfg-eth0:1": 'DEVICE="eth0:1"\nIPADDR="ADDR"\nNETMASK="MASK"\nNETWORK="NETW"\n'},
    "SuSE, any suffix": {
        "/etc/sysconfig/network/ifcfg-eth0": "BOOTPROTO='static'\nIPADDR_web='ADDR/PLEN'\nBROADCAST_web='CAST'\n",
        "/etc/sysconfig/network/ifroute-eth0": "0.0.0.0/0 GATE - -\n203.0.113.0/24 192.0.2.1 - -\n",
    },
    # netplan
    "netplan in braces": {"/etc/netplan/a.yaml": "network: {version: 2, ethernets: {ens3: {addresses: [ADDR/PLEN], "
        "gateway4: GATE}}}\n"},
    "netplan as JSON": {
        "/etc/netplan/a.yaml": '{"network": {"ethernets": {"ens3": {"addresses": ["ADDR/PLEN"],\n "routes": [{"to": '
        '"default", "via": "GATE"}, {"to": "203.0.113.0/24", "via": "192.0.2.1"}]}}}}'
    },
    "netplan, an address with options": {
        "/etc/netplan/a.yaml": NETPLAN_HEAD + "      addresses:\n        - ADDR/PLEN:\n            label: web\n"
        "      routes:\n        - {to: 0.0.0.0/0, via: GATE}\n      routing-policy: [{from: ADDR, table: 7}]\n"
    },
    "netplan, items as deep as their key": {
        "/etc/netplan/a.yaml": NETPLAN_HEAD
        + "      addresses:\n      - 'ADDR/PLEN'\n      gateway4:   GATE  # 192.0.2.1\n"
    },
    "netplan, anchors": {
        "/etc/netplan/a.yaml": "x: &list [ADDR/PLEN]\ny: &gw GATE\n"
        + NETPLAN_HEAD + "      addresses: *list\n      gateway4: *gw\n"
    },
    "netplan, two files": {
        "/etc/netplan/00-installer.yaml": NETPLAN_HEAD + "      dhcp4: no\n      addresses: [ADDR/PLEN]\n",
        "/etc/netplan/90-local.yaml": NETPLAN_HEAD + "      routes: [{to: default, via: GATE}]\n"
        "      nameservers: {addresses: [192.0.2.1]}\n",
    },
    "netplan, the same in two files": {
        "/etc/netplan/00-installer.yaml": NETPLAN_HEAD + "      addresses: [ADDR/PLEN]\n      gateway4: GATE\n",
        "/etc/netplan/50-cloud-init.yaml": NETPLAN_HEAD + "      addresses: [ADDR/PLEN]\n      gateway4: GATE\n",
    },
    "netplan, and the installer's copy for cloud-init": {
        "/etc/netplan/50-cloud-init.yaml": NETPLAN_HEAD + "      addresses: [ADDR/PLEN]\n      gateway4: GATE\n",
        "/etc/cloud/cloud.cfg.d/90-installer-network.cfg": NETPLAN_HEAD
        + "      addresses:\n      - ADDR/PLEN\n      routes:\n      - {to: default, via: GATE}\n",
        "/etc/cloud/cloud.cfg.d/05.cfg": "system_info: [\n",
    },
    "netplan in /lib": {"/lib/netplan/a.yaml": NETPLAN_HEAD + "      addresses: [ADDR/PLEN]\n"},
    "netplan, letters beyond ASCII": {
        "/etc/netplan/a.yaml": "# für Ämter 🙂\n" + NETPLAN_HEAD + "      addresses: [ADDR/PLEN] # 🙂\n"
    },
    # ifupdown
    "ifupdown, source": {
        "/etc/network/interfaces": "source conf/*.cfg /etc/network/more/one\niface lo inet loopback\n",
        "/etc/network/conf/a.cfg": "iface eth0 inet static\n address ADDR/PLEN\n",
        "/etc/network/more/one": "iface eth0 inet6 auto\n up ip route add default via GATE dev eth0\n",
    },
    "ifupdown, source within source": {
        "/etc/network/interfaces": "source /etc/network/a\n",
        "/etc/network/a": "source interfaces\nsource b\n",
        "/etc/network/b": "iface eth0 inet static\n address ADDR\n netmask PLEN\n",
    },
    "ifupdown, source-directory": {
        "/etc/network/interfaces": "source-directory /srv/net\n",
        "/srv/net/eth0": "iface eth0 inet static\n address ADDR\n netmask MASK\n network NETW\n broadcast CAST\n"
        " gateway GATE\n",
    },
    "ifupdown, continued lines": {
        "/etc/network/interfaces": "iface eth0 \\\n  inet static\n"
        " address \\\n   ADDR/PLEN\n gateway\\\n GATE\n# \\\n mtu 1400\n"
    },
    "ifupdown, up ip addr add": {
        "/etc/network/interfaces": "iface eth0 inet manual\n pre-up ip link set up dev $IFACE\n"
        " up /sbin/ip -4 addr add ADDR/PLEN broadcast CAST dev $IFACE || true; ip route add default via GATE\n"
        " down ip addr del ADDR/PLEN dev $IFACE && ip route del 203.0.113.0/24 via 192.0.2.1\n"
    },
    "ifupdown, commands of old": {
        "/etc/network/interfaces": "iface eth0 inet manual\n up ifconfig eth0 ADDR netmask MASK broadcast CAST up\n"
        " up route add -net 203.0.113.0 netmask 255.255.255.0 gw 192.0.2.1\n up route add default gw GATE eth0\n"
        " post-up sh -c \"echo 'ADDR' >/run/address\"\n"
    },
    "ifupdown, commands beside a static address": {
        "/etc/network/interfaces": "iface eth0 inet static\n address ADDR\n netmask MASK\n"
        " up ip rule add from ADDR table 7\n up ip addr add 10.9.9.9/32 dev eth0\n up ip route add default via GATE\n"
    },
    "ifupdown, inherits": {
        "/etc/network/interfaces": "iface lan inet static\n netmask MASK\n gateway GATE\n\n"
        "iface eth0 inet static inherits lan\n address ADDR\n"
    },
    "ifupdown-ng": {"/etc/network/interfaces": "auto eth0\niface eth0\n\taddress ADDR/PLEN\n\tgateway GATE\n"},
    # Gentoo, dhcpcd
    "netifrc without quotes": {"/etc/conf.d/net": 'config_eth0=ADDR/PLEN\nroutes_eth0="0.0.0.0/0 via GATE"\n'},
    "netifrc, lines": {
        "/etc/conf.d/net": 'modules="iproute2"\nconfig_eth0="\n ADDR/PLEN brd CAST\n"\nroutes_eth0="\n203.0.113.0/24 '
        'via 192.0.2.1\ndefault via GATE"\n'
    },
    "dhcpcd": {
        "/etc/dhcpcd.conf": "hostname\n#static ip_address=192.0.2.10/24\n\n"
        "interface eth0\nstatic ip_address=ADDR/PLEN\n"
        "static routers=GATE\nstatic domain_name_servers=192.0.2.1\n"
    },
    "dhcpcd, inform": {"/etc/dhcpcd.conf": "interface eth0\n  inform ADDR/PLEN\n"},
    "words of a format that is not known, once moved": {
        "/etc/network/interfaces": "iface eth0 inet static\n address ADDR/PLEN\n",
        "/etc/wicked/ifconfig/eth0.xml": "<local>ADDR/PLEN</local><!-- 192.0.2.100 --><src>ADDR/32</src>",
        "/etc/netctl/eth0": "Address=('ADDR/PLEN')\n",
    },
}  # fmt: skip


def spelled(files: dict[str, str], values: dict[str, str]) -> dict[str, str]:
    marks = re.compile(rf"\b(?:{'|'.join(values)})\b")
    return {path: marks.sub(lambda mark: values[mark[0]], text) for path, text in files.items()}


@pytest.mark.parametrize("form", FORMS)
def test_all_of_a_form_and_nothing_else(tmp_path: Path, form: str, caplog: pytest.LogCaptureFixture) -> None:
    guest = GuestFiles.make(tmp_path, {"/etc/hostname": "inst1\n", **spelled(FORMS[form], OLD)})
    for _ in range(2):
        guest.rename("198.51.100.5", **NETWORK)
        assert contents(guest, FORMS[form]) == spelled(FORMS[form], NEW)
        assert warnings(caplog) == []


# The same with IPv6, as far as the format differs.
SIX: dict[str, dict[str, str]] = {
    "keyfile": {
        "/etc/NetworkManager/system-connections/a": "[ipv6]\naddress1=ADDR/PLEN,GATE\n"
        "route1=::/0,GATE\ndns=2001:db8::1;\n"
    },
    "networkd": {"/etc/systemd/network/a.network": "[Network]\nAddress=ADDR/PLEN\nGateway=GATE\nAddress=10.0.0.9/8\n"},
    "ifcfg": {
        f"{IFCFG}/ifcfg-eth0": "IPADDR=10.0.0.9\nPREFIX=8\nIPV6ADDR=ADDR/PLEN\nIPV6_DEFAULTGW=GATE%eth0\n"
        'IPV6ADDR_SECONDARIES="2001:db8::11/64"\n',
        f"{IFCFG}/route6-eth0": "default via GATE dev eth0\n2001:db8:7::/48 via 2001:db8::1\n",
    },
    "netplan": {
        "/etc/netplan/a.yaml": NETPLAN_HEAD + "      addresses: [10.0.0.9/8, 'ADDR/PLEN']\n      gateway6: GATE\n"
        "      routes: [{to: '::/0', via: 'GATE'}]\n"
    },
    "ifupdown": {
        "/etc/network/interfaces": "iface eth0 inet static\n address 10.0.0.9/8\n"
        "iface eth0 inet6 static\n address ADDR\n netmask PLEN\n gateway GATE\n up ip -6 rule add from ADDR table 7\n"
    },
    "netifrc": {"/etc/conf.d/net": 'config_eth0="10.0.0.9/8\n ADDR/PLEN"\nroutes_eth0="default via GATE"\n'},
    "dhcpcd": {"/etc/dhcpcd.conf": "interface eth0\nstatic ip_address=10.0.0.9/8\nstatic ip6_address=ADDR/PLEN\n"},
}  # fmt: skip
OLD_6 = {"ADDR": "2001:db8::10", "PLEN": "64", "GATE": "2001:db8::1"}
NEW_6 = {"ADDR": "2001:db8:9::5", "PLEN": "56", "GATE": "2001:db8:9::1"}


@pytest.mark.parametrize("form", SIX)
def test_ipv6_alone(tmp_path: Path, form: str, caplog: pytest.LogCaptureFixture) -> None:
    guest = GuestFiles.make(tmp_path, {"/etc/hostname": "inst1\n", **spelled(SIX[form], OLD_6)})
    for _ in range(2):
        guest.rename("2001:db8:9::5", **NETWORK)
        assert contents(guest, SIX[form]) == spelled(SIX[form], NEW_6)
        assert warnings(caplog) == []


def test_an_address_written_in_another_way_is_the_same(tmp_path: Path) -> None:
    text = (
        "[Network]\nAddress=2001:DB8:0::0010/64\n\n[RoutingPolicyRule]\nFrom=2001:db8:0:0:0:0:0:10\nTo=2001:db8::100\n"
    )
    guest = GuestFiles.make(tmp_path, {"/etc/hostname": "inst1\n", "/etc/systemd/network/a.network": text})
    guest.rename("2001:db8:9::5", **NETWORK)
    assert guest.read()["/etc/systemd/network/a.network"] == (
        "[Network]\nAddress=2001:db8:9::5/56\n\n[RoutingPolicyRule]\nFrom=2001:db8:9::5\nTo=2001:db8::100\n"
    )


def test_the_known_address_among_several_is_changed_with_what_belongs_to_it(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    files = {
        f"{IFCFG}/ifcfg-eth0": "IPADDR0=10.0.0.9\nPREFIX0=8\nIPADDR1=192.0.2.10\nPREFIX1=24\nGATEWAY1=192.0.2.1\n",
        "/etc/ssh/sshd_config": "Port 22\nListenAddress 192.0.2.10:22\n# ListenAddress 192.0.2.10\n",
    }
    guest = GuestFiles.make(tmp_path, {"/etc/hostname": "inst1\n", **files})
    guest.tell("instances/inst1.example.org", "ADDRESS=192.0.2.10\n")
    with caplog.at_level(logging.INFO):
        guest.rename("198.51.100.5", **NETWORK)
    assert guest.read()[f"{IFCFG}/ifcfg-eth0"] == (
        "IPADDR0=10.0.0.9\nPREFIX0=8\nIPADDR1=198.51.100.5\nPREFIX1=26\nGATEWAY1=198.51.100.62\n"
    )
    assert guest.read()["/etc/ssh/sshd_config"] == files["/etc/ssh/sshd_config"]
    assert warnings(caplog) == [
        "/etc/ssh/sshd_config:2: 192.0.2.10 remains here, which the instance has no longer; change it inside the guest"
    ]
    assert "/etc/ssh/sshd_config:3: a comment names 192.0.2.10" in caplog.text


def test_a_gateway_outside_the_new_network_is_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    text = "iface eth0 inet static\n address 192.0.2.10/24\n gateway 192.0.2.1\n"
    guest = GuestFiles.make(tmp_path, {"/etc/hostname": "inst1\n", "/etc/network/interfaces": text})
    guest.rename("198.51.100.5", NIC_0_NETWORK_SUBNET="198.51.100.0/26")
    assert guest.read()["/etc/network/interfaces"] == text.replace("192.0.2.10/24", "198.51.100.5/26")
    assert warnings(caplog) == [
        "/etc/network/interfaces:3: the gateway 192.0.2.1 is kept, although it is not in 198.51.100.0/26: "
        "no other one is known"
    ]


@pytest.mark.parametrize(
    ("files", "warned"),
    [
        ({"/etc/systemd/network/a.network": "[Network]\nAddress=192.0.2.10/24\nGateway=192.0.2.1\n"}, True),
        ({"/etc/systemd/network/a.network": "[Network]\nAddress=192.0.2.10/32\nGateway=192.0.2.1\n"}, False),
        ({"/etc/NetworkManager/system-connections/a": KEYFILE + "address1=192.0.2.10/24,192.0.2.1\n"}, False),
    ],
)
def test_a_gateway_that_becomes_one_outside_its_network(
    tmp_path: Path, files: dict[str, str], warned: bool, caplog: pytest.LogCaptureFixture
) -> None:
    guest = GuestFiles.make(tmp_path, {"/etc/hostname": "inst1\n", **files})
    guest.rename("198.51.100.5", NIC_0_NETWORK_SUBNET="198.51.100.5/32", NIC_0_NETWORK_GATEWAY="203.0.113.1")
    assert "203.0.113.1" in str(contents(guest, files))
    expected = ["/etc/systemd/network/a.network:3: the gateway 203.0.113.1 is not in 198.51.100.5/32; the file must "
                "say that it is on the link"] if warned else []  # fmt: skip
    assert warnings(caplog) == expected


def test_what_a_template_gives_to_two_nics_stays(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    text = (
        "iface lan inet static\n gateway 192.0.2.1\n"
        "iface eth0 inet static inherits lan\n address 192.0.2.10/24\n"
        "iface eth1 inet static inherits lan\n address 192.0.2.11/24\n"
    )
    guest = GuestFiles.make(tmp_path, {"/etc/hostname": "inst1\n", "/etc/network/interfaces": text})
    networks = {"NIC_1_NETWORK_SUBNET": "203.0.113.0/24", "NIC_1_NETWORK_GATEWAY": "203.0.113.1"}
    guest.rename("198.51.100.5", "203.0.113.5", **NETWORK, **networks)
    after = str(guest.read()["/etc/network/interfaces"])
    assert after == text.replace("192.0.2.10/24", "198.51.100.5/26").replace("192.0.2.11/24", "203.0.113.5/24")
    assert warnings(caplog) == [
        "/etc/network/interfaces:2: 192.0.2.1 is kept: it would be another one for each NIC",
    ]


def test_the_same_address_of_another_interface_stays(tmp_path: Path) -> None:
    text = "iface eth0 inet static\n address 10.0.0.1/24\niface eth1 inet static\n address 10.0.0.1/24\n"
    guest = GuestFiles.make(tmp_path, {"/etc/hostname": "inst1\n", "/etc/network/interfaces": text})
    guest.rename("10.0.0.5", "")
    assert guest.read()["/etc/network/interfaces"] == text.replace("10.0.0.1", "10.0.0.5", 1)


@pytest.mark.parametrize("pattern", ["/etc/network/*.d/x", "$HOME/x", "`ls`"])
def test_a_source_that_is_not_followed_is_told(tmp_path: Path, pattern: str, caplog: pytest.LogCaptureFixture) -> None:
    guest = GuestFiles.make(tmp_path, {"/etc/hostname": "inst1\n", "/etc/network/interfaces": f"\nsource {pattern}\n"})
    guest.rename("10.0.0.5")
    assert warnings(caplog) == ["/etc/network/interfaces:2: the files of this source are not searched"]


TWO = (
    "iface eth0 inet static\n address 192.0.2.10/24\n up ip addr add 10.9.9.9/8 dev eth0\n"
    "iface eth0:1 inet static\n address 192.0.2.11/24\n"
)


@pytest.mark.parametrize(
    ("hosts", "after"),
    [
        ("192.0.2.11 inst1.example.org inst1\n", "192.0.2.11"),
        ("192.0.2.10 gw inst1\n10.9.9.9 gw\n", "192.0.2.10"),
        ("192.0.2.10 inst1\n192.0.2.11 inst1\n", None),
        ("127.0.1.1 inst1\n192.0.2.11 gw\n", None),
        ("203.0.113.1 inst1\n", None),
    ],
)
def test_of_several_addresses_it_is_the_one_that_hosts_gives_the_old_name(
    tmp_path: Path, hosts: str, after: str | None, caplog: pytest.LogCaptureFixture
) -> None:
    guest = GuestFiles.make(tmp_path, {"/etc/hostname": "inst1\n", "/etc/network/interfaces": TWO, "/etc/hosts": hosts})
    guest.rename("192.0.2.77")
    assert guest.read()["/etc/network/interfaces"] == (TWO.replace(after, "192.0.2.77") if after else TWO)
    assert bool(warnings(caplog)) == (after is None)
    if after is None:
        assert "/etc/network/interfaces:2: 192.0.2.10, " in caplog.text
        assert "/etc/network/interfaces:5: 192.0.2.11" in caplog.text


def test_both_families_of_one_nic(tmp_path: Path) -> None:
    text = "[Network]\nAddress={}\nAddress={}\nGateway={}\nGateway={}\n"
    guest = GuestFiles.make(
        tmp_path,
        {"/etc/systemd/network/a.network": text.format("192.0.2.10/24", "2001:db8::10/64", "192.0.2.1", "fe80::1")},
    )
    four = NewAddress(IPv4Address("198.51.100.5"), IPv4Network("198.51.100.0/26"), IPv4Address("198.51.100.62"))
    six = NewAddress(IPv6Address("2001:db8:9::5"), IPv6Network("2001:db8:9::/56"), IPv6Address("2001:db8:9::1"))
    with open_mounted_tree(guest.root) as tree:
        draft = Draft(tree)
        moved = change_addresses(draft, (NicNetwork(0, None, (four, six)),))
        draft.write(lambda path: 0)
    assert guest.read()["/etc/systemd/network/a.network"] == text.format(
        "198.51.100.5/26", "2001:db8:9::5/56", "198.51.100.62", "2001:db8:9::1"
    )
    assert moved.addresses == {b"192.0.2.10": b"198.51.100.5", b"2001:db8::10": b"2001:db8:9::5"}
    assert moved.paths == {"/etc/systemd/network/a.network"}


NAMES = {
    "ifupdown, source": {
        "/etc/network/interfaces": "source other/*\n",
        "/etc/network/other/eth0": "iface eth0 inet dhcp\n hostname inst1\n udhcpc_opts -x hostname:inst1 -b\n",
    },
    "networkd, drop-in": {"/etc/systemd/network/a.network.d/b.conf": "[DHCPv4]\nHostname=inst1.example.org\n"},
    "netplan in braces": {
        "/etc/netplan/a.yaml": "network: {ethernets: {inst1: {dhcp4: yes, dhcp4-overrides: {hostname: inst1}}}}\n"
    },
    "netplan as JSON": {
        "/lib/netplan/a.yaml": '{"network": {"ethernets": {"e": {"x": {"hostname":"inst1", "a": 1}}}}}'
    },
    "keyfile in /usr/lib": {"/usr/lib/NetworkManager/system-connections/a": "[ipv4]\ndhcp-hostname=inst1\n"},
}


@pytest.mark.parametrize("form", NAMES)
def test_the_name_for_the_dhcp_server_in_the_same_places(tmp_path: Path, form: str) -> None:
    guest = GuestFiles.make(tmp_path, {"/etc/hostname": "inst1\n", **NAMES[form]})
    guest.rename("")
    kept = "ethernets: {inst1:"
    after = {
        path: text.replace(kept, "KEPT").replace("inst1.example.org", "inst2.example.net").replace("inst1", "inst2")
        for path, text in NAMES[form].items()
    }
    assert contents(guest, NAMES[form]) == {path: text.replace("KEPT", kept) for path, text in after.items()}


PIECES = [
    "\n",
    " ",
    "\\\n",
    '"',
    "'",
    "#",
    "=",
    "[",
    "]",
    "{",
    ":",
    ";",
    ",",
    "/",
    ".",
    "1",
    "%",
    "\x00",
    "\xe4",
    "a",
    "iface ",
    "via ",
]


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.sampled_from(sorted(FORMS)),
    st.lists(st.tuples(st.integers(0, 400), st.sampled_from(PIECES), st.integers(0, 4)), min_size=1, max_size=3),
)
def test_of_damaged_files_nothing_but_numbers_changes(
    tmp_path_factory: pytest.TempPathFactory, form: str, changes: list[tuple[int, str, int]]
) -> None:
    files = spelled(FORMS[form], OLD)
    for position, inserted, removed in changes:
        path = sorted(files)[position % len(files)]
        place = position % (len(files[path]) + 1)
        files[path] = files[path][:place] + inserted + files[path][place + removed :]
    guest = GuestFiles.make(tmp_path_factory.mktemp("guest"), {"/etc/hostname": "inst1\n", **files})
    guest.rename("198.51.100.5", **NETWORK)
    once = contents(guest, files)
    assert {path: NUMBERS.sub("@", text) for path, text in once.items()} == {
        path: NUMBERS.sub("@", text) for path, text in files.items()
    }
    guest.rename("198.51.100.5", **NETWORK)
    assert contents(guest, files) == once


NUMBERS = re.compile(r"[0-9.]+")
