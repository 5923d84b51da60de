# SPDX-License-Identifier: MIT
"""The boot configuration of systems that were built from their files, as distributions have them."""

from __future__ import annotations

import logging
import os
import random
import re
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from pydiskimg.errors import StorageError
from pydiskimg.files.mounted_tree import open_mounted_tree
from pydiskimg.system.boot.config import add_kernel_arguments, configure_boot
from pydiskimg.system.boot.kernel_arguments import words
from pydiskimg.system.boot.kernels import version_key
from pydiskimg.system.boot.volumes import BootVolumes
from pydiskimg.system.edits.draft import Draft, GuestError
from tests.fixtures.boot_layouts import LAYOUTS, NEW_BOOT, NEW_ROOT, OLD_BOOT, OLD_ROOT, Layout

CONSOLES = "console=tty0 console=ttyS0,115200n8"
VOLUMES = {
    "/boot apart": BootVolumes(root_uuid=NEW_ROOT, boot_uuid=NEW_BOOT),
    "/boot in the root": BootVolumes(root_uuid=NEW_ROOT),
}
layouts = pytest.mark.parametrize("layout", LAYOUTS.values(), ids=LAYOUTS)
all_volumes = pytest.mark.parametrize("boot", VOLUMES.values(), ids=VOLUMES)


def make(root: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        path = Path(f"{root}{name}")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(text.encode())
    return root


def snapshot(root: Path) -> dict[str, str]:
    return {str(path)[len(str(root)) :]: path.read_text() for path in sorted(root.rglob("*")) if path.is_file()}


def configure(root: Path, boot: BootVolumes, args: str = "net.ifnames=0", *, serial: bool = True) -> bool:
    with open_mounted_tree(root) as tree:
        return configure_boot(tree, boot, kernel_args=args, serial_console=serial)


def add(root: Path, args: str = "net.ifnames=0", *, serial: bool = True) -> int:
    with open_mounted_tree(root) as tree:
        draft = Draft(tree)
        add_kernel_arguments(draft, kernel_args=args, serial_console=serial)
        return draft.write(len)


def boot_lines(root: Path, home: str) -> list[tuple[str, str]]:
    """Return what grub.cfg starts, its BLS entries first where it lists them: the words after linux, and initrd."""
    config = (root / f"boot/{home}/grub.cfg").read_text()
    entries = sorted((root / "boot/loader/entries").glob("*.conf"), key=lambda path: version_key(path.stem[33:]))
    texts = [path.read_text() for path in reversed(entries) if "rescue" not in path.name]
    found = []
    for text in [*(texts if "\nblscfg" in config else ()), config]:
        linux = re.findall(r"^\s*linux\s+(.*)$", text, re.MULTILINE)
        initrd = re.findall(r"^\s*initrd\s+(.*)$", text, re.MULTILINE)
        options = re.findall(r"^options\s+(.*)$", text, re.MULTILINE)
        found += list(
            zip([*map(" ".join, zip(linux, options, strict=True))] if options else linux, initrd, strict=True)
        )
    return found


@layouts
@all_volumes
def test_the_newest_kernel_is_booted_from_the_new_file_systems(
    tmp_path: Path, layout: Layout, boot: BootVolumes
) -> None:
    root = make(tmp_path, layout.files)
    assert configure(root, boot)
    config = (root / f"boot/{layout.home}/grub.cfg").read_text()
    linux, initrd = boot_lines(root, layout.home)[0]
    strip = "/boot" if boot.boot_uuid else ""
    assert linux.split()[0] == layout.kernel.removeprefix(strip)
    assert initrd.split()[0] == layout.initrd.removeprefix(strip)
    if "$kernelopts" in linux:
        linux = (root / "boot/grub2/grubenv").read_text().partition("kernelopts=")[2].partition("\n")[0]
    assert f"root=UUID={NEW_ROOT}" in linux.split()
    assert {*CONSOLES.split(), "net.ifnames=0"} <= {*linux.split()} or "console=ttyS0" in linux
    assert not re.search(rf"(?:root=|search).*(?:{OLD_ROOT}|{OLD_BOOT})", config)
    assert "rd.lvm" not in linux
    assert "resume=" not in linux
    assert "rootflags" not in linux
    assert f"search --no-floppy --fs-uuid --set=root {boot.uuid}" in config
    assert config.startswith("# Written when") is not layout.is_kept


@layouts
@all_volumes
def test_a_second_time_changes_nothing(tmp_path: Path, layout: Layout, boot: BootVolumes) -> None:
    root = make(tmp_path, layout.files)
    configure(root, boot, 'quiet a="b c" x=$(id)')
    first = snapshot(root)
    configure(root, boot, 'quiet a="b c" x=$(id)')
    assert snapshot(root) == first
    assert add(root, 'quiet a="b c" x=$(id)') == 0


@layouts
def test_a_disk_image_gets_the_arguments_and_keeps_the_rest(tmp_path: Path, layout: Layout) -> None:
    root = make(tmp_path, layout.files)
    old = snapshot(root)
    add(root)
    new = snapshot(root)
    added = re.compile(
        r" ?\b(?:console=tty0 console=ttyS0,115200n8 )?net\.ifnames=0|console=tty0 console=ttyS0,115200n8 ?"
    )
    for path, text in new.items():
        if path.startswith("/boot") and path in old and not path.endswith("grubenv"):
            lines = [re.sub(r"\s+", " ", added.sub("", line)).strip() for line in text.splitlines()]
            assert lines == [re.sub(r"\s+", " ", line).strip() for line in old[path].splitlines()], path
    assert {path for path in new if path.startswith("/boot")} == {path for path in old if path.startswith("/boot")}
    assert add(root) == 0


def test_an_image_with_extlinux_gets_the_arguments(tmp_path: Path) -> None:
    config = "DEFAULT lts\nLABEL lts\n  LINUX vmlinuz-lts\n  APPEND root=UUID=1 quiet\r\nLABEL x\n  APPEND hd0\n"
    settings = 'default_kernel_opts="quiet"\n'
    root = make(tmp_path, {"/boot/extlinux.conf": config, "/etc/update-extlinux.conf": settings})
    assert add(root) == 2
    line = f"  APPEND root=UUID=1 quiet {CONSOLES} net.ifnames=0\r\n"
    text = (root / "boot/extlinux.conf").read_bytes().decode()
    assert text == config.replace("  APPEND root=UUID=1 quiet\r\n", line)
    expected = f'default_kernel_opts="quiet {CONSOLES} net.ifnames=0"\n'
    assert (root / "etc/update-extlinux.conf").read_text() == expected
    assert add(root) == 0


def test_an_image_without_wishes_stays_byte_for_byte(tmp_path: Path) -> None:
    root = make(tmp_path, LAYOUTS["Rocky 8"].files)
    assert add(root, "", serial=False) == 0


def test_settings_of_update_grub_keep_the_arguments(tmp_path: Path) -> None:
    root = make(tmp_path, LAYOUTS["Debian 13, packed from a machine"].files)
    configure(root, VOLUMES["/boot apart"])
    text = (root / "etc/default/grub").read_text()
    assert f'\nGRUB_CMDLINE_LINUX="{CONSOLES} net.ifnames=0"\n' in text
    assert 'GRUB_TERMINAL="console serial"\n' in text
    assert 'GRUB_SERIAL_COMMAND="serial --unit=0 --speed=115200"\n' in text
    assert 'GRUB_CMDLINE_LINUX_DEFAULT="quiet"\n' in text


def test_settings_of_update_grub_forget_the_old_disks(tmp_path: Path) -> None:
    root = make(tmp_path, LAYOUTS["Alma 9"].files)
    configure(root, VOLUMES["/boot apart"])
    text = (root / "etc/default/grub").read_text()
    assert f'GRUB_CMDLINE_LINUX="crashkernel=auto {CONSOLES} net.ifnames=0"\n' in text
    assert (root / "etc/kernel/cmdline").read_text() == f"root=UUID={NEW_ROOT} ro rhgb {CONSOLES} net.ifnames=0\n"


def test_a_later_file_of_settings_is_the_one_that_is_changed(tmp_path: Path) -> None:
    cloud = "/etc/default/grub.d/10_cloud.cfg"
    files = LAYOUTS["Debian 13, packed from a machine"].files | {cloud: 'GRUB_CMDLINE_LINUX="console=ttyS0 a"\n'}
    root = make(tmp_path, files)
    configure(root, VOLUMES["/boot apart"])
    assert 'GRUB_CMDLINE_LINUX="console=ttyS0 a net.ifnames=0"\n' in Path(f"{root}{cloud}").read_text()
    assert 'GRUB_CMDLINE_LINUX=""\n' in (root / "etc/default/grub").read_text()


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("GRUB_CMDLINE_LINUX=", 'GRUB_CMDLINE_LINUX="a=1"\n'),
        ("GRUB_CMDLINE_LINUX=b", 'GRUB_CMDLINE_LINUX="b a=1"\n'),
        ("GRUB_CMDLINE_LINUX='b c'", "GRUB_CMDLINE_LINUX='b c a=1'\n"),
        ("GRUB_CMDLINE_LINUX='b a=1'", "GRUB_CMDLINE_LINUX='b a=1'"),
        ('GRUB_CMDLINE_LINUX="$X"', 'GRUB_CMDLINE_LINUX="$X"\nGRUB_CMDLINE_LINUX="$GRUB_CMDLINE_LINUX a=1"\n'),
        ("", 'GRUB_CMDLINE_LINUX="a=1"\n'),
    ],
)
def test_each_form_of_the_setting(tmp_path: Path, line: str, expected: str) -> None:
    root = make(tmp_path, {"/etc/default/grub": line})
    for _ in range(2):
        add(root, "a=1", serial=False)
        text = (root / "etc/default/grub").read_text()
        assert text.rstrip("\n") == expected.rstrip("\n")


def test_arguments_cannot_become_commands(tmp_path: Path) -> None:
    files = LAYOUTS["Debian 12, packed by debootstrap"].files | {"/etc/default/grub": "GRUB_TIMEOUT=1\n"}
    root = make(tmp_path, files)
    configure(root, VOLUMES["/boot apart"], 'a=`id` b=$(id);id c=\'d "e f" }', serial=False)
    config = (root / "boot/grub/grub.cfg").read_text()
    assert "'a=`id`' 'b=$(id);id' 'c='\\''d' 'e f' '}'" in config
    line = (root / "etc/default/grub").read_text().splitlines()[1]
    assert line.startswith('GRUB_CMDLINE_LINUX="$GRUB_CMDLINE_LINUX ')
    assert "\\`id\\`" in line
    assert "\\$(id)" in line


def test_words_are_parted_as_the_kernel_does() -> None:
    assert words('a b="c d"  e "f g"h "i') == ["a", 'b="c d"', "e", '"f g"h', '"', "i"]


@pytest.mark.parametrize("order", [["6.1-rc1", "6.1", "6.1.1", "6.9.0", "6.10.0"], ["6.1.0-9-amd64", "6.1.0-10-amd64"]])
def test_versions_are_compared_by_number(order: list[str]) -> None:
    shuffled = [*order[1:], order[0]]
    assert sorted(shuffled, key=version_key) == order


def test_a_rescue_kernel_is_last_and_other_names_are_none(tmp_path: Path) -> None:
    names = ["vmlinuz-0-rescue-ff", "vmlinuz-9'; reboot #", "vmlinuz-9\n}", "vmlinuz-5.14", "vmlinuz-9.gz", "vmlinux-9"]
    root = make(tmp_path, {f"/boot/{name}": "k" for name in names})
    configure(root, VOLUMES["/boot apart"])
    config = (root / "boot/grub/grub.cfg").read_text()
    assert re.findall(r"linux (\S+)", config) == ["/vmlinuz-5.14", "/vmlinuz-0-rescue-ff"]


def test_a_system_without_kernel_is_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "boot").mkdir()
    assert not configure(tmp_path, VOLUMES["/boot apart"])
    assert "/boot: the system has no kernel there" in caplog.text
    assert not (tmp_path / "boot/grub").exists()


def test_a_replaced_config_is_kept_and_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    layout = LAYOUTS["a machine with a key and a UEFI"]
    configure(make(tmp_path, layout.files), VOLUMES["/boot apart"])
    assert "/boot/grub/grub.cfg: it has the command cryptomount; it is kept as grub.cfg.old" in caplog.text
    assert (tmp_path / "boot/grub/grub.cfg.old").read_text() == layout.files["/boot/grub/grub.cfg"]


@pytest.mark.parametrize(
    "config",
    [
        f"loopback loop0 /loop0\nset root=(loop0)\nlinux /boot/vmlinuz-1 root=UUID={OLD_ROOT}\n",
        "set root='hd0,msdos1'\nlinux /boot/vmlinuz-1 root=/dev/sda1\n",
        "search --label --set=root rootfs\nlinux /boot/vmlinuz-1 root=LABEL=rootfs\n",
        "search --fs-uuid --set=root $uuid\nlinux /boot/vmlinuz-1 root=LABEL=rootfs\n",
        "linux $prefix/vmlinuz-1 root=/dev/sda1\n",
        "linux (hd0,1)/boot/vmlinuz-1 root=/dev/sda1\n",
        "linux /boot/../boot/vmlinuz-1 root=/dev/sda1\n",
        "linux /boot/vmlinuz-1 \\\n root=/dev/sda1\n",
        "".join(f"search --fs-uuid --set=root 1111-111{number}\n" for number in range(3)) + "linux /boot/vmlinuz-1\n",
        "blscfg\n",
        "\n",
        "",
    ],
)
def test_what_finds_its_kernel_in_another_way_is_replaced(tmp_path: Path, config: str) -> None:
    root = make(tmp_path, {"/boot/vmlinuz-1": "k", "/boot/initrd-1": "i", "/boot/grub/grub.cfg": config})
    configure(root, VOLUMES["/boot apart"])
    assert boot_lines(root, "grub")[0][0].startswith(f"/vmlinuz-1 root=UUID={NEW_ROOT} ro {CONSOLES}")


def test_a_font_in_usr_is_searched_for_on_the_root(tmp_path: Path) -> None:
    root = make(tmp_path, LAYOUTS["Debian 13, packed from a machine"].files)
    configure(root, VOLUMES["/boot apart"])
    head, _, menu = (root / "boot/grub/grub.cfg").read_text().partition("menuentry")
    assert NEW_ROOT in head
    assert NEW_BOOT not in head
    assert f"--set=root {NEW_BOOT}" in menu


def test_an_entry_without_its_kernel_is_left(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    layout = LAYOUTS["Alma 9"]
    root = make(tmp_path, layout.files)
    gone = "vmlinuz-5.14.0-70.el9.x86_64"
    (root / "boot" / gone).unlink()
    configure(root, VOLUMES["/boot apart"])
    assert "5.14.0-70.el9.x86_64.conf: starts a kernel that is not in /boot" in caplog.text


def test_an_environment_that_is_full_stays(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    root = make(tmp_path, LAYOUTS["Rocky 8"].files)
    block = ("# GRUB Environment Block\nkernelopts=root=/dev/sda1 " + "a" * 960 + "\n").ljust(1024, "#")
    (root / "boot/grub2/grubenv").write_text(block)
    configure(root, VOLUMES["/boot apart"])
    assert "grubenv: the kernel's arguments do not fit" in caplog.text
    assert (root / "boot/grub2/grubenv").read_text() == block


def test_grub_pc_forgets_the_old_machines_disks(tmp_path: Path) -> None:
    files = LAYOUTS["Debian 13, packed from a machine"].files
    database = "/var/cache/debconf/config.dat"
    stanzas = (
        "Name: grub-pc/install_devices\nTemplate: grub-pc/install_devices\nValue: /dev/disk/by-id/ata-OLD\n"
        "Owners: grub-pc\nFlags: seen\nVariables:\n CHOICES = \n\nName: other/question\nTemplate: x\nValue: y\n\n"
    )
    root = make(tmp_path, files | {database: stanzas})
    for _ in range(2):
        configure(root, VOLUMES["/boot apart"])
        text = Path(f"{root}{database}").read_text()
        assert "ata-OLD" not in text
        assert text.count("Name: grub-pc/install_devices_empty\n") == 1
        assert "Value: true\nOwners: grub-pc\nFlags: seen\n" in text
        assert "Name: other/question\nTemplate: x\nValue: y\n\n" in text


PATHS = ("/boot/grub/grub.cfg", "/etc/default/grub", "/boot/grub/grubenv", "/etc/kernel/cmdline")


def _fifo(path: Path, outside: Path) -> None:
    os.mkfifo(path)


def _directory(path: Path, outside: Path) -> None:
    path.mkdir()


def _link(path: Path, outside: Path) -> None:
    path.symlink_to(outside)


def _loop(path: Path, outside: Path) -> None:
    path.symlink_to(path.name)


def _huge(path: Path, outside: Path) -> None:
    with path.open("wb") as file:
        file.truncate(10 << 30)


@pytest.mark.parametrize("hostile", [_fifo, _directory, _link, _loop, _huge])
@pytest.mark.parametrize("name", PATHS)
def test_hostile_files_are_named_and_nothing_outside_changes(
    tmp_path: Path, name: str, hostile: Callable[[Path, Path], None]
) -> None:
    outside = tmp_path / "host.cfg"
    outside.write_text("host")
    root = make(tmp_path / "guest", LAYOUTS["Debian 12, packed by debootstrap"].files)
    path = Path(f"{root}{name}")
    path.parent.mkdir(parents=True, exist_ok=True)
    hostile(path, outside)
    runs: list[Callable[[], object]] = [lambda: add(root), lambda: configure(root, VOLUMES["/boot apart"])]
    errors: list[str] = []
    for run in runs:
        try:
            run()
        except (StorageError, GuestError) as error:
            errors.append(str(error))
    assert all(name in error for error in errors)
    assert errors or hostile in (_link, _loop)
    assert outside.read_text() == "host"


@pytest.mark.parametrize(
    "line", ["search --fs-uuid 1111-2222 --set=root\n", "\n", "a b c\n", "linux /boot/vmlinuz-1 a\n"]
)
def test_a_million_bytes_of_lines_take_no_time(tmp_path: Path, line: str) -> None:
    text = line * ((1 << 20) // len(line))
    root = make(tmp_path, {"/boot/vmlinuz-1": "k", "/boot/initrd-1": "i", "/boot/grub/grub.cfg": text})
    began = time.process_time()
    configure(root, VOLUMES["/boot apart"])
    assert time.process_time() - began < 20
    assert (root / "boot/grub/grub.cfg").exists()


@pytest.mark.parametrize(
    ("start", "piece"),
    [
        *(("search -", "u"), ("search -", "a"), ("search --set=root ", "1111-2222 "), ("linux /", "kernel/")),
        *(('set kernelopts="', "a "), ("linux /boot/vmlinuz-1 ", "a=b "), ("initrd ", "/a"), ("", "\t"), ("a", "\\\n")),
    ],
)
def test_a_million_bytes_of_one_line_take_no_time(tmp_path: Path, start: str, piece: str) -> None:
    text = "linux /boot/vmlinuz-1 root=UUID=1111-2222\n" + start + piece * (((1 << 20) - 4096) // len(piece)) + "\1\n"
    root = make(tmp_path, {"/boot/vmlinuz-1": "k", "/boot/initrd-1": "i", "/boot/grub/grub.cfg": text})
    began = time.process_time()
    configure(root, VOLUMES["/boot apart"])
    add(root)
    assert time.process_time() - began < 20


def test_damaged_files_never_end_in_a_traceback(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.CRITICAL)
    dice = random.Random(11)  # the same damage in every run
    for number in range(120):
        layout = dice.choice([*LAYOUTS.values()])
        root = make(tmp_path / str(number), layout.files)
        for path in [path for path in sorted(root.rglob("*")) if path.is_file() and path.stat().st_size > 40]:
            data = bytearray(path.read_bytes())
            for _ in range(dice.randrange(6)):
                boot = dice.randrange(len(data))
                data[boot : boot + dice.choice([0, 1, 9])] = dice.choice(
                    [b"", b"\0", b"\n", b'"', b"'", b"\xff", b"\\"]
                )
            path.write_bytes(data)
        try:
            configure(root, dice.choice([*VOLUMES.values()]))
        except (StorageError, GuestError):
            continue
        texts = [path.read_bytes() for path in (root / "boot").rglob("*") if path.is_file()]
        assert any(b"root=UUID=" + NEW_ROOT.encode() in text for text in texts)


@pytest.mark.parametrize("menu", [None, "search --fs-uuid --set=root {old}\nlinux /kernel-6.6.21 root=/dev/vda3 ro\n"])
def test_a_kernel_without_an_initrd_gets_a_root_that_it_understands(tmp_path: Path, menu: str | None) -> None:
    """As Gentoo's often are: such a kernel knows no UUIDs of file systems."""
    root = make(tmp_path, {"/boot/kernel-6.6.21": "kernel"})
    if menu is not None:
        make(root, {"/boot/grub/grub.cfg": menu.format(old=OLD_BOOT)})
    boot = BootVolumes(root_uuid=NEW_ROOT, boot_uuid=NEW_BOOT, root_partuuid="aabbccdd-03")
    assert configure(root, boot, serial=False)
    config = (root / "boot/grub/grub.cfg").read_text()
    assert "linux /kernel-6.6.21 root=PARTUUID=aabbccdd-03 ro net.ifnames=0" in config
    assert f"--set=root {NEW_BOOT}\n" in config
    make(root, {"/boot/initramfs-6.6.21.img": "initrd"})
    assert configure(root, boot, serial=False)
    assert f"linux /kernel-6.6.21 root=UUID={NEW_ROOT} ro net.ifnames=0" in (root / "boot/grub/grub.cfg").read_text()
