# SPDX-License-Identifier: MIT
"""The root of each distribution's layout is found by its content, and what is written lands where the guest sees it."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from ganeti_os.guest.firmware import boots_by_uefi_only
from ganeti_os.guest.mounted_guest import mounted_guest
from ganeti_os.guest.root import Guest, find_guest
from pydiskimg.files.mounted_tree import open_mounted_tree
from pydiskimg.images.open_disk import open_disk
from tests.fixtures.block_devices import beginning
from tests.fixtures.growing import loop, mounted_at
from tests.fixtures.layouts import LAYOUTS, MIB, Layout, build
from tests.fixtures.node import Node, create_environment, last_line
from tests.fixtures.programs import Tool

pytestmark = pytest.mark.root


def number(guest: Guest, which: str) -> int | None:
    volume = getattr(guest, which)
    return None if volume is None else volume.partition.number


def rename(node: Node, disk: Path, **more: str) -> subprocess.CompletedProcess[str]:
    environment = create_environment(disk, INSTANCE_NAME="web.example.org", OLD_INSTANCE_NAME="old.example.org")
    return node.run("rename", **environment | more)


def text(layout: Layout, disk: Path, work: Path, file: str, subvolume: str) -> str:
    """Read a file of the root's volume with the kernel's own mount."""
    part = next(part for part in layout.parts if part.number == layout.root)
    options = ("-o", f"subvol={subvolume}") if subvolume else ()
    with (
        loop(disk, part.start * MIB, disk.stat().st_size - part.start * MIB) as device,  # it may have grown
        mounted_at(device, work / "read", *options) as point,
    ):
        return (point / file).read_text()


@pytest.mark.parametrize("name", LAYOUTS)
def test_the_root_is_found_and_the_system_renamed(name: str, tool: Tool, tmp_path: Path) -> None:
    layout = LAYOUTS[name]
    path = build(layout, tmp_path / "disk", tool, tmp_path)
    with open_disk(path, writable=True) as disk:
        guest = find_guest(disk)
        assert (number(guest, "root"), guest.root.options) == (layout.root, layout.subvolume)
        assert (number(guest, "boot"), number(guest, "efi")) == (layout.boot, layout.efi)
        inside = {point: volume.options for point, volume in guest.inside}
        assert inside == {point: f"subvol=/{subvolume}" for point, subvolume in layout.inside.items()}
        assert boots_by_uefi_only(disk) == (name == "uefi-only")
    node = Node.make(tmp_path / "node")
    done = rename(node, path)
    assert done.returncode == 0, done.stderr
    root = layout.default_subvolume or layout.subvolume.removeprefix("subvol=/")
    assert text(layout, path, tmp_path, "etc/hostname", root) == "web\n"


@pytest.mark.parametrize("name", ["fedora", "opensuse"])
def test_what_is_written_below_var_lands_in_its_subvolume(name: str, tool: Tool, tmp_path: Path) -> None:
    layout = LAYOUTS[name]
    path = build(layout, tmp_path / "disk", tool, tmp_path)
    with open_disk(path, writable=True) as disk:
        guest = find_guest(disk)
        with mounted_guest(disk, guest) as mounted, open_mounted_tree(mounted.target) as tree:
            for directory in layout.inside:
                assert tree.exists(f"{directory}/is {directory.strip('/')}")
            for directory in ("/var/lib", "/var/lib/cloud"):
                if not tree.exists(directory):
                    tree.make_directory(directory)
            tree.write("/var/lib/cloud/seed", b"a seed\n")
    assert text(layout, path, tmp_path, "lib/cloud/seed", layout.inside["/var"]) == "a seed\n"


def test_a_var_on_a_partition_of_its_own(tool: Tool, tmp_path: Path) -> None:
    var = next(part for part in LAYOUTS["ubuntu-24.04"].parts if part.number == 16)
    fstab = LAYOUTS["ubuntu-24.04"].fstab.replace("\t/boot\t", "\t/var\t")
    base = LAYOUTS["ubuntu-24.04"]
    layout = Layout(base.label, base.parts, root=1, boot=None, efi=15, fstab=fstab, os_release=base.os_release)
    path = build(layout, tmp_path / "disk", tool, tmp_path)
    with open_disk(path, writable=True) as disk:
        guest = find_guest(disk)
        assert [(point, volume.partition.number) for point, volume in guest.inside] == [("/var", var.number)]
        with mounted_guest(disk, guest) as mounted, open_mounted_tree(mounted.target) as tree:
            tree.write("/var/marker", b"here\n")
    with loop(path, var.start * MIB, var.size * MIB) as device, mounted_at(device, tmp_path / "var") as point:
        assert (point / "marker").read_text() == "here\n"


@pytest.mark.parametrize(
    "line",
    [
        "UUID={uuid4} /var btrfs subvol=var,device=/dev/sda 0 0",  # another option is not taken over
        "UUID={uuid4} /var btrfs subvol=../../etc 0 0",
        "UUID={uuid4} /var btrfs subvol=nothing-there 0 0",
        "UUID={uuid4} /var btrfs subvolid=99999 0 0",
        "UUID={uuid4} /var btrfs defaults 0 0",
        "UUID={uuid4} /var btrfs subvol=/root 0 0",
        "/dev/sdz9 /var ext4 defaults 0 0",
        "server:/var /var nfs defaults 0 0",
        "UUID={uuid4} /var/../../etc btrfs subvol=var 0 0",
    ],
)
def test_lines_that_a_guest_may_have_written(line: str, tool: Tool, tmp_path: Path) -> None:
    base = LAYOUTS["fedora"]
    fstab = "UUID={uuid4} / btrfs subvol=root 0 1\n" + line + "\n"
    layout = Layout(
        base.label, base.parts, root=4, subvolume=base.subvolume, inside={"/var": "var"}, fstab=fstab,
        os_release=base.os_release,
    )  # fmt: skip
    path = build(layout, tmp_path / "disk", tool, tmp_path)
    done = rename(Node.make(tmp_path / "node"), path)
    assert done.returncode == 0, done.stderr
    assert text(layout, path, tmp_path, "etc/hostname", "root") == "web\n"
    if "nothing-there" in line or "99999" in line:
        assert "/var of the guest is not mounted, and files written below it are hidden" in done.stderr


def test_a_var_that_is_a_symlink_leads_nowhere_outside(tool: Tool, tmp_path: Path) -> None:
    layout = LAYOUTS["fedora"]
    path = build(layout, tmp_path / "disk", tool, tmp_path)
    outside = tmp_path / "outside"
    outside.mkdir()
    part = next(part for part in layout.parts if part.number == 4)
    with (
        loop(path, part.start * MIB, part.size * MIB) as device,
        mounted_at(device, tmp_path / "w", "-o", "subvol=root") as point,
    ):
        subprocess.run(["rm", "-r", point / "var"], check=True)
        (point / "var").symlink_to(outside)
    done = rename(Node.make(tmp_path / "node"), path)
    assert done.returncode == 0, done.stderr
    assert "/var of the guest is not mounted" in done.stderr
    assert list(outside.iterdir()) == []


@pytest.mark.parametrize(
    ("more", "warned"),
    [
        ({}, True),
        ({"HYPERVISOR": "xen-hvm"}, False),
        ({"INSTANCE_HV_kernel_path": "/vmlinuz"}, False),
        ({"INSTANCE_HV_kvm_extra": "-drive if=pflash,format=raw,unit=0,file=/usr/share/OVMF/OVMF_CODE.fd"}, False),
    ],
)
def test_an_image_for_uefi_only_is_named(tool: Tool, tmp_path: Path, more: dict[str, str], warned: bool) -> None:
    layout = LAYOUTS["uefi-only"]
    node = Node.make(tmp_path / "node", IMAGE_NAME="x.img", IDENTITY="no", GROW="no")
    build(layout, node.images / "x.img", tool, tmp_path)
    disk = tmp_path / "disk"
    with disk.open("wb") as file:
        file.truncate(layout.size)
    done = node.run("create", **create_environment(disk) | more)
    assert done.returncode == 0, done.stderr
    assert ("the image boots by UEFI only" in done.stderr) == warned


def variables() -> bytes:
    """The beginning of OVMF_VARS.fd: a firmware volume with the GUID of NVRAM, its length, and its signature."""
    guid = bytes.fromhex("8d2bf1ff96768b4ca9852747075b4f50")
    return bytes(16) + guid + (0x84000).to_bytes(8, "little") + b"_FVH" + b"\xff" * (0x84000 - 44)


def test_a_disk_with_firmware_variables_is_left_alone(tool: Tool, tmp_path: Path) -> None:
    layout = LAYOUTS["debian"]
    system, nvram = build(layout, tmp_path / "system", tool, tmp_path), tmp_path / "nvram"
    nvram.write_bytes(variables())
    node = Node.make(tmp_path / "node", IMAGE_NAME="x.img", IDENTITY="yes", GROW="yes")
    more = {"DISK_COUNT": "2", "DISK_1_ACCESS": "rw"}
    for first, second in ((nvram, system), (system, nvram)):
        done = rename(node, first, **more, DISK_1_PATH=str(second))
        assert done.returncode == 0, done.stderr
        assert nvram.read_bytes() == variables()
    assert (
        f"{nvram} contains firmware variables (UEFI) and is not changed"
        in rename(node, nvram, **more, DISK_1_PATH=str(system)).stderr
    )
    done = rename(node, nvram)
    assert (done.returncode, "no disk contains a system" in last_line(done)) == (1, True)


def test_a_disk_with_firmware_variables_does_not_become_swap(tool: Tool, tmp_path: Path) -> None:
    node = Node.make(tmp_path / "node", IMAGE_NAME="x.img", IDENTITY="no", GROW="no")
    (node.images / "x.img").write_bytes(bytes(510) + b"\x55\xaa" + bytes(4 * MIB))
    disk, nvram = tmp_path / "disk", tmp_path / "nvram"
    disk.write_bytes(bytes(8 * MIB))
    nvram.write_bytes(variables())
    done = node.run("create", "-i", "inst", "-b", str(disk), "-s", str(nvram))
    assert done.returncode == 0, done.stderr
    assert "contains firmware variables (UEFI) and is not changed; no swap area is made" in done.stderr
    assert nvram.read_bytes() == variables()


def test_a_disk_with_firmware_variables_is_imported_as_it_was(tool: Tool, tmp_path: Path) -> None:
    """Beside the system's disk: nothing in it grows, and nothing is looked for in it."""
    node = Node.make(tmp_path / "node", GROW="yes", IMPORT_IDENTITY="new")
    old, disk, backup = tmp_path / "old", tmp_path / "disk", tmp_path / "backup"
    old.write_bytes(variables().ljust(MIB, b"\0"))
    disk.write_bytes(b"\xff" * (2 * MIB))
    assert node.export(old, backup).returncode == 0
    done = node.restore(disk, backup)
    said = done.stderr.decode()
    assert done.returncode == 0, said
    assert beginning(disk, MIB) == old.read_bytes()
    assert f"{disk} contains firmware variables (UEFI) and is not changed" in said
    assert "warning" not in said
    assert "no identity" not in said


@pytest.mark.parametrize(
    ("name", "ending", "command"),
    [
        ("debian", "raw.xz", ["xz", "-0", "-c"]),
        ("fedora", "qcow2.zst", ["zstd", "-q", "-1", "-c"]),
        ("alpine", "tar.gz", ["tar", "-czf", "-", "--sparse", "-C"]),
    ],
)
def test_a_compressed_image_becomes_the_instance(
    name: str, ending: str, command: list[str], tool: Tool, tmp_path: Path
) -> None:
    layout = LAYOUTS[name]
    node = Node.make(tmp_path / "node", IMAGE_NAME=f"x.{ending}")
    raw = build(layout, tmp_path / "disk.raw", tool, tmp_path)
    if ending.startswith("qcow2"):
        subprocess.run([tool("qemu-img"), "convert", "-O", "qcow2", raw, tmp_path / "x.qcow2"], check=True)
        raw = tmp_path / "x.qcow2"
    words = [str(tmp_path), raw.name] if command[0] == "tar" else [str(raw)]
    with (node.images / f"x.{ending}").open("wb") as file:
        subprocess.run([tool(command[0]), *command[1:], *words], stdout=file, check=True)
    disk = tmp_path / "instance"
    with disk.open("wb") as file:
        file.truncate(layout.size + 40 * MIB)
    done = node.run("create", **create_environment(disk) | {"INSTANCE_NAME": "web.example.org"})
    assert done.returncode == 0, done.stderr
    assert "x." + ending + " is installed" in last_line(done)
    root = layout.default_subvolume or layout.subvolume.removeprefix("subvol=/")
    assert text(layout, disk, tmp_path, "etc/hostname", root) == "web\n"
