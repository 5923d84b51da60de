# SPDX-License-Identifier: MIT
"""What a guest's superblock may make the kernel do is refused before any mount: another device, a panic, a wait."""

from __future__ import annotations

import hashlib
import os
import struct
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from pydiskimg.errors import FileSystemError
from pydiskimg.fs.ext4.layout import MMP_CLEAN, MMP_MAGIC, SUPERBLOCK, SUPERBLOCK_OFFSET
from pydiskimg.host import mount
from pydiskimg.host import mount_child as mounting
from pydiskimg.host.loop import loop_device
from pydiskimg.host.mount import enter_private_namespace, mounted
from tests.fixtures.block_devices import block_device
from tests.fixtures.ext_files import made_ext, sized
from tests.fixtures.growing import mounted_at
from tests.fixtures.node import ROOT, Node, create_environment, last_line
from tests.fixtures.programs import run
from tests.fixtures.synced import synced

pytestmark = pytest.mark.root
Tool = Callable[[str], str]
MIB = 1 << 20
FILES = {"etc/os-release": "ID=debian\n", "etc/hostname": "inst1\n", "etc/hosts": "127.0.0.1 localhost\n"}


@pytest.fixture(scope="module", autouse=True)
def _private() -> None:
    """Before the leak check looks: in the new namespace every mount has a new number."""
    if os.geteuid() == 0:
        enter_private_namespace()


@pytest.fixture
def node(tmp_path: Path) -> Node:
    return Node.make(tmp_path / "node")


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def filled(device: str, tmp_path: Path) -> None:
    with mounted_at(device, tmp_path / "filling") as root:
        for name, text in FILES.items():
            (root / name).parent.mkdir(exist_ok=True)
            (root / name).write_text(text)


@contextmanager
def other_device(tool: Tool, tmp_path: Path) -> Iterator[tuple[str, Path]]:
    """A block device of the node: what it holds is a journal, so that the kernel would write it."""
    file = sized(tmp_path / "other", 8 * MIB)
    with block_device(file) as device:
        run(tool("mke2fs"), "-q", "-F", "-O", "journal_dev", "-b", "4096", device)
        yield device, file


def rename(node: Node, disk: Path) -> subprocess.CompletedProcess[str]:
    return node.run("rename", **create_environment(disk, OLD_INSTANCE_NAME="inst1", INSTANCE_NAME="inst2"))


@pytest.mark.parametrize("version", ["ext4", "ext3"])
def test_rename_leaves_the_device_that_a_guest_names_as_its_journal(
    node: Node, tool: Tool, tmp_path: Path, version: str
) -> None:
    disk = sized(tmp_path / "disk", 24 * MIB)
    with other_device(tool, tmp_path) as (journal, bytes_of_it):
        with block_device(disk) as device:
            run(tool("mke2fs"), "-q", "-F", "-t", version, "-b", "4096", "-J", f"device={journal}", device)
            filled(device, tmp_path)
        before = digest(bytes_of_it), digest(disk)
        done = rename(node, disk)
        assert (digest(bytes_of_it), digest(disk)) == before, "the kernel wrote to another device of the node"
    assert done.returncode == 1
    assert "its journal is on another device" in last_line(done)
    assert str(disk) in last_line(done)


def test_rename_leaves_the_device_that_mount_options_in_the_superblock_name(
    node: Node, tool: Tool, tmp_path: Path
) -> None:
    """ext4 takes journal_dev= from s_mount_opts, whatever s_journal_dev says."""
    disk = sized(tmp_path / "disk", 24 * MIB)
    with other_device(tool, tmp_path) as (journal, bytes_of_it):
        with block_device(disk) as device:
            run(tool("mke2fs"), "-q", "-F", "-t", "ext4", "-b", "4096", "-J", f"device={journal}", device)
            filled(device, tmp_path)
        number = os.stat(journal).st_rdev
        encoded = os.minor(number) & 0xFF | os.major(number) << 8 | (os.minor(number) & ~0xFF) << 12
        commands = f"ssv journal_dev 0\nssv mount_opts journal_dev={encoded}\n"
        run(tool("debugfs"), "-w", "-f", "-", disk, given=commands)
        before = digest(bytes_of_it), digest(disk)
        done = rename(node, disk)
        assert (digest(bytes_of_it), digest(disk)) == before, "the kernel wrote to another device of the node"
    assert done.returncode == 1


def two_partitions(path: Path, first: Path, second: Path) -> Path:
    with path.open("wb") as file:
        file.truncate(60 * MIB)
    run("sfdisk", "-q", path, given="label: dos\n1M,24M,L\n30M,24M,L\n")
    with path.open("r+b") as file:
        for start, source in ((MIB, first), (30 * MIB, second)):
            file.seek(start)
            file.write(source.read_bytes())
    return path


@pytest.mark.parametrize("place", ["the root", "/boot"])
def test_create_leaves_that_device_too(node: Node, tool: Tool, tmp_path: Path, place: str) -> None:
    """Where a disk image is customised: its root, and what its fstab mounts on /boot."""
    node.configure(IMAGE_NAME="hostile", IMAGE_TYPE="qemu")
    node.add_script("10-write", '#!/bin/sh\necho x >"$TARGET/x"\n')
    good, bad = sized(tmp_path / "good", 24 * MIB), sized(tmp_path / "bad", 24 * MIB)
    with other_device(tool, tmp_path) as (journal, bytes_of_it):
        for path, options in ((good, []), (bad, ["-J", f"device={journal}"])):
            with block_device(path) as device:
                run(tool("mke2fs"), "-q", "-F", "-t", "ext4", "-b", "4096", *options, device)
                filled(device, tmp_path)
                with mounted_at(device, tmp_path / "filling") as root:
                    (root / "boot").mkdir()
                    (root / "etc/fstab").write_text("/dev/vda1 / ext4\n/dev/vda2 /boot ext4\n")
        first, second = (bad, good) if place == "the root" else (good, bad)
        if place == "the root":  # of two, the other one would do
            run(tool("mke2fs"), "-q", "-F", "-t", "ext4", good)
        two_partitions(node.images / f"hostile-{os.uname().machine}.img", first, second)
        before = digest(bytes_of_it)
        done = node.create(sized(tmp_path / "disk", 60 * MIB))
        assert digest(bytes_of_it) == before, "the kernel wrote to another device of the node"
    assert done.returncode == 1
    assert "its journal is on another device" in last_line(done)


def test_rename_passes_by_another_partition_of_that_kind(node: Node, tool: Tool, tmp_path: Path) -> None:
    good, bad = sized(tmp_path / "good", 24 * MIB), sized(tmp_path / "bad", 24 * MIB)
    with other_device(tool, tmp_path) as (journal, bytes_of_it):
        for path, options in ((good, []), (bad, ["-J", f"device={journal}"])):
            with block_device(path) as device:
                run(tool("mke2fs"), "-q", "-F", "-t", "ext4", "-b", "4096", *options, device)
                if path == good:
                    filled(device, tmp_path)
        disk = two_partitions(tmp_path / "disk", bad, good)
        before = digest(bytes_of_it)
        done = rename(node, disk)
        assert digest(bytes_of_it) == before
    assert done.returncode == 0, done.stderr
    assert "inst2" in run(tool("debugfs"), "-R", "cat /etc/hostname", f"{disk}?offset={30 * MIB}")


@contextmanager
def without_the_checks(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    with monkeypatch.context() as patched:
        patched.setattr(mount, "require_mountable", lambda *_, **__: None)
        yield


def in_use(tool: Tool, path: Path, interval: int, contents: Path | None = None, *, sequence: int = 77) -> Path:
    """Make an ext4 whose multiple mount protection says that it is in use, and is updated every interval seconds.

    By its bytes: debugfs and tune2fs wait for it as the kernel does.
    """
    made_ext(tool, path, "-t ext4 -O mmp,^metadata_csum -b 4096", 24 * MIB, contents)
    with path.open("r+b") as file:
        superblock = os.pread(file.fileno(), SUPERBLOCK.size, SUPERBLOCK_OFFSET)
        at = int(SUPERBLOCK.unpack(superblock)["s_mmp_block"]) * 4096
        assert os.pread(file.fileno(), 4, at) == struct.pack("<I", MMP_MAGIC)
        os.pwrite(file.fileno(), struct.pack("<H", interval), SUPERBLOCK_OFFSET + SUPERBLOCK.offsets["s_mmp_interval"])
        os.pwrite(file.fileno(), struct.pack("<I", sequence), at + 4)
        os.pwrite(file.fileno(), struct.pack("<H", interval), at + 112)
    return path


def test_a_guest_cannot_let_rename_wait_for_hours(node: Node, tool: Tool, tmp_path: Path) -> None:
    (tmp_path / "guest/etc").mkdir(parents=True)
    (tmp_path / "guest/etc/os-release").write_text("ID=debian\n")
    disk = in_use(tool, tmp_path / "disk", 65535, tmp_path / "guest")
    before = digest(disk)
    process = node.start("rename", **create_environment(disk, OLD_INSTANCE_NAME="inst1", INSTANCE_NAME="inst2"))
    try:
        _, err = process.communicate(timeout=60)  # the kernel waits 36 hours
    except subprocess.TimeoutExpired:
        process.kill()
        process.communicate()
        raise
    assert process.returncode == 1
    assert "the kernel would wait 131190 seconds" in err.splitlines()[-1]
    assert digest(disk) == before


def test_a_mount_that_takes_too_long_is_stopped(tool: Tool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    disk = in_use(tool, tmp_path / "disk", 65535)
    monkeypatch.setattr(mounting, "MOUNT_SECONDS", 0.5)
    expected = pytest.raises(FileSystemError, match=": the kernel had not finished mounting it after 0 seconds; it was")
    with loop_device(disk) as loop, without_the_checks(monkeypatch), expected, mounted(loop.path, fs_type="ext4"):
        pass


def test_a_mount_that_cannot_be_stopped_holds_nobody(tool: Tool, tmp_path: Path) -> None:
    """The kernel writes to a file of a file system that is frozen: no signal ends that."""
    below = sized(tmp_path / "below", 64 * MIB)
    run(tool("mke2fs"), "-q", "-F", "-t", "ext4", below)
    with block_device(below) as device, mounted_at(device, tmp_path / "frozen") as frozen:
        disk = sized(frozen / "disk", 24 * MIB)
        run(tool("mke2fs"), "-q", "-F", "-t", "ext4", disk)
        with block_device(disk) as loop:
            synced(frozen)
            run(tool("fsfreeze"), "--freeze", frozen)
            try:
                done = subprocess.run(
                    [sys.executable, "-c", MOUNT_IN_A_SECOND, loop],
                    cwd=ROOT, capture_output=True, text=True, check=False, timeout=60,
                )  # fmt: skip
            finally:
                run(tool("fsfreeze"), "--unfreeze", frozen)
            assert "after 1 seconds; it cannot be stopped, and holds the device" in done.stdout, done.stderr
            wait_until(lambda: loop not in Path("/proc/mounts").read_text())


MOUNT_IN_A_SECOND = """
import sys
from pydiskimg.host import mount_child as mounting
from pydiskimg.host import mount
from pydiskimg.host import mount_child as mounting
from pydiskimg.errors import FileSystemError
from pydiskimg.fs.ext4.layout import MMP_CLEAN, MMP_MAGIC, SUPERBLOCK, SUPERBLOCK_OFFSET
from pydiskimg.host.mount import mounted
mounting.MOUNT_SECONDS, mounting._KILL_SECONDS = 1.0, 0.5
try:
    with mounted(sys.argv[1], fs_type="ext4"):
        pass
except FileSystemError as error:
    print(error)
"""


def test_a_mount_that_is_interrupted_leaves_nothing_mounted(tool: Tool, tmp_path: Path) -> None:
    """The handler of a signal raises while the kernel cannot be stopped; then it is done after all."""
    below = sized(tmp_path / "below", 64 * MIB)
    run(tool("mke2fs"), "-q", "-F", "-t", "ext4", below)
    with block_device(below) as device, mounted_at(device, tmp_path / "frozen") as frozen:
        disk = sized(frozen / "disk", 24 * MIB)
        run(tool("mke2fs"), "-q", "-F", "-t", "ext4", disk)
        with block_device(disk) as loop:
            synced(frozen)
            run(tool("fsfreeze"), "--freeze", frozen)
            try:
                process = subprocess.Popen(
                    [sys.executable, "-u", "-c", INTERRUPTED_MOUNT, loop], cwd=ROOT, stdout=subprocess.PIPE, text=True
                )
                assert process.stdout is not None
                assert process.stdout.readline() == "interrupted\n"
                time.sleep(0.2)  # for SIGKILL; too short only makes the test easier
            finally:
                run(tool("fsfreeze"), "--unfreeze", frozen)
            assert process.communicate(timeout=60)[0] == "ended, mounted: []\n"


INTERRUPTED_MOUNT = """
import os, signal, sys
from pydiskimg.host import mount_child as mounting
from pydiskimg.host.mount import mounted

def interrupt(*_):
    print("interrupted")
    raise KeyboardInterrupt

mounting._KILL_SECONDS = 60.0
signal.signal(signal.SIGALRM, interrupt)
signal.setitimer(signal.ITIMER_REAL, 2.0)
try:
    with mounted(sys.argv[1], fs_type="ext4"):
        pass
except KeyboardInterrupt:
    print("ended, mounted:", [line for line in open("/proc/self/mounts") if sys.argv[1] in line])
"""


def wait_until(condition: Callable[[], bool]) -> None:
    for _ in range(600):
        if condition():
            return
        time.sleep(0.05)
    raise AssertionError("still not so after 30 seconds")


def test_multiple_mount_protection_that_was_left_cleanly_is_no_hindrance(tool: Tool, tmp_path: Path) -> None:
    disk = in_use(tool, tmp_path / "disk", 65535, sequence=MMP_CLEAN)
    with loop_device(disk) as loop, mounted(loop.path, fs_type="ext4") as target:
        Path(target, "file").write_text("written")
    run(tool("e2fsck"), "-fn", disk)


@pytest.mark.parametrize("version", ["ext2", "ext3", "ext4"])
@pytest.mark.parametrize("read_only", [False, True])
def test_no_guest_decides_that_the_node_panics(tool: Tool, tmp_path: Path, version: str, read_only: bool) -> None:
    disk = sized(tmp_path / "disk", 24 * MIB)
    run(tool("mke2fs"), "-q", "-F", "-t", version, "-e", "panic", disk)
    run(tool("debugfs"), "-w", "-f", "-", disk, given="ssv mount_opts errors=panic\n")
    with loop_device(disk) as loop, mounted(loop.path, fs_type=version, read_only=read_only):
        lines = Path("/proc/self/mountinfo").read_text().splitlines()
        options = next(line for line in lines if f" {loop.path} " in line).split()[-1].split(",")
    assert "errors=remount-ro" in options  # shown, because the superblock's own default is another


@pytest.mark.parametrize("read_only", [False, True])
def test_an_xfs_whose_parts_are_elsewhere(tool: Tool, tmp_path: Path, read_only: bool) -> None:
    log, data = sized(tmp_path / "log", 64 * MIB), sized(tmp_path / "data", 320 * MIB)
    run(tool("mkfs.xfs"), "-q", "-l", f"logdev={log},size=16384b", data)
    realtime, other = sized(tmp_path / "realtime", 64 * MIB), sized(tmp_path / "other", 320 * MIB)
    run(tool("mkfs.xfs"), "-q", "-m", "reflink=0,rmapbt=0", "-r", f"rtdev={realtime}", other)
    for path, words in ((data, "its log is on another device"), (other, "it has a realtime device")):
        with (
            loop_device(path) as loop,
            pytest.raises(FileSystemError, match=words),
            mounted(loop.path, fs_type="xfs", read_only=read_only),
        ):
            pass
