# SPDX-License-Identifier: MIT
"""Where an old address is looked for and reported, and which copies of network files have no effect."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.fixtures.addressed_guests import NETPLAN_HEAD, NETWORK, contents
from tests.fixtures.guests import GuestFiles, warnings

OTHER_PLACES = {
    "/etc/issue": "web\n192.0.2.10\n",
    "/etc/resolv.conf": "nameserver 192.0.2.10\n",
    "/boot/grub/grub.cfg": "linux /vmlinuz ip=192.0.2.10::192.0.2.1:255.255.255.0:web:eth0:none\n",
    "/etc/hosts.allow": "sshd: 192.0.2.10/32, 192.0.2.100, 1192.0.2.10, 192.0.2.10.9\n",
    "/etc/network/if-up.d/own": "#!/bin/sh\nip rule add from 192.0.2.10\n",
    "/etc/rc.local": "ifconfig eth0:1 '192.0.2.10'\n",
}


def test_every_place_that_names_the_old_address_is_told_by_line(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    network = {"/etc/network/interfaces": "iface eth0 inet static\n address 192.0.2.10/24\n"}
    guest = GuestFiles.make(tmp_path, {"/etc/hostname": "inst1\n", **network, **OTHER_PLACES})
    guest.rename("192.0.2.77")
    told = sorted(text.split(": ")[0] for text in warnings(caplog))
    assert told == [
        "/boot/grub/grub.cfg:1",
        "/etc/hosts.allow:1",
        "/etc/issue:2",
        "/etc/network/if-up.d/own:2",
        "/etc/rc.local:1",
        "/etc/resolv.conf:1",
    ]
    assert contents(guest, OTHER_PLACES) == OTHER_PLACES
    caplog.clear()
    guest.rename("192.0.2.77")
    assert warnings(caplog) == []  # the second time nothing tells what the old address was


def test_at_most_some_places_are_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    files = {
        "/etc/network/interfaces": "iface eth0 inet static\n address 192.0.2.10/24\n",
        "/etc/motd": "192.0.2.10\n" * 99,
    }
    guest = GuestFiles.make(tmp_path, {"/etc/hostname": "inst1\n", **files})
    guest.rename("192.0.2.77")
    assert len(warnings(caplog)) == 21
    assert "79 more locations in the guest have an address that the instance has no longer" in caplog.text


def test_a_backup_copy_beside_a_file_is_neither_read_nor_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    text = "[Network]\nAddress=192.0.2.10/24\n"
    copies = {f"/etc/systemd/network/{name}": text for name in ("a.network~", "a.network.dpkg-old", ".a.network.swp")}
    guest = GuestFiles.make(tmp_path, {"/etc/hostname": "inst1\n", "/etc/systemd/network/a.network": text, **copies})
    guest.rename("192.0.2.77")
    assert contents(guest, copies) == copies
    assert warnings(caplog) == []


def test_a_hidden_file_of_the_same_name_decides_nothing(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    files = {
        "/etc/systemd/network/a.network": "[Network]\nAddress=192.0.2.10/24\n",
        "/usr/lib/systemd/network/a.network": "[Network]\nAddress=10.0.0.1/8\n",
        "/usr/lib/systemd/network/a.network.d/x.conf": "[Network]\nGateway=192.0.2.1\n",
    }
    guest = GuestFiles.make(tmp_path, {"/etc/hostname": "inst1\n", **files})
    guest.rename("198.51.100.5", **NETWORK)
    assert list(contents(guest, files).values()) == [
        "[Network]\nAddress=198.51.100.5/26\n",
        "[Network]\nAddress=10.0.0.1/8\n",
        "[Network]\nGateway=198.51.100.62\n",
    ]
    assert warnings(caplog) == []


def test_one_directory_under_two_names_is_read_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    guest = GuestFiles.make(tmp_path, {"/etc/hostname": "inst1\n"})
    guest.write("/usr/lib/systemd/network/a.network", "[Network]\nAddress=192.0.2.10/24\n")
    (guest.root / "lib").symlink_to("usr/lib")
    guest.rename("192.0.2.77")
    assert "192.0.2.77/24" in (guest.root / "usr/lib/systemd/network/a.network").read_text()
    assert warnings(caplog) == []


def test_an_installers_copy_that_is_out_of_date_decides_nothing(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    copy = "/etc/cloud/cloud.cfg.d/90-installer-network.cfg"
    files = {"/etc/netplan/a.yaml": NETPLAN_HEAD + "      addresses: [192.0.2.10/24]\n"}
    files[copy] = NETPLAN_HEAD + "      addresses: [10.0.0.1/8]\n"
    guest = GuestFiles.make(tmp_path, {"/etc/hostname": "inst1\n", **files})
    guest.rename("192.0.2.77")
    assert "192.0.2.77/24" in str(guest.read()["/etc/netplan/a.yaml"])
    assert guest.read()[copy] == files[copy]
    assert warnings(caplog) == []
