# SPDX-License-Identifier: MIT
"""Boot menus, entries and defaults, and serial consoles, in trees as distributions make them."""

from __future__ import annotations

import os
import time
from pathlib import Path
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ganeti_os.guest.boot.arguments import KernelArguments
from ganeti_os.guest.boot.configure import NewFileSystems, configure_boot, configure_console
from ganeti_os.guest.boot.grub_cfg import BootFiles, changed_menu
from ganeti_os.guest.boot.kernels import Kernel, find_kernels
from ganeti_os.guest.draft import Draft
from pydiskimg.errors import DiskImageError
from pydiskimg.tree import open_tree

ROOT, BOOT = UUID(int=0x11 << 120), UUID(int=0x22 << 120)
OLD = "12345678-9abc-def0-1234-56789abcdef0"
CONSOLES = "console=tty0 console=ttyS0,115200n8"

DEBIAN_MENU = f"""\
if [ -s $prefix/grubenv ]; then
  set have_grubenv=true
  load_env
fi
function load_video {{
  insmod vbe
}}
set root='hd0,msdos1'
if [ x$feature_platform_search_hint = xy ]; then
  search --no-floppy --fs-uuid --set=root --hint-bios=hd0,msdos1  {OLD}
else
  search --no-floppy --fs-uuid --set=root {OLD}
fi
menuentry 'Debian GNU/Linux' --class debian $menuentry_id_option 'gnulinux-simple-{OLD}' {{
	insmod gzio
	search --no-floppy --fs-uuid --set=root {OLD}
	echo	'Loading Linux 6.1.0-18-amd64 ...'
	linux	/boot/vmlinuz-6.1.0-18-amd64 root=UUID={OLD} ro  quiet
	echo	'Loading initial ramdisk ...'
	initrd	/boot/initrd.img-6.1.0-18-amd64
}}
"""
RHEL_8_MENU = f"""\
search --no-floppy --fs-uuid --set=root {OLD}
set boot={OLD}
if [ -z "${{kernelopts}}" ]; then
  set kernelopts="root=UUID={OLD} ro crashkernel=auto "
fi
insmod blscfg
blscfg
"""
BLS = f"""\
title Fedora Linux (6.8.5-301.fc40.x86_64) 40 (Cloud Edition)
version 6.8.5-301.fc40.x86_64
linux /boot/vmlinuz-6.8.5-301.fc40.x86_64
initrd /boot/initramfs-6.8.5-301.fc40.x86_64.img
options root=UUID={OLD} ro rootflags=subvol=root no_timer_check
grub_users $grub_users
"""
GRUBENV = f"# GRUB Environment Block\nsaved_entry=x\nkernelopts=root=UUID={OLD} ro \nboot_success=0\n".ljust(1024, "#")


def tree_of(root: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


def configured(root: Path, text: str = "", *, serial: bool = False, separate: bool = True, home: str = "grub") -> Path:
    """Configure the tree twice: the second time changes nothing."""
    new = NewFileSystems(ROOT, BOOT if separate else None, "PARTUUID=aabbccdd-03", home, "/dev/vda")
    counts = []
    for _ in range(2):
        with open_tree(root) as tree:
            draft = Draft(tree)
            configure_boot(draft, new, text, serial=serial)
            counts.append(draft.write(lambda path: 0))
    assert counts[1] == 0
    return root


def kernels(root: Path) -> list[Kernel]:
    with open_tree(root) as tree:
        return find_kernels(Draft(tree))


KERNELS = {
    "debian": (
        ["vmlinuz-6.1.0-9-amd64", "initrd.img-6.1.0-9-amd64", "vmlinuz-6.1.0-18-amd64", "initrd.img-6.1.0-18-amd64"],
        [
            ("vmlinuz-6.1.0-18-amd64", "initrd.img-6.1.0-18-amd64"),
            ("vmlinuz-6.1.0-9-amd64", "initrd.img-6.1.0-9-amd64"),
        ],
    ),
    "red hat": (
        [
            *("vmlinuz-0-rescue-0f", "initramfs-0-rescue-0f.img", ".vmlinuz-5.14.0-427.el9.x86_64.hmac"),
            *(
                "vmlinuz-5.14.0-427.el9.x86_64",
                "initramfs-5.14.0-427.el9.x86_64.img",
                "System.map-5.14.0-427.el9.x86_64",
            ),
            "initramfs-5.14.0-427.el9.x86_64kdump.img",
        ],
        [
            ("vmlinuz-5.14.0-427.el9.x86_64", "initramfs-5.14.0-427.el9.x86_64.img"),
            ("vmlinuz-0-rescue-0f", "initramfs-0-rescue-0f.img"),
        ],
    ),
    "suse": (
        ["vmlinuz-6.4.0-150600.23-default", "initrd-6.4.0-150600.23-default"],
        [("vmlinuz-6.4.0-150600.23-default", "initrd-6.4.0-150600.23-default")],
    ),
    "arch": (
        ["vmlinuz-linux", "initramfs-linux.img", "initramfs-linux-fallback.img"],
        [("vmlinuz-linux", "initramfs-linux.img")],
    ),
    "alpine": (["vmlinuz-virt", "initramfs-virt"], [("vmlinuz-virt", "initramfs-virt")]),
    "gentoo": (
        ["kernel-6.6.21-gentoo-x86_64", "initramfs-6.6.21-gentoo-x86_64.img", "kernel-6.6.13-gentoo-x86_64.old"],
        [("kernel-6.6.21-gentoo-x86_64", "initramfs-6.6.21-gentoo-x86_64.img")],
    ),
    "genkernel": (
        ["vmlinuz-6.6.21-gentoo", "initramfs-genkernel-x86_64-6.6.21-gentoo"],
        [("vmlinuz-6.6.21-gentoo", "initramfs-genkernel-x86_64-6.6.21-gentoo")],
    ),
    "no initrd": (["vmlinuz-6.6.21"], [("vmlinuz-6.6.21", None)]),
    "none": (["grub", "config-6.1"], []),
}


@pytest.mark.parametrize("system", KERNELS)
def test_kernels_as_distributions_name_them(tmp_path: Path, system: str) -> None:
    names, expected = KERNELS[system]
    tree_of(tmp_path, {f"boot/{name}": "" for name in names})
    assert [(kernel.image, kernel.initrd) for kernel in kernels(tmp_path)] == expected


@pytest.mark.parametrize("separate", [True, False])
def test_a_menu_is_made(tmp_path: Path, separate: bool) -> None:
    names = {f"boot/{name}": "" for name in KERNELS["debian"][0]}
    tree_of(tmp_path, {**names, "etc/os-release": 'PRETTY_NAME="Debian GNU/Linux 12 (bookworm)"\n'})
    configured(tmp_path, "quiet a=b", serial=True, separate=separate)
    menu = (tmp_path / "boot/grub/grub.cfg").read_text()
    directory, uuid = ("", BOOT) if separate else ("/boot", ROOT)
    assert f"search --no-floppy --fs-uuid --set=root {uuid}\n" in menu
    assert f"  linux {directory}/vmlinuz-6.1.0-18-amd64 root=UUID={ROOT} ro quiet a=b {CONSOLES}\n" in menu
    assert f"  initrd {directory}/initrd.img-6.1.0-18-amd64\n" in menu
    assert menu.index("6.1.0-18") < menu.index("6.1.0-9-")
    assert "terminal_output console serial\n" in menu


def test_a_kernel_without_an_initrd_gets_a_root_that_it_understands(tmp_path: Path) -> None:
    tree_of(tmp_path, {"boot/vmlinuz-6.6.21": ""})
    configured(tmp_path)
    assert "root=PARTUUID=aabbccdd-03 ro rootwait\n" in (tmp_path / "boot/grub/grub.cfg").read_text()


@pytest.mark.parametrize("separate", [True, False])
def test_a_menu_of_debian_is_brought_up_to_date(tmp_path: Path, separate: bool) -> None:
    names = {f"boot/{name}": "" for name in KERNELS["debian"][0]}
    tree_of(tmp_path, {**names, "boot/grub/grub.cfg": DEBIAN_MENU})
    configured(tmp_path, "quiet splash", serial=True, separate=separate)
    directory, uuid = ("", BOOT) if separate else ("/boot", ROOT)
    expected = DEBIAN_MENU.replace(f"root=UUID={OLD} ro  quiet", f"root=UUID={ROOT} ro  quiet splash {CONSOLES}")
    for line in (f"hint-bios=hd0,msdos1  {OLD}", f"--set=root {OLD}"):
        expected = expected.replace(line, line.replace(OLD, str(uuid)))
    expected = expected.replace("\t/boot/", f"\t{directory}/")
    assert (tmp_path / "boot/grub/grub.cfg").read_text() == expected
    assert not (tmp_path / "boot/grub/grub.cfg.old").exists()


def test_a_menu_without_any_of_the_kernels_gives_way_and_is_kept(tmp_path: Path) -> None:
    tree_of(tmp_path, {"boot/vmlinuz-7.0": "", "boot/initrd.img-7.0": "", "boot/grub/grub.cfg": DEBIAN_MENU})
    configured(tmp_path)
    assert "linux /vmlinuz-7.0 " in (tmp_path / "boot/grub/grub.cfg").read_text()
    assert (tmp_path / "boot/grub/grub.cfg.old").read_text() == DEBIAN_MENU


def test_boot_entries_and_what_they_share(tmp_path: Path) -> None:
    names = {f"boot/{name}": "" for name in KERNELS["red hat"][0]}
    files = {
        "boot/grub2/grub.cfg": RHEL_8_MENU,
        "boot/grub2/grubenv": GRUBENV,
        "boot/loader/entries/0f-6.8.5.conf": BLS,
        "boot/loader/entries/0f-4.18.conf": "title x\nlinux /vmlinuz-4.18\noptions $kernelopts\n",
        "etc/kernel/cmdline": f"root=UUID={OLD} ro\n",
    }
    tree_of(tmp_path, {**names, **files})
    configured(tmp_path, "a=b", home="grub2")
    entry = (tmp_path / "boot/loader/entries/0f-6.8.5.conf").read_text()
    assert f"options root=UUID={ROOT} ro rootflags=subvol=root no_timer_check a=b\n" in entry
    assert "linux /vmlinuz-6.8.5-301.fc40.x86_64\ninitrd /initramfs-6.8.5-301.fc40.x86_64.img\n" in entry
    assert "options $kernelopts\n" in (tmp_path / "boot/loader/entries/0f-4.18.conf").read_text()
    environment = (tmp_path / "boot/grub2/grubenv").read_text()
    assert len(environment) == 1024
    assert f"\nkernelopts=root=UUID={ROOT} ro a=b\nboot_success=0\n##" in environment.replace("ro  a", "ro a")
    assert (tmp_path / "etc/kernel/cmdline").read_text() == f"root=UUID={ROOT} ro a=b\n"
    menu = (tmp_path / "boot/grub2/grub.cfg").read_text()
    assert f"--set=root {BOOT}\n" in menu
    assert f'set kernelopts="root=UUID={ROOT} ro crashkernel=auto ' in menu


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (
            'GRUB_CMDLINE_LINUX_DEFAULT="quiet"\nGRUB_CMDLINE_LINUX=""\n#GRUB_TERMINAL=console\n',
            f'GRUB_CMDLINE_LINUX_DEFAULT="quiet"\nGRUB_CMDLINE_LINUX="a=b {CONSOLES}"\n#GRUB_TERMINAL=console\n'
            'GRUB_TERMINAL="console serial"\nGRUB_SERIAL_COMMAND="serial --unit=0 --speed=115200"\n',
        ),
        (
            'GRUB_CMDLINE_LINUX="console=ttyS0 a=b"\nGRUB_TERMINAL="serial"\nGRUB_SERIAL_COMMAND="serial"',
            'GRUB_CMDLINE_LINUX="console=ttyS0 a=b"\nGRUB_TERMINAL="serial"\nGRUB_SERIAL_COMMAND="serial"',
        ),
        (
            "GRUB_CMDLINE_LINUX='console=ttyS0'\nGRUB_TERMINAL='serial'\nGRUB_SERIAL_COMMAND='x'",
            "GRUB_CMDLINE_LINUX='console=ttyS0'\nGRUB_TERMINAL='serial'\nGRUB_SERIAL_COMMAND='x'\n"
            'GRUB_CMDLINE_LINUX="console=ttyS0 a=b"\n',
        ),
    ],
)
def test_defaults_for_later_menus(tmp_path: Path, before: str, after: str) -> None:
    tree_of(tmp_path, {"boot/vmlinuz-1": "", "etc/default/grub": before})
    configured(tmp_path, "a=b", serial=True)
    assert (tmp_path / "etc/default/grub").read_text() == after


DEBCONF = """\
Name: grub-pc/hidden_timeout
Template: grub-pc/hidden_timeout
Value: false
Owners: grub-pc

Name: grub-pc/install_devices
Template: grub-pc/install_devices
Value: /dev/disk/by-id/ata-QEMU_HARDDISK_QM00001
Owners: grub-pc
Flags: seen
Variables:
 CHOICES = /dev/sda
 RAW_CHOICES = /dev/disk/by-id/ata-QEMU_HARDDISK_QM00001

Name: grub-pc/timeout
Template: grub-pc/timeout
Value: 5
Owners: grub-pc
"""


def test_debian_installs_grub_on_the_disk_that_the_instance_has(tmp_path: Path) -> None:
    tree_of(tmp_path, {"boot/vmlinuz-1": "", "var/cache/debconf/config.dat": DEBCONF})
    configured(tmp_path)
    expected = DEBCONF.replace("Value: /dev/disk/by-id/ata-QEMU_HARDDISK_QM00001", "Value: /dev/vda")
    assert (tmp_path / "var/cache/debconf/config.dat").read_text() == expected


CONSOLE = {
    "debian 7": (
        {
            "etc/inittab": "id:2:initdefault:\n1:2345:respawn:/sbin/getty 38400 tty1\n"
            "#T0:23:respawn:/sbin/getty -L ttyS0 9600 vt100\n"
        },
        {
            "etc/inittab": "id:2:initdefault:\n1:2345:respawn:/sbin/getty 38400 tty1\n"
            "T0:23:respawn:/sbin/getty -L ttyS0 9600 vt100\n"
        },
    ),
    "centos 5": (
        {
            "etc/inittab": "id:3:initdefault:\nsi::sysinit:/etc/rc.d/rc.sysinit\n",
            "sbin/agetty": "",
            "etc/securetty": "tty1",
        },
        {
            "etc/inittab": "id:3:initdefault:\nsi::sysinit:/etc/rc.d/rc.sysinit\n"
            "T0:2345:respawn:/sbin/agetty -L 115200 ttyS0 vt100\n",
            "etc/securetty": "tty1\nttyS0\n",
        },
    ),
    "alpine": (
        {
            "etc/inittab": "::sysinit:/sbin/openrc sysinit\ntty1::respawn:/sbin/getty 38400 tty1\n"
            "#ttyS0::respawn:/sbin/getty -L 115200 ttyS0 vt100\n",
            "etc/securetty": "console\ntty1\n",
        },
        {
            "etc/inittab": "::sysinit:/sbin/openrc sysinit\ntty1::respawn:/sbin/getty 38400 tty1\n"
            "ttyS0::respawn:/sbin/getty -L 115200 ttyS0 vt100\n",
            "etc/securetty": "console\ntty1\nttyS0\n",
        },
    ),
    "busybox": (
        {"etc/inittab": "::sysinit:/etc/init.d/rcS"},
        {"etc/inittab": "::sysinit:/etc/init.d/rcS\nttyS0::respawn:/sbin/getty -L ttyS0 115200 vt100\n"},
    ),
    "upstart": (
        {
            "etc/init/tty1.conf": "# tty1 - getty\nstart on stopped rc RUNLEVEL=[2345]\nrespawn\n"
            "exec /sbin/getty -8 38400 tty1\n"
        },
        {
            "etc/init/ttyS0.conf": "# ttyS0 - getty\nstart on stopped rc RUNLEVEL=[2345]\nrespawn\n"
            "exec /sbin/getty -L 115200 ttyS0 vt102\n"
        },
    ),
    "there already": (
        {"etc/inittab": "S0:12345:respawn:/sbin/agetty ttyS0 9600\n"},
        {"etc/inittab": "S0:12345:respawn:/sbin/agetty ttyS0 9600\n"},
    ),
    "systemd": (
        {"usr/lib/systemd/systemd": "", "etc/inittab": "# not used\n"},
        {"etc/inittab": "# not used\n"},
    ),
}


def with_console(root: Path, text: str = "", *, serial: bool = True) -> None:
    with open_tree(root) as tree:
        draft = Draft(tree)
        configure_console(draft, text, serial=serial)
        draft.write(lambda path: 0)


@pytest.mark.parametrize("system", CONSOLE)
def test_a_login_on_the_serial_port(tmp_path: Path, system: str) -> None:
    before, after = CONSOLE[system]
    tree_of(tmp_path, before)
    for _ in range(2):
        with_console(tmp_path)
        for name, text in after.items():
            assert (tmp_path / name).read_text() == text


def test_a_disk_image_keeps_its_menu_but_for_the_console(tmp_path: Path) -> None:
    tree_of(tmp_path, {"boot/grub/grub.cfg": DEBIAN_MENU, "usr/lib/systemd/systemd": ""})
    with_console(tmp_path)
    assert (tmp_path / "boot/grub/grub.cfg").read_text() == DEBIAN_MENU.replace("ro  quiet", f"ro  quiet {CONSOLES}")


def test_without_a_serial_console_nothing_changes(tmp_path: Path) -> None:
    before = {"boot/grub/grub.cfg": DEBIAN_MENU, "etc/inittab": "a\n", "etc/default/grub": "A=b\n"}
    tree_of(tmp_path, before)
    with_console(tmp_path, serial=False)
    assert {name: (tmp_path / name).read_text() for name in before} == before


@pytest.mark.parametrize(
    "name", ["boot/grub/grub.cfg", "etc/default/grub", "boot/loader/entries/x.conf", "etc/inittab"]
)
@pytest.mark.parametrize("kind", ["fifo", "directory", "loop", "huge", "outside"])
def test_hostile_files(tmp_path: Path, name: str, kind: str) -> None:
    root, secret = tmp_path / "guest", tmp_path / "secret"
    secret.write_text(DEBIAN_MENU)
    tree_of(root, {"boot/vmlinuz-1": ""})
    path = root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    if kind == "fifo":
        os.mkfifo(path)
    elif kind == "directory":
        path.mkdir()
    elif kind == "loop":
        path.symlink_to(path.name)
    elif kind == "outside":
        path.symlink_to("../" * 30 + str(secret).lstrip("/"))
    else:
        with path.open("wb") as file:
            file.truncate(10 << 30)
    problem = ""
    try:
        configured(root, "a=b", serial=True)
        with_console(root, "a=b")
    except DiskImageError as error:
        problem = str(error)
    assert not problem or f"/{name}" in problem
    assert "\n" not in problem
    assert secret.read_text() == DEBIAN_MENU


@pytest.mark.parametrize(
    "piece", ["linux /boot/vmlinuz-1 ", "search --fs-uuid ", "\n", " ", "'", 'root="', "a", "initrd /"]
)
def test_a_large_menu_takes_no_long_time(tmp_path: Path, piece: str) -> None:
    tree_of(tmp_path, {"boot/vmlinuz-1": "", "boot/grub/grub.cfg": piece * (1_000_000 // len(piece))})
    started = time.process_time()
    with_console(tmp_path, "a=b")
    assert time.process_time() - started < 20


TOKENS = st.sampled_from(
    [
        *DEBIAN_MENU.split(),
        "\n",
        "\t",
        " ",
        "linux",
        "initrd",
        "'",
        '"',
        "search",
        "root=UUID=x",
        "\\",
        "root='a b'",
        "\0",
    ]
)


@given(st.lists(TOKENS, max_size=30).map(" ".join) | st.text(max_size=200))
def test_a_menu_changes_in_its_own_lines_only_and_once(text: str) -> None:
    data = text.encode("utf-8", "surrogatepass")
    arguments = KernelArguments.of("a=b", serial=True, root="UUID=new")
    files = BootFiles(BOOT, "", "PARTUUID=aabbccdd-03")
    once = changed_menu(data, arguments, None, [])
    assert once is not None
    assert changed_menu(once, arguments, None, []) == once
    assert [line for line in data.split(b"\n") if b"linux" not in line and b"kernelopts" not in line] == [
        line for line in once.split(b"\n") if b"linux" not in line and b"kernelopts" not in line
    ]
    changed_menu(data, arguments, files, [Kernel("6.1.0-18-amd64", "vmlinuz-6.1.0-18-amd64", None)])
