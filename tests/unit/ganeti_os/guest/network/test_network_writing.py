# SPDX-License-Identifier: MIT
"""The network of an instance in each distribution's files: what is written, what stays, and when."""

from __future__ import annotations

import logging
import re
from pathlib import Path

import pytest

from ganeti_os.guest.network.systems import network_system
from pydiskimg.files.mounted_tree import open_mounted_tree
from pydiskimg.system.edits.draft import Draft
from tests.fixtures.guests import OLD, GuestFiles
from tests.fixtures.network_guests import (
    ALL,
    ALMA_8,
    ALPINE,
    CENTOS_6,
    DEBIAN_CLOUD,
    DEBIAN_INSTALLED,
    DEBIAN_MINIMAL,
    DEBIAN_TARBALL,
    GENTOO,
    IFUP,
    LEAP_15,
    MACS,
    ROCKY_9,
    STATIC,
    System,
    nic,
    without_udev,
)
from tests.fixtures.written_networks import END, MARK, become, changed, every_system, files, rename

# A NIC that the image does not mention: none of its files names an interface.
WITHOUT_NICS = ("Debian tarball", "Debian minbase", "Ubuntu tarball")


FULL = {
    **nic(0, "198.51.100.7", subnet="198.51.100.0/24", gateway="198.51.100.1"),
}
SECOND = nic(1)


def told(guest: GuestFiles, *, gateway: str = "198.51.100.1", more: str = "") -> None:
    """Write both families and name servers of the new instance into NETWORKS_DIR."""
    guest.tell("instances/inst2.example.net", f"ADDRESS=198.51.100.7\nADDRESS6=2001:db8::7\nSUBNET=lan\n{more}")
    guest.tell(
        "subnets/lan",
        f"NETMASK=24\nGATEWAY={gateway}\nNETMASK6=64\nGATEWAY6=2001:db8::1\nDNS_SERVERS='198.51.100.53 2001:db8::53'\n",
    )


def test_debian_tarball(tmp_path: Path) -> None:
    guest = DEBIAN_TARBALL.make(tmp_path)
    told(guest)
    assert become(guest, nic(0), SECOND)["/etc/network/interfaces"] == (
        "# interfaces(5) file used by ifup(8) and ifdown(8)\n# Include files from /etc/network/interfaces.d:\n"
        f"source /etc/network/interfaces.d/*\n\n{MARK}auto nic0\n"
        "iface nic0 inet static\n    address 198.51.100.7\n    netmask 255.255.255.0\n    gateway 198.51.100.1\n"
        "    dns-nameservers 198.51.100.53 2001:db8::53\n    dns-search example.net\n"
        "iface nic0 inet6 static\n    address 2001:db8::7\n    netmask 64\n    gateway 2001:db8::1\n\n"
        f"auto nic1\niface nic1 inet dhcp\n{END}"
    )


def test_an_installed_debian_loses_the_stanza_of_its_own(tmp_path: Path) -> None:
    found = changed(DEBIAN_INSTALLED, tmp_path, STATIC)
    assert found.pop("/etc/udev/rules.d/70-ganeti-nics.rules")
    assert found == {
        "/etc/network/interfaces": "source /etc/network/interfaces.d/*\n\n# The loopback network interface\nauto lo\n"
        f"iface lo inet loopback\n\n# The primary network interface\n\n{MARK}auto nic0\n"
        f"iface nic0 inet static\n    address 198.51.100.7\n"
        f"    netmask 255.255.255.0\n    gateway 198.51.100.1\n{END}"
    }


def test_stanzas_in_other_files_go_too_and_those_of_the_loopback_stay(tmp_path: Path) -> None:
    guest = DEBIAN_INSTALLED.make(
        tmp_path,
        {
            "/etc/network/interfaces": "auto lo eth0 \\\n  eth1\niface lo inet loopback\nallow-hotplug eth2\n",
            "/etc/network/interfaces.d/setup": "auto eth0\niface eth0 inet dhcp\n  # a comment\n  metric 5\n# after\n",
        },
    )
    found = become(guest, STATIC)
    assert found["/etc/network/interfaces"].startswith(f"auto lo\niface lo inet loopback\n\n{MARK}")
    assert found["/etc/network/interfaces.d/setup"] == "# after\n"


def test_udev_names_the_nics_for_ifupdown(tmp_path: Path) -> None:
    assert changed(DEBIAN_TARBALL, tmp_path, STATIC, SECOND)["/etc/udev/rules.d/70-ganeti-nics.rules"] == "".join(
        f'SUBSYSTEM=="net", ACTION=="add", DRIVERS=="?*", ATTR{{address}}=="{mac}", ATTR{{type}}=="1", NAME:="{name}"\n'
        for mac, name in zip(MACS, ("nic0", "nic1"), strict=False)
    )


@pytest.mark.parametrize(
    ("program", "auto"), [(IFUP, f"auto mac/{MACS[0]}=nic0\niface nic0 "), (b"of Debian 7", "auto eth0\niface eth0 ")]
)
def test_ifupdown_without_udev(tmp_path: Path, program: bytes, auto: str) -> None:
    system = without_udev(program)
    found = changed(system, tmp_path, STATIC)
    assert list(found) == ["/etc/network/interfaces"]
    assert f"{MARK}{auto}inet static\n" in (found["/etc/network/interfaces"] or "")


def test_alpine_goes_by_the_kernels_names(tmp_path: Path) -> None:
    assert changed(ALPINE, tmp_path, STATIC) == {
        "/etc/network/interfaces": f"auto lo\niface lo inet loopback\n\n{MARK}auto eth0\niface eth0 inet static\n"
        "    address 198.51.100.7\n    netmask 255.255.255.0\n"
        f"    gateway 198.51.100.1\n{END}"
    }


def test_netplan(tmp_path: Path) -> None:
    guest = DEBIAN_CLOUD.make(tmp_path)
    told(guest, gateway="203.0.113.1")
    found = become(guest, nic(0), SECOND)
    assert found["/etc/netplan/95-ganeti.yaml"] == MARK + (
        f'network:\n  version: 2\n  ethernets:\n    nic0:\n      match:\n        macaddress: "{MACS[0]}"\n'
        '      dhcp4: false\n      addresses:\n        - "198.51.100.7/24"\n        - "2001:db8::7/64"\n'
        '      nameservers:\n        addresses: ["198.51.100.53", "2001:db8::53"]\n        search: ["example.net"]\n'
        '      routes:\n        - to: "0.0.0.0/0"\n          via: "203.0.113.1"\n          on-link: true\n'
        '        - to: "::/0"\n          via: "2001:db8::1"\n'
        f'    nic1:\n      match:\n        macaddress: "{MACS[1]}"\n      dhcp4: true\n'
    )
    assert "/etc/netplan/90-default.yaml" not in found
    assert (guest.root / "etc/netplan/95-ganeti.yaml").stat().st_mode & 0o777 == 0o600


def test_netplan_keeps_its_renderer(tmp_path: Path) -> None:
    desktop = {
        "/etc/netplan/01.yaml": "network: {version: 2, renderer: NetworkManager, ethernets: {eth0: {dhcp4: true}}}\n"
    }
    desktop["/etc/netplan/02.yaml"] = "network:\n  renderer: NetworkManager\n"
    guest = DEBIAN_CLOUD.make(tmp_path, dict(desktop))
    found = become(guest, STATIC)
    assert "/etc/netplan/01.yaml" not in found
    assert found["/etc/netplan/02.yaml"] == desktop["/etc/netplan/02.yaml"]
    assert "  renderer: NetworkManager\n" in found["/etc/netplan/95-ganeti.yaml"]


def test_networkd_and_what_starts_it(tmp_path: Path) -> None:
    wanted, units = "/etc/systemd/system", "/usr/lib/systemd/system"
    assert changed(DEBIAN_MINIMAL, tmp_path, STATIC) == {
        "/etc/systemd/network/0-ganeti-nic0.network": f"[Match]\nMACAddress={MACS[0]}\nType=ether\n\n[Network]\n"
        "Address=198.51.100.7/24\n\n[Route]\nGateway=198.51.100.1\n",
        f"{wanted}/multi-user.target.wants/systemd-networkd.service": f"-> {units}/systemd-networkd.service",
        f"{wanted}/network-online.target.wants/systemd-networkd-wait-online.service": f"-> {units}/"
        "systemd-networkd-wait-online.service",
        f"{wanted}/sockets.target.wants/systemd-networkd.socket": f"-> {units}/systemd-networkd.socket",
    }


def test_a_keyfile_of_network_manager(tmp_path: Path) -> None:
    guest = ROCKY_9.make(tmp_path)
    told(guest)
    path = "/etc/NetworkManager/system-connections/ganeti-nic0.nmconnection"
    text = become(guest, nic(0))[path]
    assert re.sub("uuid=.*", "uuid=U", text) == MARK + (
        "[connection]\nid=ganeti-nic0\nuuid=U\ntype=ethernet\nautoconnect-priority=999\n\n[ethernet]\n"
        f"mac-address={MACS[0].upper()}\n\n[ipv4]\nmethod=manual\naddress1=198.51.100.7/24,198.51.100.1\n"
        "dns=198.51.100.53;\ndns-search=example.net;\n\n[ipv6]\nmethod=manual\naddress1=2001:db8::7/64,2001:db8::1\n"
        "dns=2001:db8::53;\ndns-search=example.net;\n"
    )
    assert Path(f"{guest.root}{path}").stat().st_mode & 0o777 == 0o600


def test_ifcfg_files_of_network_manager(tmp_path: Path) -> None:
    directory = "/etc/sysconfig/network-scripts"
    assert changed(ALMA_8, tmp_path, STATIC) == {
        f"{directory}/ifcfg-eth0": None,
        f"{directory}/ifcfg-nic0": f"TYPE=Ethernet\nNAME=nic0\nHWADDR={MACS[0].upper()}\nONBOOT=yes\n"
        "AUTOCONNECT_PRIORITY=999\nBOOTPROTO=none\nIPADDR=198.51.100.7\nPREFIX=24\nNETMASK=255.255.255.0\n"
        "GATEWAY=198.51.100.1\nIPV6INIT=yes\n",
    }


def test_red_hats_scripts_reach_a_gateway_outside_of_the_network(tmp_path: Path) -> None:
    guest = CENTOS_6.make(tmp_path, {"/etc/sysconfig/network-scripts/route-eth0": "203.0.113.0/24 via 192.0.2.1\n"})
    told(guest, gateway="203.0.113.1")
    found = become(guest, nic(0))
    directory = "/etc/sysconfig/network-scripts"
    assert "DEVICE=nic0\n" in found[f"{directory}/ifcfg-nic0"]
    assert "\nGATEWAY" not in found[f"{directory}/ifcfg-nic0"]
    assert found[f"{directory}/route-nic0"] == f"{MARK}203.0.113.1/32 dev nic0\ndefault via 203.0.113.1 dev nic0\n"
    assert not {f"{directory}/route-eth0", f"{directory}/ifcfg-eth0"} & found.keys()
    guest.tell("subnets/lan", "NETMASK=24\nGATEWAY=198.51.100.1\n")
    assert f"{directory}/route-nic0" not in rename(guest, nic(0))


def test_wicked(tmp_path: Path) -> None:
    guest = LEAP_15.make(
        tmp_path, {"/etc/sysconfig/network/routes": "default 192.0.2.1 - -\n10.0.0.0/8 192.0.2.2 - -\n"}
    )
    told(guest, gateway="203.0.113.1")
    found = become(guest, nic(0), SECOND)
    directory = "/etc/sysconfig/network"
    assert found[f"{directory}/ifcfg-nic0"] == (
        f"{MARK}STARTMODE='auto'\nBOOTPROTO='static'\nIPADDR='198.51.100.7/24'\nIPADDR_1='2001:db8::7/64'\n"
    )
    assert found[f"{directory}/ifroute-nic0"] == (
        f"{MARK}203.0.113.1/32 - - nic0\ndefault 203.0.113.1 - nic0\ndefault 2001:db8::1 - nic0\n"
    )
    assert found[f"{directory}/ifcfg-nic1"] == f"{MARK}STARTMODE='auto'\nBOOTPROTO='dhcp'\n"
    assert found[f"{directory}/routes"] == "10.0.0.0/8 192.0.2.2 - -\n"
    assert 'NETCONFIG_DNS_STATIC_SERVERS="198.51.100.53 2001:db8::53"\n' in found[f"{directory}/config"]
    assert 'NETCONFIG_DNS_STATIC_SEARCHLIST="example.net"\n' in found[f"{directory}/config"]
    assert f"{directory}/ifcfg-eth0" not in found
    assert found["/etc/udev/rules.d/70-ganeti-nics.rules"].count("NAME:=") == 2


def test_netifrc(tmp_path: Path) -> None:
    guest = GENTOO.make(tmp_path)
    told(guest, gateway="203.0.113.1")
    found = become(guest, nic(0), SECOND)
    assert found["/etc/conf.d/net"] == (
        f'# See /usr/share/doc/netifrc for examples\n\n{MARK}config_nic0="198.51.100.7/24\n2001:db8::7/64"\n'
        'routes_nic0="default via 203.0.113.1 onlink\ndefault via 2001:db8::1"\n'
        'dns_servers_nic0="198.51.100.53 2001:db8::53"\ndns_search_nic0="example.net"\n'
        f'config_nic1="dhcp"\n{END}'
    )
    services = {name: target for name, target in found.items() if "/net." in name}
    assert services == {
        "/etc/init.d/net.eth0": "-> net.lo",
        "/etc/init.d/net.lo": "#!/sbin/openrc-run\n",
        "/etc/init.d/net.nic0": "-> /etc/init.d/net.lo",
        "/etc/init.d/net.nic1": "-> /etc/init.d/net.lo",
        "/etc/runlevels/boot/net.lo": "-> /etc/init.d/net.lo",
        "/etc/runlevels/default/net.nic0": "-> /etc/init.d/net.nic0",
        "/etc/runlevels/default/net.nic1": "-> /etc/init.d/net.nic1",
    }


@every_system
def test_a_second_run_changes_nothing_and_a_rename_gives_another_address(tmp_path: Path, system: System) -> None:
    guest = system.make(tmp_path)
    first = become(guest, STATIC)
    assert any("198.51.100.7" in text for text in first.values())
    assert become(guest, STATIC) == first
    assert rename(guest, STATIC) == first
    moved = nic(0, "203.0.113.9", subnet="203.0.113.0/26", gateway="203.0.113.62")
    second = rename(guest, moved)
    assert not re.search(r"198\.51\.100|255\.255\.255\.0|/24\b", "".join(second.values()))
    assert all(any(word in text for text in second.values()) for word in ("203.0.113.9", "203.0.113.62"))
    assert rename(guest, STATIC) == first


@every_system
def test_another_mac_address_after_an_import(tmp_path: Path, system: System) -> None:
    guest = system.make(tmp_path)
    first = become(guest, STATIC, nic(1))
    mac = "aa:00:00:99:99:99"
    second = rename(guest, STATIC | {"NIC_0_MAC": mac}, nic(1))
    again = {name: re.sub("uuid=.*", "", text) for name, text in second.items()}
    expected = {
        name: re.sub("uuid=.*", "", text.replace(MACS[0], mac).replace(MACS[0].upper(), mac.upper()))
        for name, text in first.items()
    }
    assert again == expected


@every_system
def test_a_nic_that_is_taken_away(tmp_path: Path, system: System) -> None:
    guest = system.make(tmp_path)
    become(guest, STATIC, nic(1, "192.0.2.8", subnet="192.0.2.0/24"))
    found = rename(guest, STATIC)
    assert not any("192.0.2.8" in text or MACS[1] in text.lower() for text in found.values())
    assert any("198.51.100.7" in text for text in found.values())


@every_system
def test_dhcp_of_the_image_stays_and_is_written_where_there_is_none(
    tmp_path: Path, system: System, request: pytest.FixtureRequest
) -> None:
    found = changed(system, tmp_path, nic(0))
    is_without = request.node.callspec.id in WITHOUT_NICS
    assert bool(found) == is_without
    if is_without:
        assert any("dhcp" in (text or "").lower() for text in found.values())


@every_system
def test_two_gateways_make_one_default_route(tmp_path: Path, system: System) -> None:
    found = changed(
        system,
        tmp_path,
        nic(0, "192.0.2.8", subnet="192.0.2.0/24"),
        nic(1, "198.51.100.7", subnet="198.51.100.0/24", gateway="198.51.100.1"),
        nic(2, "203.0.113.7", subnet="203.0.113.0/24", gateway="203.0.113.1"),
    )
    text = "".join(text or "" for text in found.values())
    assert "198.51.100.1" in text.replace("198.51.100.7", "")
    assert not re.search(r"203\.0\.113\.1\b", text)


@every_system
def test_an_address_alone_is_not_written(tmp_path: Path, system: System, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    found = changed(system, tmp_path, nic(0, "198.51.100.7"))
    assert not any("198.51.100.7" in (text or "") for text in found.values())
    assert "NIC 0: the network of 198.51.100.7 is not known" in caplog.text


@every_system
def test_a_gateway_without_a_network_is_reached_on_the_link(tmp_path: Path, system: System) -> None:
    guest = system.make(tmp_path)
    guest.tell("instances/inst2.example.net", "ADDRESS=198.51.100.7\nSUBNET=lan\n")
    guest.tell("subnets/lan", "GATEWAY=198.51.100.1\n")
    text = "".join(become(guest, nic(0)).values())
    assert "198.51.100.7/32" in text or "255.255.255.255" in text
    assert "198.51.100.1" in text.replace("198.51.100.7", "")


@every_system
def test_an_address_of_ipv6_alone(tmp_path: Path, system: System) -> None:
    six = nic(0, "2001:db8::7", subnet="2001:db8::/64")
    text = "".join(text or "" for text in changed(system, tmp_path, six).values())
    assert re.search("2001:db8::7(/64|\n    netmask 64)", text)
    assert "dhcp" not in text.lower().replace("dhcp4: false", "")


DEBIAN_STATIC: dict[str, str | bytes] = {
    "/etc/network/interfaces": "auto lo\niface lo inet loopback\n\nallow-hotplug ens3\niface ens3 inet static\n"
    "\taddress 192.0.2.10/24\n\tgateway 192.0.2.1\n\tmtu 1400\n",
}


def test_a_static_image_is_changed_in_place_and_not_written_anew(tmp_path: Path) -> None:
    guest = DEBIAN_TARBALL.make(tmp_path, DEBIAN_STATIC)
    expected = str(DEBIAN_STATIC["/etc/network/interfaces"]).replace("192.0.2.10", "198.51.100.7")
    expected = expected.replace("192.0.2.1\n", "198.51.100.1\n")
    assert become(guest, STATIC)["/etc/network/interfaces"] == expected
    assert rename(guest, STATIC)["/etc/network/interfaces"] == expected


def test_a_rename_leaves_addresses_that_are_in_doubt(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    two = (
        str(DEBIAN_STATIC["/etc/network/interfaces"]) + "auto ens4\niface ens4 inet static\n\taddress 203.0.113.4/24\n"
    )
    guest = DEBIAN_TARBALL.make(tmp_path, {"/etc/network/interfaces": two})
    assert rename(guest, STATIC)["/etc/network/interfaces"] == two
    assert "so it does not get 198.51.100.7/24" in caplog.text
    assert "203.0.113.4" not in become(guest, STATIC)["/etc/network/interfaces"]


def test_a_second_nic_is_written_beside_the_administrators_first(tmp_path: Path) -> None:
    guest = DEBIAN_TARBALL.make(
        tmp_path,
        {
            "/etc/network/interfaces": str(DEBIAN_STATIC["/etc/network/interfaces"])
            .replace("192.0.2.10/24", "198.51.100.7/24")
            .replace("192.0.2.1\n", "198.51.100.1\n")
        },
    )
    before = files(guest)["/etc/network/interfaces"]
    found = rename(guest, STATIC, nic(1, "203.0.113.4", subnet="203.0.113.0/24"))["/etc/network/interfaces"]
    assert found == before + (
        f"\n{MARK}auto nic1\niface nic1 inet static\n    address 203.0.113.4\n    netmask 255.255.255.0\n{END}"
    )
    assert rename(guest, STATIC)["/etc/network/interfaces"].rstrip("\n") == before.rstrip("\n")


def test_what_an_administrator_adds_after_ours_stays(tmp_path: Path) -> None:
    guest = DEBIAN_TARBALL.make(tmp_path)
    become(guest, STATIC)
    path = guest.root / "etc/network/interfaces"
    added = "\nauto br0\niface br0 inet static\n  address 10.0.0.1/8\n  bridge_ports none\n"
    path.write_text(path.read_text() + added)
    found = rename(guest, nic(0, "198.51.100.8", subnet="198.51.100.0/24"))["/etc/network/interfaces"]
    assert found.endswith(f"    address 198.51.100.8\n    netmask 255.255.255.0\n{END}{added}")


ODD = {
    "bridge": (DEBIAN_TARBALL, "/etc/network/interfaces", "auto br0\niface br0 inet dhcp\n  bridge_ports eth0\n"),
    "VLAN": (DEBIAN_TARBALL, "/etc/network/interfaces.d/x", "auto eth0.7\niface eth0.7 inet dhcp\n"),
    "mapping": (DEBIAN_TARBALL, "/etc/network/interfaces", "mapping eth0\n  script /x\niface home inet dhcp\n"),
    "source": (DEBIAN_TARBALL, "/etc/network/interfaces", "source /srv/net/*\niface eth0 inet dhcp\n"),
    "ppp": (DEBIAN_TARBALL, "/etc/network/interfaces", "iface dsl inet ppp\n  provider x\n"),
    "netplan's bridge": (DEBIAN_CLOUD, "/etc/netplan/50.yaml", "network: {bridges: {br0: {interfaces: [eth0]}}}\n"),
    "netplan": (DEBIAN_CLOUD, "/etc/netplan/50.yaml", "network: [\n"),
    "netplan's size": (DEBIAN_CLOUD, "/etc/netplan/50.yaml", "network: {}\n" + "#" * (70 << 10)),
    "bridge by name": (DEBIAN_TARBALL, "/etc/network/interfaces", "iface br-lan inet manual\n"),
    "wireless": (DEBIAN_TARBALL, "/etc/network/interfaces", "iface wlp3s0 inet dhcp\n"),
    "networkd": (ALL["Arch"], "/etc/systemd/network/10.network", "[Match]\nName=en*\n[Network]\nBridge=br0\n"),
    "ifcfg": (ALMA_8, "/etc/sysconfig/network-scripts/ifcfg-eth0", "DEVICE=eth0\nBRIDGE=br0\n"),
    "ifcfg's team": (ALMA_8, "/etc/sysconfig/network-scripts/ifcfg-x", "DEVICE=x\nTYPE=Team\n"),
    "wicked": (LEAP_15, "/etc/sysconfig/network/ifcfg-br0", "BOOTPROTO='dhcp'\nBRIDGE='yes'\n"),
    "NetworkManager": (
        ROCKY_9,
        "/etc/NetworkManager/system-connections/x",
        "[connection]\ntype=ethernet\nmaster=br0\nslave-type=bridge\n",
    ),
    "netifrc": (GENTOO, "/etc/conf.d/net", 'bridge_br0="eth0"\n'),
}


@pytest.mark.parametrize(("system", "path", "text"), list(ODD.values()), ids=list(ODD))
def test_more_than_nics_stays_with_a_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, system: System, path: str, text: str
) -> None:
    guest = system.make(tmp_path, {path: text})
    before = files(guest)
    assert become(guest, STATIC) == before
    assert "the guest's network files have more than its NICs" in caplog.text
    assert path in caplog.text


def test_nothing_is_known_to_configure_the_network(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    guest = GuestFiles.make(tmp_path, {})
    become(guest, STATIC)
    assert "no known program configures the guest's network; it does not get 198.51.100.7/24" in caplog.text


def test_which_system_is_in_use(tmp_path: Path) -> None:
    names = {}
    for name, system in ALL.items():
        guest = system.make(tmp_path / name)
        with open_mounted_tree(guest.root) as tree:
            found = network_system(Draft(tree))
            names[name] = found.name if found else ""
    assert names == {
        "Debian tarball": "ifupdown",
        "Debian installed": "ifupdown",
        "Debian cloud": "netplan",
        "Debian minbase": "systemd-networkd",
        "Ubuntu tarball": "netplan",
        "Arch": "systemd-networkd",
        "Rocky 9": "NetworkManager",
        "Alma 8": "ifcfg files",
        "CentOS 6": "ifcfg files",
        "Leap 15": "wicked",
        "Leap 16": "NetworkManager",
        "Gentoo": "netifrc",
        "Alpine": "ifupdown",
    }


def test_network_manager_beside_ifupdown_leaves_it_what_it_has(tmp_path: Path) -> None:
    both = System(
        DEBIAN_INSTALLED.files | {"/usr/sbin/NetworkManager": b""},
        DEBIAN_INSTALLED.links
        | {"/etc/systemd/system/multi-user.target.wants/NetworkManager.service": "/usr/lib/systemd/system/x"},
    )
    guest = both.make(tmp_path / "1")
    assert "198.51.100.7" in become(guest, STATIC)["/etc/network/interfaces"]
    guest = both.make(tmp_path / "2", {"/etc/network/interfaces": "auto lo\niface lo inet loopback\n"})
    assert "/etc/NetworkManager/system-connections/ganeti-nic0.nmconnection" in become(guest, STATIC)


def test_name_servers_of_a_plain_resolv_conf(tmp_path: Path) -> None:
    guest = DEBIAN_TARBALL.make(tmp_path, {"/etc/resolv.conf": "nameserver 192.0.2.3\n"})
    told(guest)
    expected = f"{MARK}search example.net\nnameserver 198.51.100.53\nnameserver 2001:db8::53\n"
    assert rename(guest, nic(0))["/etc/resolv.conf"] == "nameserver 192.0.2.3\n"
    assert become(guest, nic(0))["/etc/resolv.conf"] == expected
    guest.tell("subnets/lan", "NETMASK=24\nNETMASK6=64\nDNS_SERVERS=192.0.2.54\nDNS_SEARCH=a.example\n")
    assert rename(guest, nic(0))["/etc/resolv.conf"] == f"{MARK}search a.example\nnameserver 192.0.2.54\n"


def test_a_resolv_conf_of_systemd_resolved_stays(tmp_path: Path) -> None:
    stub = "../run/systemd/resolve/stub-resolv.conf"
    guest = System(DEBIAN_MINIMAL.files, DEBIAN_MINIMAL.links | {"/etc/resolv.conf": stub}).make(tmp_path)
    told(guest)
    found = become(guest, nic(0))
    assert found["/etc/resolv.conf"] == f"-> {stub}"
    assert (
        "DNS=198.51.100.53\nDNS=2001:db8::53\nDomains=example.net\n"
        in found["/etc/systemd/network/0-ganeti-nic0.network"]
    )


def test_old_is_not_needed(tmp_path: Path) -> None:
    """A rename of a guest that create configured finds its own files by their first line."""
    guest = ROCKY_9.make(tmp_path)
    become(guest, STATIC)
    guest.rename("", old=OLD, new="inst3.example.org", **STATIC)
    assert (
        "198.51.100.7/24,198.51.100.1"
        in files(guest)["/etc/NetworkManager/system-connections/ganeti-nic0.nmconnection"]
    )
