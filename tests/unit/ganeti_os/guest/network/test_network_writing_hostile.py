# SPDX-License-Identifier: MIT
"""Writing the network into hostile or odd guests: nothing outside is touched, and none takes long."""

from __future__ import annotations

import os
import time
from ipaddress import ip_address
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from ganeti_os.guest.facts.instance import Facts
from ganeti_os.guest.facts.nics import NewAddress, NicNetwork
from ganeti_os.guest.network.configure import configure_network
from ganeti_os.guest.network.writing.appended_lines import own_block, with_block
from pydiskimg.errors import DiskImageError
from pydiskimg.files.mounted_tree import open_mounted_tree
from pydiskimg.system.edits.draft import Draft
from tests.fixtures.guests import GuestFiles
from tests.fixtures.network_guests import (
    ALL,
    ALMA_8,
    DEBIAN_CLOUD,
    DEBIAN_MINIMAL,
    DEBIAN_TARBALL,
    GENTOO,
    LEAP_15,
    MACS,
    ROCKY_9,
    STATIC,
    System,
)
from tests.fixtures.odd_files import put_odd_file
from tests.fixtures.written_networks import END, MARK, become, changed, every_system

OURS = {
    "/etc/network/interfaces": DEBIAN_TARBALL,
    "/etc/netplan/95-ganeti.yaml": DEBIAN_CLOUD,
    "/etc/systemd/network/0-ganeti-nic0.network": DEBIAN_MINIMAL,
    "/etc/NetworkManager/system-connections/ganeti-nic0.nmconnection": ROCKY_9,
    "/etc/sysconfig/network-scripts/ifcfg-nic0": ALMA_8,
    "/etc/sysconfig/network/ifcfg-nic0": LEAP_15,
    "/etc/udev/rules.d/70-ganeti-nics.rules": LEAP_15,
    "/etc/conf.d/net": GENTOO,
}


@pytest.mark.parametrize("kind", ["fifo", "directory", "large", "link", "link to a directory", "parent"])
@pytest.mark.parametrize(("path", "system"), OURS.items(), ids=list(OURS))
def test_hostile_guests(tmp_path: Path, path: str, system: System, kind: str) -> None:
    guest = system.make(tmp_path)
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "file").write_text("of the node\n")
    target = Path(f"{guest.root}{path}")
    if kind == "parent":
        if target.parent.exists():
            os.rename(target.parent, f"{target.parent}.moved")
        target.parent.parent.mkdir(parents=True, exist_ok=True)
        target.parent.symlink_to(outside)
    else:
        target.parent.mkdir(parents=True, exist_ok=True)
        target.unlink(missing_ok=True)
        put_odd_file(target, kind, link=outside if "directory" in kind else outside / "file")
    told = path
    started = time.monotonic()
    try:
        become(guest, STATIC)
    except DiskImageError as error:
        told = str(error)
    assert path.rpartition("/")[2] in told or path.rpartition("/")[0] in told
    assert time.monotonic() - started < 5
    assert [path.name for path in outside.iterdir()] == ["file"]
    assert (outside / "file").read_text() == "of the node\n"


def test_a_program_of_ten_gigabytes_is_not_read(tmp_path: Path) -> None:
    guest = DEBIAN_TARBALL.make(tmp_path)
    with Path(f"{guest.root}/usr/sbin/ifup").open("wb") as file:
        file.truncate(10 << 30)
    assert "iface nic0 inet static" in become(guest, STATIC)["/etc/network/interfaces"]


@pytest.mark.parametrize("mac", ["", "aa:00:00:3b:d4", "aa:00:00:3b:d4:01\nup rm -rf /", 'a"; $(x)'])
def test_a_mac_address_that_is_none_is_not_written(tmp_path: Path, mac: str) -> None:
    found = changed(DEBIAN_TARBALL, tmp_path, STATIC | {"NIC_0_MAC": mac})
    assert found == {}


LINES = st.lists(
    st.sampled_from(
        [
            "auto lo",
            "auto lo eth0",
            "iface lo inet loopback",
            "iface eth0 inet dhcp",
            "\taddress 192.0.2.1",
            "# x",
            "",
            "source /etc/network/interfaces.d/*",
            "allow-hotplug eth0 \\",
            "  eth1",
            MARK.rstrip(),
            END.rstrip(),
            "\\",
        ]
    ),
    max_size=12,
)


@settings(max_examples=30)
@given(LINES)
@example(["allow-hotplug eth0 \\", MARK.rstrip(), "auto lo eth0"])
def test_any_interfaces_file_gives_the_same_twice(lines: list[str]) -> None:
    with TemporaryDirectory() as directory:
        guest = DEBIAN_TARBALL.make(Path(directory), {"/etc/network/interfaces": "\n".join(lines)})
        found = []
        with open_mounted_tree(guest.root) as tree:
            draft = Draft(tree)
            for _ in range(2):
                configure_network(draft, FACTS)
                found.append(draft.read("/etc/network/interfaces") or b"")
    assert found[0] == found[1]
    assert found[0].count(b"iface nic0 inet static") == 1


@given(st.binary(max_size=60), st.binary(max_size=20), st.binary(max_size=20))
def test_our_lines_in_a_file(before: bytes, first: bytes, second: bytes) -> None:
    once = with_block(before, first)
    assert with_block(once, first) == once
    assert not own_block(with_block(once, b""))
    if first and second:
        assert with_block(with_block(once, second), first) == once


FACTS = Facts(
    name="inst2",
    old_name=None,
    uuid=None,
    is_new=True,
    nics=(NicNetwork(0, MACS[0], (NewAddress(ip_address("198.51.100.7"), None, ip_address("198.51.100.1")),)),),
)


def seconds(guest: GuestFiles) -> float:
    with open_mounted_tree(guest.root) as tree:
        started = time.process_time()
        configure_network(Draft(tree), FACTS)
        return time.process_time() - started


@every_system
def test_seconds(tmp_path: Path, system: System) -> None:
    guest = system.make(tmp_path)
    assert min(seconds(guest) for _ in range(3)) < 0.1  # 0.005 on an idle machine


@pytest.mark.parametrize(
    ("system", "path", "line"),
    [
        (DEBIAN_TARBALL, "/etc/network/interfaces", "iface a inet dhcp\n"),
        (DEBIAN_TARBALL, "/etc/network/interfaces", " \\\n"),
        (DEBIAN_TARBALL, "/etc/network/interfaces", MARK),
        (DEBIAN_TARBALL, "/etc/network/interfaces", END),
        (GENTOO, "/etc/conf.d/net", 'config_a="'),
        (LEAP_15, "/etc/sysconfig/network/config", "NETCONFIG_DNS_STATIC_SERVERS= "),
        (LEAP_15, "/etc/sysconfig/network/ifcfg-eth0", "A="),
        (ALMA_8, "/etc/sysconfig/network-scripts/ifcfg-eth0", "TYPE="),
        (ROCKY_9, "/etc/NetworkManager/system-connections/x", "[connection]\n"),
        (ALL["Arch"], "/etc/systemd/network/x.network", "Name=a\n[Match]\n"),
    ],
)
def test_much_of_one_line_takes_no_long_time(tmp_path: Path, system: System, path: str, line: str) -> None:
    guest = system.make(tmp_path, {path: line * ((256 << 10) // len(line))})
    assert seconds(guest) < 5  # 0.5 on an idle machine
