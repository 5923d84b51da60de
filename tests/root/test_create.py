# SPDX-License-Identifier: MIT
"""The create verb on real images: what is on the disk afterwards, judged by sfdisk, e2fsck and the kernel."""

from __future__ import annotations

import os
import re
import subprocess
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.fixtures.block_devices import block_device, filled_file
from tests.fixtures.debian_system import NAME, DebianSystem
from tests.fixtures.judges import blkid, inside, partitions
from tests.fixtures.node import PATH, ROOT, Node, create_environment, last_line
from tests.fixtures.unmounting import unmount

pytestmark = pytest.mark.root
MIB = 1 << 20


@pytest.fixture
def node(tmp_path: Path, debian: DebianSystem) -> Node:
    made = Node.make(tmp_path / "a node", IMAGE_NAME=NAME, IMAGE_TYPE="tarball")
    for path in (debian.tarball, debian.qcow2):
        (made.images / path.name).symlink_to(path)
    return made


@pytest.fixture(params=[None, 512, 4096], ids=["file", "512", "4096"])
def disk(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """A disk full of 0xFF: a file, or a block device with this sector size."""
    path = filled_file(tmp_path / "the disk", 700 * MIB)
    if request.param is None:
        yield str(path)
    else:
        with block_device(path, sector_size=request.param) as device:
            yield device


def test_a_tarball_becomes_a_disk(node: Node, disk: str, tmp_path: Path, debian: DebianSystem) -> None:
    done = node.create(disk)
    assert done.returncode == 0, done.stderr
    assert done.stdout == ""
    boot, swap, root = partitions(disk)
    assert [(p["type"], p.get("bootable", False)) for p in (boot, swap, root)] == [
        ("83", True),
        ("82", False),
        ("83", False),
    ]
    assert (boot["length"], swap["length"]) == (100 * MIB, 64 * MIB)
    assert blkid(disk, swap, "TYPE") == "swap"
    packed = subprocess.run(["tar", "tzf", debian.tarball], capture_output=True, text=True, check=True).stdout
    with inside(disk, boot, tmp_path) as point:
        assert {path.name for path in point.glob("vmlinuz-*")} == {
            os.path.basename(name) for name in packed.splitlines() if "/boot/vmlinuz-" in name
        }
    with inside(disk, root, tmp_path) as point:
        diff = subprocess.run(
            ["tar", "--compare", "--numeric-owner", "-zf", debian.tarball, "--exclude", "./boot/*", "-C", point],
            capture_output=True,
            text=True,
            check=False,
        )
        differing = {line.split(":")[0] for line in diff.stdout.splitlines()}
        assert differing <= {"./etc/fstab", "./etc/hostname", "./etc/hosts", ".", "./boot"}, diff.stdout + diff.stderr
        lines = [line.split() for line in (point / "etc/fstab").read_text().splitlines() if line[0] != "#"]
        assert [(fields[0], fields[1], fields[2]) for fields in lines] == [
            (f"UUID={blkid(disk, root, 'UUID')}", "/", "ext4"),
            (f"UUID={blkid(disk, boot, 'UUID')}", "/boot", "ext4"),
            (f"UUID={blkid(disk, swap, 'UUID')}", "none", "swap"),
        ]
        assert (point / "etc/fstab").stat().st_mode & 0o777 == 0o644


def root_of(disk: str) -> dict[str, int]:
    """The only partition; on a disk with larger sectors than those of its table it does not grow."""
    found = partitions(disk)
    return found[0] if found[0]["offset"] == MIB else {"offset": MIB, "length": 399 * MIB}


def test_an_image_becomes_the_instance_and_fills_its_disk(node: Node, disk: str, tmp_path: Path) -> None:
    node.configure(IMAGE_NAME=NAME, IMAGE_TYPE="qcow2")
    done = node.create(disk)
    assert done.returncode == 0, done.stderr
    root = root_of(disk)
    assert root["length"] == (399 if "partition table for sectors of" in done.stderr else 699) * MIB
    with inside(disk, root, tmp_path) as point:
        assert (point / "etc/hostname").read_text() == "inst1\n"
        assert (point / "etc/hosts").read_text() == "127.0.0.1\tlocalhost\n127.0.1.1\tinst1.example.org inst1\n"


def test_an_image_becomes_a_disk(node: Node, disk: str, tmp_path: Path, debian: DebianSystem) -> None:
    node.configure(IMAGE_NAME=NAME, IMAGE_TYPE="qcow2", IDENTITY="no", GROW="no")
    done = node.create(disk)
    assert done.returncode == 0, done.stderr
    compared = subprocess.run(
        ["qemu-img", "compare", "-f", "qcow2", "-F", "raw", debian.qcow2, disk],
        capture_output=True,
        text=True,
        check=False,
    )
    # The image is smaller than the disk, which was full of 0xFF: its rest is zero.
    assert compared.returncode == 0, compared.stdout
    assert "Images are identical." in compared.stdout
    with inside(disk, {"offset": MIB, "length": 399 * MIB}, tmp_path) as point:
        assert (point / "etc/hostname").read_text() == "debian-small\n"


@pytest.mark.parametrize(
    ("kernel", "swap", "filesystem", "types"),
    [
        ("", "no", "ext3", ["83", "83"]),
        ("/boot/vmlinuz", "yes", "ext2", ["82", "83"]),
        ("/boot/vmlinuz", "no", "ext4", ["83"]),
    ],
)
def test_partitions_follow_the_settings(
    node: Node, tmp_path: Path, kernel: str, swap: str, filesystem: str, types: list[str]
) -> None:
    node.configure(IMAGE_NAME=NAME, IMAGE_TYPE="tarball", SWAP=swap, SWAP_SIZE="33", FILESYSTEM=filesystem)
    disk = filled_file(tmp_path / "disk", 400 * MIB)
    done = node.create(disk, INSTANCE_HV_kernel_path=kernel)
    assert done.returncode == 0, done.stderr
    found = partitions(str(disk))
    assert [p["type"] for p in found] == types
    assert blkid(str(disk), found[-1], "TYPE") == filesystem
    with inside(str(disk), found[-1], tmp_path) as point:
        assert (point / "boot").is_dir()


def test_os_api_5_makes_the_second_disk_swap(node: Node, tmp_path: Path) -> None:
    disk, swap = filled_file(tmp_path / "sda", 400 * MIB), filled_file(tmp_path / "sdb", 20 * MIB)
    done = node.run("create", "-i", "inst1.example.org", "-b", str(disk), "-s", str(swap))
    assert done.returncode == 0, done.stderr
    assert [p["type"] for p in partitions(str(disk))] == ["83", "83"]
    uuid = blkid(str(swap), {"offset": 0, "length": 20 * MIB}, "UUID")
    with inside(str(disk), partitions(str(disk))[1], tmp_path) as point:
        assert f"UUID={uuid} none swap" in (point / "etc/fstab").read_text()


SCRIPT = """#!/bin/sh
set -e
test -b "$BLOCKDEV" && test -b "$ROOT_DEV"
echo "$IMAGE_TYPE $INSTANCE_NAME $(stat -c %a "$TARGET/etc/fstab") [${BOOT_DEV:+boot}]" >"$TARGET/etc/customised"
chroot "$TARGET" /bin/sh -c 'echo from the inside >/root/inside; mknod /dev/made c 1 3'
[ ! -L "$TARGET/dev" ]
mount --bind /dev "$TARGET/dev"
chroot "$TARGET" /bin/sh -c 'echo x >/dev/null'
umount "$TARGET/dev"
"""


@pytest.mark.parametrize("image_type", ["tarball", "qcow2"])
def test_scripts_change_the_guest(node: Node, disk: str, tmp_path: Path, image_type: str) -> None:
    node.configure(IMAGE_NAME=NAME, IMAGE_TYPE=image_type)
    node.add_script("10-change", SCRIPT)
    node.add_script("20.ignored", "#!/bin/sh\nexit 1\n")
    done = node.create(disk)
    assert done.returncode == 0, done.stderr
    boot = "boot" if image_type == "tarball" else ""
    # The image's own table counts sectors of 512 bytes, whatever this disk has.
    root = root_of(disk) if not boot else partitions(disk)[-1]
    with inside(disk, root, tmp_path) as point:
        assert (point / "etc/customised").read_text() == f"{image_type} inst1.example.org 644 [{boot}]\n"
        assert (point / "root/inside").read_text() == "from the inside\n"


def test_scripts_get_the_settings(node: Node, tmp_path: Path) -> None:
    """Of every layer, as text that no shell looks into."""
    node.configure(IMAGE_NAME="none", IMAGE_TYPE="qcow2", SWAP="no", BOOT_SIZE="77")
    variants = node.directory / "etc/ganeti/instance-image/variants"
    variants.mkdir(parents=True)
    (variants / "v.conf").write_text("BOOT_SIZE=78 IMAGE_DEBUG=yes\n")
    node.add_script("10-env", f'#!/bin/sh\nenv >"{tmp_path}/env"\n')
    parameters = {"OSP_IMAGE_NAME": NAME, "OSP_KERNEL_ARGS": "a=$(id) 'b c'"}
    done = node.create(filled_file(tmp_path / "disk", 500 * MIB), OS_VARIANT="v", **parameters)
    assert done.returncode == 0, done.stderr
    lines = (tmp_path / "env").read_text().splitlines()
    for line in (
        *(f"IMAGE_NAME={NAME}", "IMAGE_TYPE=qcow2", "SWAP=no", "SWAP_SIZE=", "BOOT_SIZE=78", "FILESYSTEM=ext4"),
        *("OVERLAY=", "KERNEL_ARGS=a=$(id) 'b c'", "OSP_KERNEL_ARGS=a=$(id) 'b c'", "OS_VARIANT=v"),
        *(f"{name}_DIR={node.directory}/etc/ganeti/instance-image/{name.lower()}" for name in ("OVERLAYS", "NETWORKS")),
    ):
        assert line in lines
    assert f"ARCH={os.uname().machine}" in lines
    assert " BOOT_SIZE='78' " in done.stderr


@pytest.mark.parametrize("image_type", ["tarball", "qcow2"])
def test_a_script_that_fails_fails_the_create(node: Node, tmp_path: Path, image_type: str) -> None:
    node.configure(IMAGE_NAME=NAME, IMAGE_TYPE=image_type)
    script = node.add_script("10-fail", "#!/bin/sh\nexit 3\n")
    disk = filled_file(tmp_path / "disk", 500 * MIB)
    done = node.create(disk)
    assert done.returncode == 1
    assert last_line(done) == f"image create inst1.example.org: customising: {script}: exited with status 3"
    types = subprocess.run(["sfdisk", "-d", disk], capture_output=True, text=True, check=False).stdout
    assert "type=83" not in types, "a failed installation looks complete"


def test_a_script_that_leaves_a_process_is_named_with_it(node: Node, tmp_path: Path) -> None:
    script = node.add_script(
        "10-stay", f'#!/bin/sh\ncd "$TARGET"\nsleep 300 >/dev/null 2>&1 &\necho $! >{tmp_path}/pid\n'
    )
    done = node.create(filled_file(tmp_path / "disk", 400 * MIB))
    pid = int((tmp_path / "pid").read_text())
    try:
        assert done.returncode == 1
        assert str(script) in last_line(done)
        assert str(pid) in last_line(done)
        assert "sleep" in last_line(done)
    finally:
        os.kill(pid, 9)


def test_a_reinstall_over_an_old_system_is_a_clean_one(node: Node, tmp_path: Path) -> None:
    disk = filled_file(tmp_path / "disk", 700 * MIB)
    for image_type in ("tarball", "qcow2", "tarball"):
        node.configure(IMAGE_NAME=NAME, IMAGE_TYPE=image_type)
        assert node.create(disk, INSTANCE_REINSTALL="1").returncode == 0
    with inside(str(disk), partitions(str(disk))[2], tmp_path) as point:
        assert (point / "sbin/init").is_symlink()


@pytest.mark.parametrize("environment", [{}, {"LC_ALL": "C"}, {"LC_ALL": "nonsense", "PYTHONSTARTUP": "/x"}])
def test_two_creates_side_by_side(node: Node, tmp_path: Path, environment: dict[str, str]) -> None:
    disks = [filled_file(tmp_path / f"disk{index}", 400 * MIB) for index in range(2)]
    running = [node.start("create", **create_environment(disk, **environment)) for disk in disks]
    for process in running:
        _, err = process.communicate(timeout=120)
        assert process.returncode == 0, err
    for disk in disks:
        with inside(str(disk), partitions(str(disk))[2], tmp_path) as point:
            assert (point / "etc/debian_version").exists()


def test_two_creates_on_one_disk_exclude_each_other(node: Node, tmp_path: Path) -> None:
    disk = filled_file(tmp_path / "disk", 400 * MIB)
    running = [node.start("create", **create_environment(disk)) for _ in range(2)]
    statuses = {}
    for process in running:
        _, err = process.communicate(timeout=120)
        statuses[process.returncode] = err
    assert sorted(statuses) == [0, 1]
    assert "is in use" in statuses[1].splitlines()[-1]
    with inside(str(disk), partitions(str(disk))[2], tmp_path) as point:
        assert (point / "etc/debian_version").exists()


@pytest.mark.parametrize(
    ("image_type", "sentence"),
    [("qcow2", "copying: {disk}: cannot write"), ("tarball", "unpacking: {disk}: cannot write")],
)
def test_a_full_disk_gives_one_clear_error(
    node: Node, tmp_path: Path, debian: DebianSystem, image_type: str, sentence: str
) -> None:
    """It has room for half of what is on it, so that the end of what is unpacked cannot still wait in memory."""
    node.configure(IMAGE_NAME=NAME, IMAGE_TYPE=image_type)
    small = tmp_path / "small"
    small.mkdir()
    room = f"size={debian.tarball.stat().st_size // 2}"
    subprocess.run(["mount", "-t", "tmpfs", "-o", room, "tmpfs", small], check=True)
    try:
        disk = small / "disk"
        with disk.open("wb") as file:
            file.truncate(700 * MIB)
        done = node.create(disk)
        assert done.returncode == 1
        assert re.search(sentence.format(disk=disk), last_line(done))
        dump = subprocess.run(["sfdisk", "-d", disk], capture_output=True, text=True, check=False).stdout
        assert "type=83" not in dump
    finally:
        unmount(small)


def test_a_device_in_use_is_refused(node: Node, tmp_path: Path) -> None:
    path = filled_file(tmp_path / "disk", 16 * MIB)
    subprocess.run(["mke2fs", "-q", "-F", path], check=True)
    before = path.read_bytes()
    point = tmp_path / "point"
    point.mkdir()
    with block_device(path) as device:
        subprocess.run(["mount", "-o", "ro", device, point], check=True)
        try:
            done = node.create(device)
        finally:
            subprocess.run(["umount", point], check=True)
    assert done.returncode == 1
    assert f"{device}: is in use (mounted on {point}); nothing was written" in last_line(done)
    assert path.read_bytes() == before


@pytest.mark.parametrize("image_type", ["tarball", "qcow2"])
def test_a_script_without_the_right_to_mount(node: Node, tmp_path: Path, image_type: str) -> None:
    node.configure(IMAGE_NAME=NAME, IMAGE_TYPE=image_type)
    node.add_script("10-any", "#!/bin/sh\n")
    disk = filled_file(tmp_path / "disk", 450 * MIB)
    command = ["/usr/bin/setpriv", "--bounding-set=-sys_admin", *node.command("create")]
    done = subprocess.run(
        command, cwd=ROOT, env={"PATH": PATH, **create_environment(disk)}, capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    assert "mounting needs root (CAP_SYS_ADMIN)" in last_line(done)
    with disk.open("rb") as file:
        assert file.read(MIB) == b"\xff" * MIB, "the disk was written to"


@pytest.mark.parametrize("switch", [{"IDENTITY": "no"}, {"NOMOUNT": "yes"}])
def test_an_image_whose_inside_stays_needs_no_right_to_mount(
    node: Node, tmp_path: Path, switch: dict[str, str]
) -> None:
    disk = filled_file(tmp_path / "disk", 450 * MIB)
    node.configure(IMAGE_NAME=NAME, IMAGE_TYPE="qcow2")
    script = node.add_script("10-nothing", "#!/bin/sh\n")
    command = ["/usr/bin/setpriv", "--bounding-set=-sys_admin", *node.command("create")]
    environment = {"PATH": "/nonexistent", **create_environment(disk)}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert "; IDENTITY=no copies an image as it is, without root, where there are no overlay" in last_line(done)
    script.unlink()
    node.configure(IMAGE_NAME=NAME, IMAGE_TYPE="qcow2", **switch)
    command = ["/usr/bin/setpriv", "--bounding-set=-sys_admin", *node.command("create")]
    environment = {"PATH": "/nonexistent", **create_environment(disk)}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("contents", ["etc as a file", "a dangling fstab"])
def test_a_tarball_that_is_no_root(node: Node, tmp_path: Path, contents: str) -> None:
    with tarfile.open(node.images / "odd-x86_64.tar.gz", "w:gz") as archive:
        if contents == "etc as a file":
            archive.addfile(tarfile.TarInfo("etc"))
        else:
            for name, kind, link in (("etc", tarfile.DIRTYPE, ""), ("etc/fstab", tarfile.SYMTYPE, "/gone/fstab")):
                member = tarfile.TarInfo(name)
                member.type, member.linkname, member.mode = kind, link, 0o755
                archive.addfile(member)
    node.configure(IMAGE_NAME="odd", IMAGE_TYPE="tarball", ARCH="x86_64")
    done = node.create(filled_file(tmp_path / "disk", 300 * MIB))
    assert done.returncode == 1
    assert "internal error" not in last_line(done)
    expected = "has no directory /etc" if contents == "etc as a file" else "/etc/fstab: does not exist"
    assert expected in last_line(done)


def test_a_swap_disk_too_small_is_refused_first(node: Node, tmp_path: Path) -> None:
    for image_type in ("qcow2", "tarball"):
        node.configure(IMAGE_NAME=NAME, IMAGE_TYPE=image_type)
        disk, swap = filled_file(tmp_path / "sda", 450 * MIB), filled_file(tmp_path / "sdb", 4096)
        done = node.run("create", "-i", "i", "-b", str(disk), "-s", str(swap))
        assert done.returncode == 1
        assert "a swap area needs at least" in last_line(done)
        with disk.open("rb") as file:
            assert file.read(MIB) == b"\xff" * MIB


def test_an_image_that_is_the_disk_itself(node: Node, tmp_path: Path) -> None:
    disk = filled_file(tmp_path / "disk", 3 * MIB)
    (node.images / "self-x86_64.raw").symlink_to(disk)
    node.configure(IMAGE_NAME="self", IMAGE_TYPE="raw", ARCH="x86_64")
    done = node.create(disk)
    assert done.returncode == 1
    assert "is the image itself; nothing was written" in last_line(done)
    assert disk.read_bytes() == b"\xff" * 3 * MIB


def test_a_gpt_image_whose_customisation_fails_does_not_look_complete(node: Node, tmp_path: Path) -> None:
    raw = node.images / "gpt-x86_64.raw"
    with raw.open("wb") as file:
        file.truncate(64 * MIB)
    subprocess.run(["sfdisk", "-q", raw], input="label: gpt\n,,L\n", text=True, check=True)
    node.configure(IMAGE_NAME="gpt", IMAGE_TYPE="raw", ARCH="x86_64")
    node.add_script("any", "#!/bin/sh\n")
    disk = filled_file(tmp_path / "disk", 64 * MIB)
    done = node.create(disk)
    assert done.returncode == 1
    assert "no root file system was found" in last_line(done)
    dump = subprocess.run(["sfdisk", "-d", disk], capture_output=True, text=True, check=False)
    assert "does not contain a recognized partition table" in dump.stderr
