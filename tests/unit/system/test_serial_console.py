# SPDX-License-Identifier: MIT
"""The login on the serial line, for each kind of init, and when a new instance gets it."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from ganeti_os.request import parse_request
from pydiskimg.errors import StorageError
from pydiskimg.files.mounted_tree import open_mounted_tree
from pydiskimg.system.boot.serial_console import configure_serial_console
from pydiskimg.system.edits.draft import Draft
from tests.fixtures.guests import GuestFiles

SYSVINIT = "id:2:initdefault:\nsi::sysinit:/etc/init.d/rcS\n1:2345:respawn:/sbin/getty 38400 tty1\n"
ALPINE = (
    "::sysinit:/sbin/openrc sysinit\ntty1::respawn:/sbin/getty 38400 tty1\n#ttyS0::respawn:/sbin/getty -L 0 ttyS0\n"
)
CONFIG = "search --fs-uuid --set=root 1111-2222\nlinux /vmlinuz-1 root=UUID=1111-2222 ro quiet\n"


def configure(root: Path) -> int:
    with open_mounted_tree(root) as tree:
        draft = Draft(tree)
        configure_serial_console(draft)
        return draft.write(len)


def make(root: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        path = Path(f"{root}{name}")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


@pytest.mark.parametrize(
    ("files", "changed", "expected"),
    [
        (
            {"/etc/inittab": SYSVINIT, "/sbin/getty": ""},
            "/etc/inittab",
            f"{SYSVINIT}T0:2345:respawn:/sbin/getty -L ttyS0 115200 vt100\n",
        ),
        (
            {"/etc/inittab": f"{SYSVINIT}T0:23:respawn:/x ttyS1", "/sbin/agetty": ""},
            "/etc/inittab",
            f"{SYSVINIT}T0:23:respawn:/x ttyS1\ns0:2345:respawn:/sbin/agetty -L ttyS0 115200 vt100\n",
        ),
        (
            {"/etc/inittab": ALPINE, "/sbin/getty": ""},
            "/etc/inittab",
            f"{ALPINE}ttyS0::respawn:/sbin/getty -L 115200 ttyS0 vt100\n",
        ),
        ({"/etc/inittab": f"{SYSVINIT}T9:23:respawn:/sbin/getty -L 9600 ttyS0", "/sbin/getty": ""}, "", ""),
        ({"/etc/inittab": SYSVINIT}, "", ""),
        ({"/etc/securetty": "tty1\n#ttyS0"}, "/etc/securetty", "tty1\n#ttyS0\nttyS0\n"),
        ({"/etc/securetty": "tty1\n ttyS0 \n"}, "", ""),
        ({"/etc/init/tty2.conf": "exec x ttyS0\n", "/sbin/getty": ""}, "", ""),
        ({"/etc/init/serial.conf": "start on fedora.serial-console-available DEV=*\n", "/sbin/agetty": ""}, "", ""),
        ({"/etc/inittab": SYSVINIT, "/sbin/getty": "", "/usr/lib/systemd/systemd": ""}, "", ""),
        ({}, "", ""),
    ],
)
def test_each_kind_of_init(tmp_path: Path, files: dict[str, str], changed: str, expected: str) -> None:
    root = make(tmp_path, files)
    assert configure(root) == (1 if changed else 0)
    for name, text in files.items():
        assert Path(f"{root}{name}").read_text() == (expected if name == changed else text)
    assert configure(root) == 0


def test_upstart_gets_a_job(tmp_path: Path) -> None:
    root = make(tmp_path, {"/etc/init/tty1.conf": "exec /sbin/getty tty1\n", "/sbin/getty": ""})
    assert configure(root) == 1
    assert "exec /sbin/getty -L 115200 ttyS0 vt100\n" in (root / "etc/init/ttyS0.conf").read_text()
    assert configure(root) == 0


def test_systemd_that_is_installed_beside_sysvinit_is_not_the_init(tmp_path: Path) -> None:
    files = {"/etc/inittab": SYSVINIT, "/sbin/getty": "", "/sbin/init": "", "/usr/lib/systemd/systemd": ""}
    root = make(tmp_path, files)
    assert configure(root) == 1
    (root / "sbin/init").unlink()
    (root / "sbin/init").symlink_to("/usr/lib/systemd/systemd")
    (root / "etc/inittab").write_text(SYSVINIT)
    assert configure(root) == 0


@pytest.mark.parametrize("name", ["/etc/inittab", "/etc/securetty", "/etc/init/tty1.conf"])
def test_hostile_files_are_named_and_nothing_outside_changes(tmp_path: Path, name: str) -> None:
    outside = tmp_path / "host"
    outside.write_text(SYSVINIT)

    def link(path: str) -> None:
        os.symlink(outside, path)

    for number, hostile in enumerate((os.mkfifo, os.mkdir, link)):
        root = make(tmp_path / str(number), {"/sbin/getty": ""})
        Path(f"{root}{name}").parent.mkdir(parents=True)
        hostile(f"{root}{name}")
        errors = []
        try:
            configure(root)
        except StorageError as error:
            errors.append(str(error))
        assert all(name in error for error in errors)
    assert outside.read_text() == SYSVINIT


@pytest.mark.parametrize(("text", "expected"), [("True", True), ("False", False), ("", False), ("default", False)])
def test_ganetis_word_for_a_serial_console(text: str, expected: bool) -> None:
    environment = {
        "OS_API_VERSION": "20",
        "INSTANCE_NAME": "inst1.example.org",
        "DISK_COUNT": "1",
        "DISK_0_PATH": "/dev/x",
        "INSTANCE_HV_serial_console": text,
    }
    assert parse_request("create", [], environment).serial_console is expected


def test_a_new_instance_has_a_login_and_its_kernel_the_console(tmp_path: Path) -> None:
    guest = GuestFiles.make(tmp_path, {"/etc/inittab": SYSVINIT, "/sbin/getty": "", "/boot/grub/grub.cfg": CONFIG})
    guest.become("", INSTANCE_HV_serial_console="True")
    assert "ttyS0" in str(guest.read()["/etc/inittab"])
    assert "ro quiet console=tty0 console=ttyS0,115200n8\n" in (guest.root / "boot/grub/grub.cfg").read_text()


@pytest.mark.parametrize(
    "environment", [{}, {"INSTANCE_HV_serial_console": "False"}, {"INSTANCE_HV_kernel_path": "/k"}], ids=str
)
def test_other_instances_keep_their_kernels_arguments(tmp_path: Path, environment: dict[str, str]) -> None:
    guest = GuestFiles.make(tmp_path, {"/etc/inittab": SYSVINIT, "/sbin/getty": "", "/boot/grub/grub.cfg": CONFIG})
    guest.become("", **environment)
    assert (guest.root / "boot/grub/grub.cfg").read_text() == CONFIG
    assert guest.read()["/etc/inittab"] == SYSVINIT


def test_a_renamed_instance_keeps_what_it_has(tmp_path: Path) -> None:
    guest = GuestFiles.make(tmp_path, {"/etc/inittab": SYSVINIT, "/sbin/getty": "", "/boot/grub/grub.cfg": CONFIG})
    guest.rename("", INSTANCE_HV_serial_console="True")
    assert guest.read()["/etc/inittab"] == SYSVINIT
    assert (guest.root / "boot/grub/grub.cfg").read_text() == CONFIG
