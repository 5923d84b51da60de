# SPDX-License-Identifier: MIT
"""The rename verb on whole disks, as Ganeti calls it: what is in the system afterwards, and what was refused."""

from __future__ import annotations

import itertools
import os
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from pydiskimg.errors import NoSpaceError
from pydiskimg.fs.ext4.change.tree import open_changed_tree
from pydiskimg.images.open_disk import open_disk
from tests.fixtures.block_devices import block_device, filled_file
from tests.fixtures.debian_system import NAME, DebianSystem
from tests.fixtures.judges import inside, partitions
from tests.fixtures.node import PATH, ROOT, Node, create_environment, last_line

pytestmark = pytest.mark.root
Tool = Callable[[str], str]
MIB = 1 << 20
SIZES = {"ext4": 60, "xfs": 320, "btrfs": 130}
FILES = {
    "etc/os-release": "ID=debian\n",
    "etc/hostname": "inst1\n",
    "etc/hosts": "127.0.0.1 localhost\n127.0.1.1\tinst1.example.org inst1\n192.0.2.10 inst1.example.org\n",
    "etc/network/interfaces": "auto eth0\niface eth0 inet static\n\taddress 192.0.2.10/24\n\tgateway 192.0.2.1\n",
}
RENAMED = {
    "etc/hostname": "inst2\n",
    "etc/hosts": "127.0.0.1 localhost\n127.0.1.1\tinst2.example.net inst2\n192.0.2.20 inst2.example.net\n",
    "etc/network/interfaces": "auto eth0\niface eth0 inet static\n\taddress 192.0.2.20/24\n\tgateway 192.0.2.1\n",
}


def environment(*disks: Path | str, **more: str) -> dict[str, str]:
    given = create_environment(disks[0] if disks else "/none", INSTANCE_NAME="inst2.example.net")
    paths = {f"DISK_{index}_PATH": os.fspath(path) for index, path in enumerate(disks)}
    nic = {"NIC_COUNT": "1", "NIC_0_MAC": "aa:00:00:00:00:01", "NIC_0_IP": "192.0.2.20"}
    count = {"DISK_COUNT": str(len(disks)), "OLD_INSTANCE_NAME": "inst1.example.org"}
    return {**given, **paths, **count, **nic, **more}


@contextmanager
def file_system(path: Path, tmp_path: Path, *, offset: int = 0, size: int | None = None) -> Iterator[Path]:
    """Mount a file system in a file with the system's own programs."""
    place = ["--offset", str(offset), *(["--sizelimit", str(size)] if size else [])]
    command = ["losetup", "--find", "--show", *place, str(path)]
    device = subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    point = tmp_path / "judge"
    point.mkdir(exist_ok=True)
    try:
        subprocess.run(["mount", device, point], check=True)
        try:
            yield point
        finally:
            subprocess.run(["umount", point], check=True)
    finally:
        subprocess.run(["losetup", "--detach", device], check=True)


def write_files(root: Path, files: dict[str, str]) -> None:
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)


def read_files(root: Path) -> dict[str, str]:
    return {name: (root / name).read_text() for name in RENAMED}


def formatted(tool: Tool, path: Path, fs_type: str, size_mib: int | None = None) -> Path:
    with path.open("wb") as file:
        file.truncate((size_mib or SIZES[fs_type]) * MIB)
    subprocess.run([tool(f"mkfs.{fs_type}"), "-q", path], check=True, capture_output=True)
    return path


@pytest.fixture
def node(tmp_path: Path) -> Node:
    return Node.make(tmp_path / "node")


@pytest.fixture
def ext4(tool: Tool, tmp_path: Path) -> Path:
    path = formatted(tool, tmp_path / "ext4", "ext4")
    with file_system(path, tmp_path) as root:
        write_files(root, FILES)
    return path


@pytest.mark.parametrize("fs_type", SIZES)
@pytest.mark.parametrize("table", ["", "dos", "gpt"])
def test_a_system_gets_its_new_name(node: Node, tool: Tool, tmp_path: Path, fs_type: str, table: str) -> None:
    path = formatted(tool, tmp_path / "fs", fs_type)
    with file_system(path, tmp_path) as root:
        write_files(root, FILES)
        (root / "etc/hosts").chmod(0o640)
        os.chown(root / "etc/hosts", 12, 34)
    disk, offset = path, 0
    if table:
        disk, offset = tmp_path / "disk", 20 * MIB
        with disk.open("wb") as file:
            file.truncate((SIZES[fs_type] + 40) * MIB)
        script = f"label: {table}\n1M,10M,L\n20M,{SIZES[fs_type]}M,L\n"
        subprocess.run(["sfdisk", "-q", disk], input=script, text=True, check=True)
        with disk.open("r+b") as file, path.open("rb") as source:
            file.seek(offset)
            shutil.copyfileobj(source, file, MIB)
        path.unlink()
    for _ in range(2):
        done = node.run("rename", **environment(disk))
        assert (done.returncode, done.stdout) == (0, ""), done.stderr
        with file_system(disk, tmp_path, offset=offset, size=SIZES[fs_type] * MIB) as root:
            assert read_files(root) == RENAMED
            status = (root / "etc/hosts").stat()
            assert (status.st_mode & 0o7777, status.st_uid, status.st_gid) == (0o640, 12, 34)
            assert sorted(os.listdir(root / "etc")) == ["hostname", "hosts", "network", "os-release"]
    assert "nothing was changed" in last_line(done)


def test_a_created_system_is_renamed(node: Node, debian: DebianSystem, tmp_path: Path) -> None:
    node.configure(IMAGE_NAME=NAME, IMAGE_TYPE="tarball")
    (node.images / debian.tarball.name).symlink_to(debian.tarball)
    disk = filled_file(tmp_path / "disk", 700 * MIB)
    assert node.create(disk).returncode == 0
    done = node.run("rename", **environment(disk, OLD_INSTANCE_NAME=NAME))
    assert done.returncode == 0, done.stderr
    with inside(str(disk), partitions(str(disk))[-1], tmp_path) as root:
        assert (root / "etc/hostname").read_text() == "inst2\n"
        assert (root / "etc/hosts").read_text() == "127.0.0.1\tlocalhost\n127.0.1.1\tinst2.example.net inst2\n"


def test_a_block_device_and_the_second_disk(node: Node, ext4: Path, tmp_path: Path) -> None:
    data = tmp_path / "data"
    data.write_bytes(b"\xff" * 4 * MIB)
    with block_device(data) as first, block_device(ext4) as second:
        done = node.run("rename", **environment(first, second))
        assert done.returncode == 0, done.stderr
    assert data.read_bytes() == b"\xff" * 4 * MIB
    with file_system(ext4, tmp_path) as root:
        assert read_files(root) == RENAMED


def test_os_api_5(node: Node, ext4: Path, tmp_path: Path) -> None:
    swap = tmp_path / "swap"
    swap.write_bytes(bytes(MIB))
    arguments = ["-o", "inst1.example.org", "-n", "inst2.example.net", "-b", str(ext4), "-s", str(swap)]
    done = node.run("rename", *arguments)
    assert done.returncode == 0, done.stderr
    with file_system(ext4, tmp_path) as root:
        assert (root / "etc/hostname").read_text() == "inst2\n"


@pytest.mark.parametrize(
    ("settings", "disks", "words"),
    [
        ({"NOMOUNT": "yes"}, 1, "NOMOUNT=yes: nothing is changed inside"),
        ({"CDINSTALL": "yes"}, 1, "CDINSTALL=yes: nothing is changed inside"),
        ({}, 0, "the instance has no disks: nothing is changed inside"),
    ],
)
def test_nothing_to_do(
    node: Node, ext4: Path, settings: dict[str, str], disks: int, words: str, tmp_path: Path
) -> None:
    node.configure(**settings)
    before = ext4.read_bytes()
    done = node.run("rename", **environment(*[ext4] * disks))
    assert (done.returncode, done.stdout) == (0, "")
    assert words in last_line(done)
    assert ext4.read_bytes() == before


def test_no_system_is_a_failure_that_says_what_to_do(node: Node, tmp_path: Path) -> None:
    disks = [tmp_path / "one", tmp_path / "two"]
    for disk in disks:
        disk.write_bytes(b"\xff" * 4 * MIB)
    for count in (1, 2):
        done = node.run("rename", **environment(*disks[:count]))
        assert done.returncode == 1
        assert "no root file system was found" in last_line(done)
        assert all(str(disk) in last_line(done) for disk in disks[:count])
        assert "set NOMOUNT=yes" in last_line(done)
    done = node.run("rename", **environment(disks[0], DISK_0_ACCESS="ro"))
    assert (done.returncode, "all are read-only" in last_line(done)) == (1, True)


def test_another_name_becomes_the_new_one_and_is_told(node: Node, ext4: Path, tmp_path: Path) -> None:
    with file_system(ext4, tmp_path) as root:
        (root / "etc/hostname").write_text("other\n")
    done = node.run("rename", **environment(ext4))
    assert done.returncode == 0, done.stderr
    assert "warning: the system called itself other, not inst1 like its instance" in done.stderr
    with file_system(ext4, tmp_path) as root:
        assert (root / "etc/hostname").read_text() == "inst2\n"


def fill_blocks(directory: Path) -> None:
    directory.mkdir(exist_ok=True)
    for size in ("64k", "512"):  # also what is left where 64 KiB have no room
        command = ["dd", "if=/dev/zero", f"of={directory}/{len(os.listdir(directory))}", f"bs={size}"]
        filled = subprocess.run(command, capture_output=True, check=False)
        assert b"No space left" in filled.stderr


def fill_inodes(directory: Path) -> None:
    directory.mkdir(exist_ok=True)
    with suppress(OSError):
        for number in itertools.count():
            (directory / str(number)).touch()


def test_a_file_system_without_a_free_inode_needs_none(node: Node, ext4: Path, tmp_path: Path) -> None:
    with file_system(ext4, tmp_path) as root:
        fill_inodes(root / "fill")
    assert node.run("rename", **environment(ext4)).returncode == 0
    with file_system(ext4, tmp_path) as root:
        assert read_files(root) == RENAMED


def test_a_full_file_system_keeps_the_old_name(node: Node, ext4: Path, tmp_path: Path) -> None:
    with file_system(ext4, tmp_path) as root:
        fill_blocks(root / "fill")
    # Linux keeps some blocks back from everyone; they are free all the same.
    with open_disk(ext4, writable=True) as disk, open_changed_tree(disk) as tree:
        for size in (1 << 16, 1):
            with suppress(NoSpaceError):
                for number in itertools.count():
                    tree.write(f"/fill/{size}-{number}", bytes(size))
    with file_system(ext4, tmp_path) as root:
        before = read_files(root)
    done = node.run("rename", **environment(ext4))
    assert done.returncode == 1
    assert "; the guest's file system has no free block or no free inode: make room in it" in last_line(done)
    with file_system(ext4, tmp_path) as root:
        assert read_files(root) == before
        shutil.rmtree(root / "fill")
    assert node.run("rename", **environment(ext4)).returncode == 0


@pytest.mark.parametrize("fs_type", ["xfs", "btrfs"])
def test_while_the_original_is_mounted(node: Node, tool: Tool, tmp_path: Path, fs_type: str) -> None:
    """A copy of an instance beside it: one UUID. The original stays as it is, whatever becomes of the copy."""
    original = formatted(tool, tmp_path / "original", fs_type)
    with file_system(original, tmp_path) as root:
        write_files(root, FILES)
    copied = shutil.copyfile(original, tmp_path / "copy")
    with file_system(original, tmp_path) as root:
        done = node.run("rename", **environment(copied))
        assert {name: (root / name).read_text() for name in FILES} == FILES
    if done.returncode:  # btrfs before Linux 6.7
        assert fs_type == "btrfs"
        assert "one with the same UUID is mounted from another device" in last_line(done)
        return
    with file_system(copied, tmp_path) as root:
        assert read_files(root) == RENAMED
    with file_system(original, tmp_path) as root:
        assert {name: (root / name).read_text() for name in FILES} == FILES


@pytest.mark.parametrize(("subvolume", "default"), [("@", False), ("root", False), ("@rootfs", False), ("x", True)])
def test_btrfs_with_the_root_in_a_subvolume(
    node: Node, tool: Tool, tmp_path: Path, subvolume: str, default: bool
) -> None:
    path = formatted(tool, tmp_path / "disk", "btrfs")
    with file_system(path, tmp_path) as root:
        subprocess.run([tool("btrfs"), "subvolume", "create", root / subvolume], check=True, capture_output=True)
        write_files(root / subvolume, FILES)
        (root / "home").mkdir()
        if default:
            subprocess.run([tool("btrfs"), "subvolume", "set-default", root / subvolume], check=True)
    done = node.run("rename", **environment(path))
    assert done.returncode == 0, done.stderr
    with file_system(path, tmp_path) as root:
        assert read_files(root if default else root / subvolume) == RENAMED


def test_a_subvolume_that_is_a_symlink_leads_nowhere(node: Node, tool: Tool, tmp_path: Path) -> None:
    path = formatted(tool, tmp_path / "disk", "btrfs")
    write_files(tmp_path / "host", FILES)
    with file_system(path, tmp_path) as root:
        (root / "@").symlink_to(tmp_path / "host")
        (root / "root").mkdir()
        write_files(root / "root", FILES)  # a directory, no subvolume
    done = node.run("rename", **environment(path))
    assert done.returncode == 1
    assert "no /etc of a Linux system" in last_line(done)
    assert (tmp_path / "host/etc/hostname").read_text() == "inst1\n"


@pytest.mark.parametrize("fs_type", SIZES)
def test_what_was_only_in_the_journal_counts(node: Node, tool: Tool, tmp_path: Path, fs_type: str) -> None:
    """The disk as it is when the node lost power: the name in the journal is the true one."""
    path = formatted(tool, tmp_path / "disk", fs_type)
    with file_system(path, tmp_path) as root:
        write_files(root, {**FILES, "etc/hostname": "before\n"})
    crashed = tmp_path / "crashed"
    with file_system(path, tmp_path) as root:
        (root / "etc/hostname").write_text("inst1\n")
        subprocess.run(["sync", "-d", root / "etc/hostname"], check=True)
        fd = os.open(root / "etc/hostname", os.O_RDONLY)
        os.fsync(fd)
        os.close(fd)
        shutil.copyfile(path, crashed)
    done = node.run("rename", **environment(crashed))
    assert done.returncode == 0, done.stderr
    with file_system(crashed, tmp_path) as root:
        assert read_files(root) == RENAMED


def test_a_disk_in_use_is_refused(node: Node, ext4: Path, tmp_path: Path) -> None:
    with file_system(ext4, tmp_path) as root:
        done = node.run("rename", **environment(ext4))
        assert (root / "etc/hostname").read_text() == "inst1\n"
    assert done.returncode == 1
    assert "is in use" in last_line(done)


def test_without_the_right_to_mount(node: Node, tool: Tool, ext4: Path, tmp_path: Path) -> None:
    """An ext4 needs none, others do."""
    command = ["/usr/bin/setpriv", "--bounding-set=-sys_admin", *node.command("rename")]
    given = {"PATH": PATH, **environment(ext4)}
    subprocess.run(command, cwd=ROOT, env=given, capture_output=True, check=True)
    with file_system(ext4, tmp_path) as root:
        assert read_files(root) == RENAMED
    given |= environment(formatted(tool, tmp_path / "xfs", "xfs"))
    done = subprocess.run(command, cwd=ROOT, env=given, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert last_line(done).endswith(
        "private mount namespace: Operation not permitted; mounting needs root (CAP_SYS_ADMIN)"
    )


def test_kill_9_at_any_instant(node: Node, ext4: Path, tmp_path: Path) -> None:
    """Each time the file system is one that works, and in the end the next run does the rest."""
    old, new = "inst1.example.org", "inst2.example.net"
    for round_number in range(12):
        names = {"OLD_INSTANCE_NAME": old, "INSTANCE_NAME": new}
        process = node.start("rename", **environment(ext4, **names))
        time.sleep(0.1 + 0.05 * round_number)
        process.kill()
        process.communicate()
        done = node.run("rename", **environment(ext4, **names))
        assert done.returncode == 0, done.stderr
        with file_system(ext4, tmp_path) as root:
            assert (root / "etc/hostname").read_text() == new.partition(".")[0] + "\n"
            assert old not in (root / "etc/hosts").read_text()
        old, new = new, old
    subprocess.run(["e2fsck", "-fn", ext4], check=True, capture_output=True)


def test_two_at_once_exclude_each_other(node: Node, ext4: Path, tmp_path: Path) -> None:
    running = [node.start("rename", **environment(ext4)) for _ in range(2)]
    statuses = sorted((process.communicate(timeout=60)[1].splitlines()[-1], process.returncode) for process in running)
    assert {status for _, status in statuses} in ({0}, {0, 1})
    assert all(status == 0 or "is in use" in line for line, status in statuses)
    with file_system(ext4, tmp_path) as root:
        assert read_files(root) == RENAMED


@pytest.mark.parametrize("locale", ["C", "C.UTF-8"])
def test_names_that_are_not_utf8(node: Node, ext4: Path, tmp_path: Path, locale: str) -> None:
    with file_system(ext4, tmp_path) as root:
        os.makedirs(root / "etc/network/interfaces.d")
        odd = os.fsencode(root) + b"/etc/network/interfaces.d/caf\xe9\x1b[31m"
        Path(os.fsdecode(odd)).write_bytes(b"iface eth1 inet dhcp\n hostname inst1\n# \xff\n")
    done = node.run("rename", **environment(ext4, LC_ALL=locale))
    assert done.returncode == 0, done.stderr
    assert "\x1b" not in done.stderr
    with file_system(ext4, tmp_path) as root:
        assert Path(os.fsdecode(odd)).read_bytes() == b"iface eth1 inet dhcp\n hostname inst2\n# \xff\n"
