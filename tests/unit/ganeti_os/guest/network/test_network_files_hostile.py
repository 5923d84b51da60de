# SPDX-License-Identifier: MIT
"""A guest's network files of the wrong kind: nothing outside is changed, nothing hangs, and a rename succeeds."""

from __future__ import annotations

import logging
import os
import time
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.fixtures.guests import GuestFiles, warnings

OLD = "[Network]\nAddress=192.0.2.10/24\n"
OWN = "/etc/systemd/network/0.network"
# A file in each place that only the addresses are looked for in, and those whose names lead there.
PLACES = [
    "/etc/systemd/network/a.network.d/a.conf",
    "/etc/systemd/network/a.link",
    "/usr/lib/systemd/network/a.network",
    "/usr/lib/NetworkManager/system-connections/a",
    "/lib/netplan/a.yaml",
    "/etc/network/more/a",
    "/etc/sysconfig/network-scripts/route-eth0",
    "/etc/sysconfig/network-scripts/rule-eth0",
    "/etc/udev/rules.d/70-persistent-net.rules",
    "/etc/mactab",
    "/etc/wicked/ifconfig/a.xml",
    "/etc/ssh/sshd_config",
    "/boot/grub/grub.cfg",
    "/etc/issue",
]


def _fifo(path: Path, outside: Path) -> None:
    os.mkfifo(path)


def _directory(path: Path, outside: Path) -> None:
    path.mkdir()


def _huge(path: Path, outside: Path) -> None:
    with path.open("wb") as file:
        file.truncate(10 << 30)


def _outside(path: Path, outside: Path) -> None:
    path.symlink_to(outside)


def _upwards(path: Path, outside: Path) -> None:
    path.symlink_to("../" * 20 + str(outside).lstrip("/"))


def _loop(path: Path, outside: Path) -> None:
    path.symlink_to(path.name)


def _device(path: Path, outside: Path) -> None:
    path.symlink_to("/dev/zero")


MAKERS = [_fifo, _directory, _huge, _outside, _upwards, _loop, _device]


@pytest.mark.parametrize("make", MAKERS)
def test_what_is_not_a_file_is_left(
    tmp_path: Path, make: Callable[[Path, Path], None], caplog: pytest.LogCaptureFixture
) -> None:
    outside = tmp_path / "outside"
    outside.write_text(OLD)
    files: dict[str, str | bytes] = {
        OWN: OLD,
        "/etc/network/interfaces": "source more/*\n",
        "/etc/sysconfig/network-scripts/ifcfg-eth0": "DEVICE=eth0\nBOOTPROTO=dhcp\n",
    }
    guest = GuestFiles.make(tmp_path, {"/etc/hostname": "inst1\n", **files})
    for place in PLACES:
        path = Path(f"{guest.root}{place}")
        path.parent.mkdir(parents=True, exist_ok=True)
        make(path, outside)
    begin = time.monotonic()
    guest.rename("192.0.2.77", NIC_0_MAC="aa:00:00:00:00:01")
    assert time.monotonic() - begin < 20
    assert Path(f"{guest.root}{OWN}").read_text() == OLD.replace("192.0.2.10", "192.0.2.77")
    assert outside.read_text() == OLD
    assert Path(f"{guest.root}/etc/hostname").read_text() == "inst2\n"
    for text in warnings(caplog):
        assert any(place in text for place in PLACES)
    assert (make is _huge) == bool(warnings(caplog))


def test_a_symlink_inside_the_guest_is_the_file_it_leads_to(tmp_path: Path) -> None:
    guest = GuestFiles.make(tmp_path, {"/etc/hostname": "inst1\n", "/srv/net.conf": OLD})
    path = Path(f"{guest.root}{OWN}")
    path.parent.mkdir(parents=True)
    path.symlink_to("/srv/net.conf")
    guest.rename("192.0.2.77")
    assert path.is_symlink()
    assert Path(f"{guest.root}/srv/net.conf").read_text() == OLD.replace("192.0.2.10", "192.0.2.77")


@pytest.mark.parametrize(
    "directory", ["/etc/udev/rules.d", "/etc/systemd/network", "/etc/wicked/ifconfig", "/etc/ssh/sshd_config.d"]
)
def test_a_directory_that_is_a_file(tmp_path: Path, directory: str, caplog: pytest.LogCaptureFixture) -> None:
    guest = GuestFiles.make(tmp_path, {"/etc/hostname": "inst1\n", directory: OLD})
    guest.rename("192.0.2.77")
    assert Path(f"{guest.root}{directory}").read_text() == OLD
    assert warnings(caplog) == []


def test_too_many_files_are_left_and_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    rules = {f"/etc/udev/rules.d/{n}.rules": "\n" for n in range(300)}
    guest = GuestFiles.make(tmp_path, {"/etc/hostname": "inst1\n", OWN: OLD, **rules})
    guest.rename("192.0.2.77")
    assert len(warnings(caplog)) == 1
    assert "/etc/udev/rules.d: 300 names match *.rules" in caplog.text
    assert "nothing was changed" not in caplog.text


def test_sources_in_a_circle_and_without_end(tmp_path: Path) -> None:
    files: dict[str, str | bytes] = {
        f"/etc/network/x/{n}": f"source /etc/network/x/{n + 1} /etc/network/x/0 /etc/network/interfaces\n"
        for n in range(400)
    }
    files["/etc/network/interfaces"] = "source x/0\nsource interfaces\niface eth0 inet static\n address 192.0.2.10/24\n"
    guest = GuestFiles.make(tmp_path, {"/etc/hostname": "inst1\n", **files})
    guest.rename("192.0.2.77")
    assert "address 192.0.2.77/24" in str(guest.read()["/etc/network/interfaces"])


@pytest.mark.parametrize(
    "name", ["/", "//", ".", "..", "../../..", "a\0b", "a" * 5000, "a/" * 3000, "\xff", "-", "*", "[", "/*"]
)
@pytest.mark.parametrize("keyword", ["source", "source-directory"])
def test_sources_with_odd_names(tmp_path: Path, keyword: str, name: str) -> None:
    text = f"{keyword} {name}\niface eth0 inet static\n address 192.0.2.10/24\n".encode("latin-1")
    guest = GuestFiles.make(tmp_path, {"/etc/hostname": "inst1\n", "/etc/network/interfaces": text})
    guest.rename("192.0.2.77")
    after = Path(f"{guest.root}/etc/network/interfaces").read_bytes()
    assert after == text.replace(b"192.0.2.10", b"192.0.2.77")


@pytest.mark.parametrize("name", ["/", "../x", "a\0b", "a" * 5000, "\xff", "*", "[", "", "%s{}"])
def test_interfaces_with_odd_names(tmp_path: Path, name: str) -> None:
    files = {
        "/etc/sysconfig/network-scripts/ifcfg-a": f'DEVICE="{name}"\nIPADDR=192.0.2.10\n',
        "/etc/sysconfig/network/ifcfg-a": f'DEVICE="{name}"\nIPADDR=192.0.2.10\n',
        "/etc/systemd/network/a.network": f"[Match]\nName={name}\n[Network]\nAddress=192.0.2.10/24\n",
        "/etc/netplan/a.yaml": f"network: {{ethernets: {{'{name}': {{addresses: [192.0.2.10/24]}}}}}}\n",
        "/etc/dhcpcd.conf": f"interface {name}\nstatic ip_address=192.0.2.10\n",
        "/etc/network/interfaces": f"iface {name} inet static\n address 192.0.2.10\n",
    }
    encoded = {path: text.encode("latin-1") for path, text in files.items()}
    guest = GuestFiles.make(tmp_path, {"/etc/hostname": "inst1\n", **encoded})
    guest.rename("192.0.2.77", NIC_0_MAC="aa:00:00:00:00:01")
    for path in ("/etc/systemd/network/a.network", "/etc/sysconfig/network-scripts/ifcfg-a"):
        assert Path(f"{guest.root}{path}").read_bytes() == encoded[path].replace(b"192.0.2.10", b"192.0.2.77")


SHAPES = [
    b" ",
    b"\\\n",
    b" \\\n",
    b"192.0.2.10 ",
    b"2001:db8::10\n",
    b"::",
    b"1.",
    b" #",
    b"'",
    b"source-directory /etc/*\n",
    b"source x/*\n",
    b'ATTR{address}=="aa:00:00:00:00:07", NAME="eth0"\n',
    b"[Network]\nAddress=192.0.2.10/24\n",
    b" up ip addr add 192.0.2.10/24 dev b\n",
    b"config_a=(\n",
    b"[a",
    b"aa:00:00:00:00:07 ",
    b"static ip_address=1.2.3.4\n",
]
HOLDERS = [
    "/etc/network/interfaces",
    "/etc/sysconfig/network-scripts/ifcfg-a",
    "/etc/sysconfig/network-scripts/route-a",
    "/etc/systemd/network/a.network",
    "/etc/NetworkManager/system-connections/a",
    "/etc/conf.d/net",
    "/etc/dhcpcd.conf",
    "/etc/udev/rules.d/a.rules",
    "/etc/issue",
]


@pytest.mark.parametrize("shape", SHAPES)
def test_a_long_file_of_anything_ends_in_seconds(tmp_path: Path, shape: bytes) -> None:
    data = shape * (200_000 // len(shape))
    guest = GuestFiles.make(tmp_path, {"/etc/hostname": "inst1\n", **dict.fromkeys(HOLDERS, data)})
    guest.tell("instances/inst1.example.org", "ADDRESS=192.0.2.10\n")
    begin = time.process_time()
    guest.rename("192.0.2.77", NIC_0_MAC="aa:00:00:00:00:01")
    assert time.process_time() - begin < 15  # it is one second; a step for each pair of lines takes hours


@pytest.mark.parametrize("before", ["iface a inet static\n a", "", "source"])
def test_a_line_that_is_continued_half_a_million_times(tmp_path: Path, before: str) -> None:
    path = "/etc/network/interfaces"
    data = (before + "\\\n" * (1 << 20))[: 1 << 20]
    guest = GuestFiles.make(tmp_path, {"/etc/hostname": "inst1\n", path: data})
    begin = time.process_time()
    guest.rename("192.0.2.77")
    assert time.process_time() - begin < 6  # one; when each continuation copied those after it, nine


def test_stanzas_that_all_inherit_all_addresses(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = "/etc/network/interfaces"
    data = "iface t inet static\n" + " gateway 192.0.2.1\n" * 20_000 + "iface a inherits t\n" * 20_000
    guest = GuestFiles.make(tmp_path, {"/etc/hostname": "inst1\n", path: data})
    tracemalloc.start()
    try:
        guest.rename("192.0.2.77")
        assert tracemalloc.get_traced_memory()[1] < 256 << 20
    finally:
        tracemalloc.stop()
    assert "more than 1000 addresses" in caplog.text


def test_comments_do_not_fill_the_log(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    data = "iface a inet static\n address 192.0.2.10\n" + "# 192.0.2.10\n" * 5000
    guest = GuestFiles.make(tmp_path, {"/etc/hostname": "inst1\n", "/etc/network/interfaces": data})
    guest.rename("192.0.2.77")
    assert "/etc/network/interfaces:3: a comment names 192.0.2.10" in caplog.text
    assert "4980 more comments in the guest have such an address" in caplog.text
    assert len(caplog.records) < 40
