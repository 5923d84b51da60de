# SPDX-License-Identifier: MIT
"""Backups as ganeti-instance-image makes them, with Debian's dump, qemu-img and tar, are imported."""

from __future__ import annotations

import os
import random
import subprocess
import time
from pathlib import Path

import pytest

from tests.conftest import left_attached, left_mounted, loop_devices, mounts
from tests.fixtures.block_devices import block_device, filled_file, has_no_beginning
from tests.fixtures.debian_system import NAME
from tests.fixtures.grub_files import write_grub
from tests.fixtures.judges import blkid, inside, packed, partitions
from tests.fixtures.node import ROOT, Node, create_environment, last_line, stream_environment

pytestmark = pytest.mark.root
MIB = 1 << 20
SIZE = 256 * MIB
RULES = "etc/udev/rules.d/z25_persistent-net.rules"
SCRIPT = '#!/bin/sh\n[ -d "$TARGET/boot" ] && echo "$IMPORT_SCRIPT $BOOT_DEV" >"$TARGET/boot/grub-was-here"\n'


@pytest.fixture
def node(tmp_path: Path) -> Node:
    return Node.make(tmp_path / "a node", BOOT_SIZE="50")


def root_tree(path: Path) -> Path:
    rng = random.Random(3)
    for directory in ("etc/udev/rules.d", "boot", "sbin", "dev", "var/lib"):
        (path / directory).mkdir(parents=True)
    (path / "etc/fstab").write_text("/dev/vda3 / ext3 defaults 0 1\nproc /proc proc defaults 0 0\n")
    (path / "etc/hostname").write_text("old\n")
    (path / RULES).write_text('SUBSYSTEM=="net", ATTR{address}=="aa:00:00:00:00:01", NAME="eth0"\n')
    os.mknod(path / "dev/console", 0o20600, os.makedev(5, 1))
    (path / "sbin/init").symlink_to("/lib/systemd/systemd")
    for number in range(30):
        file = path / f"var/lib/file{number}"
        file.write_bytes(rng.randbytes(rng.randrange(1, 200_000)))
        os.chown(file, number, 1000 + number)
    os.link(path / "var/lib/file1", path / "var/lib/hard")
    os.setxattr(path / "var/lib/file2", "user.note", b"kept")
    return path


def packed_root(root: Path, *leave_out: str) -> str:
    """What tar sees of a tree, without what an import changes and without times, of which a dump has seconds only."""
    exclude = [f"--exclude=./{name}" for name in ("boot", "lost+found", "etc/fstab", RULES, *leave_out)]
    return packed(root, "--xattrs-include=user.*", "--numeric-owner", "--mtime=@0", *exclude)


def dump(tree: Path, image: Path, out: Path, fs_type: str) -> None:
    with image.open("wb") as file:
        file.truncate(60 * MIB)
    subprocess.run(["mke2fs", "-q", "-F", "-t", fs_type, "-d", tree, image], check=True)
    with block_device(image) as device:
        made = subprocess.run(["dump", "-0", "-q", "-z9", "-f", out, device], capture_output=True, check=False)
        assert made.returncode == 0, made.stderr


@pytest.fixture
def dumped(tmp_path: Path, request: pytest.FixtureRequest) -> tuple[Path, Path]:
    """A root's tree, and the directory with root.dump and boot.dump."""
    fs_type = getattr(request, "param", "ext3")
    backup = tmp_path / "dumps"
    backup.mkdir()
    tree, boot = root_tree(tmp_path / "root"), tmp_path / "boot"
    boot.mkdir()
    (boot / "vmlinuz").write_bytes(os.urandom(100_000))
    dump(tree, tmp_path / "root.fs", backup / "root.dump", fs_type)
    dump(boot, tmp_path / "boot.fs", backup / "boot.dump", fs_type)
    return tree, backup


def tar(directory: Path, out: Path, *names: str) -> Path:
    subprocess.run(["tar", "-cf", out, *(names or ["."])], cwd=directory, check=True)
    return out


@pytest.mark.parametrize("dumped", ["ext2", "ext3", "ext4"], indirect=True)
@pytest.mark.parametrize("order", [(), ("./root.dump", "./boot.dump"), ("boot.dump", "root.dump")])
def test_dumps_become_a_disk(node: Node, tmp_path: Path, dumped: tuple[Path, Path], order: tuple[str, ...]) -> None:
    tree, directory = dumped
    node.add_script("grub", SCRIPT)
    node.add_script("other", "#!/bin/sh\nexit 1\n")
    target = filled_file(tmp_path / "target", SIZE)
    done = node.restore(target, tar(directory, tmp_path / "backup.tar", *order))
    assert done.returncode == 0, done.stderr
    boot, swap, root = partitions(str(target))
    assert blkid(str(target), swap, "TYPE") == "swap"
    with inside(str(target), boot, tmp_path) as point:
        assert (point / "vmlinuz").read_bytes() == (tmp_path / "boot/vmlinuz").read_bytes()
        assert (point / "grub-was-here").read_text().startswith("1 /dev/loop")
    with inside(str(target), root, tmp_path) as point:
        assert packed_root(point) == packed_root(tree)
        assert (point / RULES).read_text() == ""
        lines = [line.split()[:2] for line in (point / "etc/fstab").read_text().splitlines() if line[0] != "#"]
        assert lines[0] == [f"UUID={blkid(str(target), root, 'UUID')}", "/"]
        assert [f"UUID={blkid(str(target), boot, 'UUID')}", "/boot"] in lines
        assert ["proc", "/proc"] in lines


def test_a_dump_of_a_root_as_it_is(node: Node, tmp_path: Path, dumped: tuple[Path, Path]) -> None:
    tree, directory = dumped
    target = filled_file(tmp_path / "target", SIZE)
    done = node.restore(target, directory / "root.dump")
    assert done.returncode == 0, done.stderr
    assert b"there is no dump of /boot, which stays in the root file system; its partition is empty" in done.stderr
    assert [part.get("bootable", False) for part in partitions(str(target))] == [False, False, True]
    with inside(str(target), partitions(str(target))[-1], tmp_path) as point:
        assert packed_root(point) == packed_root(tree)
        assert "/boot" not in (point / "etc/fstab").read_text()


@pytest.mark.parametrize(("identity", "name"), [("keep", "old"), ("new", "inst1")])
def test_dumps_that_become_another_machine(
    node: Node, tmp_path: Path, dumped: tuple[Path, Path], identity: str, name: str
) -> None:
    node.configure(BOOT_SIZE="50", IMPORT_IDENTITY=identity)
    target = filled_file(tmp_path / "target", SIZE)
    done = node.restore(target, tar(dumped[1], tmp_path / "backup.tar"))
    assert done.returncode == 0, done.stderr
    assert f"{target} is restored (" in last_line(done)
    with inside(str(target), partitions(str(target))[-1], tmp_path) as point:
        assert (point / "etc/hostname").read_text() == f"{name}\n"


@pytest.mark.parametrize("known", [True, False])
def test_dumps_get_the_boot_loader_of_their_own_grub(node: Node, tmp_path: Path, *, known: bool) -> None:
    """One that is not known is told: everything is restored by then."""
    directory, boot = tmp_path / "dumps", tmp_path / "boot"
    directory.mkdir()
    boot.mkdir()
    tree = root_tree(tmp_path / "root")
    write_grub(tree, **({} if known else {"kernel_img": b"another"}))
    dump(tree, tmp_path / "root.fs", directory / "root.dump", "ext4")
    dump(boot, tmp_path / "boot.fs", directory / "boot.dump", "ext4")
    target = filled_file(tmp_path / "target", SIZE)
    done = node.restore(target, tar(directory, tmp_path / "backup.tar"))
    assert done.returncode == 0, done.stderr
    with target.open("rb") as file:
        assert (file.read(2) == b"\xeb\x63") == known
    warned = b"the instance cannot boot by itself: /usr/lib/grub/i386-pc/kernel.img: is too short for an ELF file"
    assert (warned in done.stderr) != known
    with inside(str(target), partitions(str(target))[0], tmp_path) as point:
        assert (point / "grub/i386-pc/normal.mod").exists() == known


def test_an_image_of_dumps_is_installed(node: Node, tmp_path: Path, dumped: tuple[Path, Path]) -> None:
    tree, directory = dumped
    node.configure(IMAGE_NAME=NAME, IMAGE_TYPE="dump", ARCH="x86_64", BOOT_SIZE="50", IDENTITY="no")
    for which in ("root", "boot"):
        (node.images / f"{NAME}-x86_64-{which}.dump").symlink_to(directory / f"{which}.dump")
    target = filled_file(tmp_path / "target", SIZE)
    done = node.run("create", **create_environment(target))
    assert done.returncode == 0, done.stderr
    with inside(str(target), partitions(str(target))[-1], tmp_path) as point:
        assert packed_root(point) == packed_root(tree)


def test_a_boot_that_is_too_small_names_the_setting(node: Node, tmp_path: Path) -> None:
    node.configure(BOOT_SIZE="8")
    directory, boot = tmp_path / "dumps", tmp_path / "boot"
    directory.mkdir()
    boot.mkdir()
    (boot / "big").write_bytes(os.urandom(9 * MIB))
    dump(root_tree(tmp_path / "root"), tmp_path / "root.fs", directory / "root.dump", "ext4")
    dump(boot, tmp_path / "boot.fs", directory / "boot.dump", "ext4")
    done = node.restore(filled_file(tmp_path / "target", SIZE), tar(directory, tmp_path / "backup.tar"))
    assert done.returncode == 1
    where = f"standard input: ./boot.dump: /big: cannot be restored to {tmp_path / 'target'} partition 1: none of "
    assert where in last_line(done)
    assert last_line(done).endswith(" blocks is free; /boot has 8 MiB; set BOOT_SIZE higher")


@pytest.fixture
def disk_image(tmp_path: Path) -> tuple[Path, Path]:
    """A raw disk, and the tar of disk.img that NOMOUNT=yes makes of it."""
    disk, directory = filled_file(tmp_path / "disk", 100 * MIB, fill=b"\0"), tmp_path / "images"
    directory.mkdir()
    subprocess.run(["sfdisk", "-q", disk], input="1MiB,,7\n", text=True, check=True)
    with disk.open("r+b") as file:
        file.seek(10 * MIB)
        file.write(os.urandom(20 * MIB))
    subprocess.run(["qemu-img", "convert", disk, "-O", "qcow2", directory / "disk.img"], check=True)
    return disk, tar(directory, tmp_path / "disk.tar")


def test_a_disk_image_becomes_a_disk(node: Node, tmp_path: Path, disk_image: tuple[Path, Path]) -> None:
    disk, backup = disk_image
    target = filled_file(tmp_path / "target", 100 * MIB)
    done = node.restore(target, backup)
    assert done.returncode == 0, done.stderr
    assert target.read_bytes() == disk.read_bytes()


def test_a_disk_image_that_does_not_fit(node: Node, tmp_path: Path, disk_image: tuple[Path, Path]) -> None:
    target = filled_file(tmp_path / "target", 99 * MIB)
    done = node.restore(target, disk_image[1])
    assert done.returncode == 1
    assert "the image standard input: ./disk.img needs 104857600 bytes" in last_line(done)
    assert "nothing was written" in last_line(done)
    assert target.read_bytes() == b"\xff" * (99 * MIB)


@pytest.mark.parametrize("kind", ["dumps", "disk"])
def test_an_archive_that_ends_early(
    node: Node, tmp_path: Path, dumped: tuple[Path, Path], disk_image: tuple[Path, Path], kind: str
) -> None:
    backup = disk_image[1] if kind == "disk" else tar(dumped[1], tmp_path / "backup.tar", "boot.dump", "root.dump")
    data, cut = backup.read_bytes(), tmp_path / "cut"
    rng = random.Random(kind)
    stored = len(data.rstrip(b"\0"))
    for length in (600, stored - 1, *(rng.randrange(1024, stored) for _ in range(3))):
        cut.write_bytes(data[:length])
        target = filled_file(tmp_path / "target", SIZE)
        done = node.restore(target, cut)
        assert done.returncode == 1, length
        last_line(done)
        assert has_no_beginning(target), "it looks whole"


def test_strange_archives(node: Node, tmp_path: Path, dumped: tuple[Path, Path]) -> None:
    directory = tmp_path / "strange"
    directory.mkdir()
    (directory / "what.txt").write_text("?")
    (directory / "disk.img").write_bytes(b"QFI\xfb" + bytes(2000))
    (directory / "link").symlink_to("/etc/passwd")
    for names, sentence in (
        (["what.txt"], "is not a part of a backup"),
        (["link"], "neither a file"),
        (["disk.img"], "standard input: disk.img: "),
    ):
        target = filled_file(tmp_path / "target", 20 * MIB)
        done = node.restore(target, tar(directory, tmp_path / "s.tar", *names))
        assert done.returncode == 1
        assert sentence in last_line(done)
        assert target.read_bytes() == b"\xff" * (20 * MIB)
    target = filled_file(tmp_path / "target", SIZE)
    done = node.restore(target, tar(dumped[1], tmp_path / "s.tar", "boot.dump"))
    assert done.returncode == 1
    assert "has no dump of the root" in last_line(done)


def test_killed_while_dumps_are_restored(node: Node, tmp_path: Path, dumped: tuple[Path, Path]) -> None:
    """Nothing is left, and a table is there only when all of the files are."""
    backup = tar(dumped[1], tmp_path / "backup.tar", "root.dump", "boot.dump")
    target = filled_file(tmp_path / "target", SIZE)
    before, start = (loop_devices(), mounts()), time.monotonic()
    assert node.restore(target, backup).returncode == 0
    duration = time.monotonic() - start
    rng = random.Random(1)
    for _ in range(8):
        with target.open("r+b") as file:
            file.write(b"\xff" * MIB)
        with (
            backup.open("rb") as source,
            subprocess.Popen(
                node.command("import"),
                cwd=ROOT,
                env=stream_environment("import", target, PATH="/bin"),
                stdin=source,
                stderr=subprocess.DEVNULL,
            ) as process,
        ):
            time.sleep(rng.uniform(0.2, duration))
            process.kill()
        assert not left_attached(before[0], tmp_path), "loop devices left attached"
        assert not left_mounted(before[1], tmp_path), "mounts left behind"
        table = subprocess.run(["sfdisk", "-d", target], capture_output=True, text=True, check=False).stdout
        if "type=83" in table:
            with inside(str(target), partitions(str(target))[-1], tmp_path) as point:
                assert packed_root(point) == packed_root(dumped[0]), "an interrupted import looks complete"
    assert node.restore(target, backup).returncode == 0
