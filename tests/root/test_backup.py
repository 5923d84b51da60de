# SPDX-License-Identifier: MIT
"""export and import of a disk: what comes back is what was there, or nothing that looks like it."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import left_attached, left_mounted, loop_devices, mounts
from tests.fixtures.block_devices import beginning, block_device, filled_file, has_no_beginning
from tests.fixtures.judges import packed
from tests.fixtures.node import ROOT, Node, last_line, stream_environment

pytestmark = pytest.mark.root
MIB = 1 << 20
SIZE = 320 * MIB  # mkfs.xfs wants 300
MAKERS = {
    "ext4": ["mkfs.ext4", "-q", "-F"],
    "ext3-1k": ["mkfs.ext3", "-q", "-F", "-b", "1024"],
    "xfs": ["mkfs.xfs", "-q", "-f"],
    "btrfs": ["mkfs.btrfs", "-q", "-f"],
}
COMPRESSIONS = ["none", "zlib", "zstd"]


@pytest.fixture
def node(tmp_path: Path) -> Node:
    return Node.make(tmp_path / "a node", GROW="no")


def fill(root: Path) -> None:
    """Files of many kinds, some of which were deleted again: their blocks are free and hold old bytes."""
    rng = random.Random(7)
    (root / "etc").mkdir()
    (root / "etc/hostname").write_text("guest\n")
    for number in range(40):
        (root / f"deleted{number}").write_bytes(rng.randbytes(MIB))
    subprocess.run(["sync", "--file-system", root], check=True)
    for number in range(40):
        (root / f"deleted{number}").unlink()
    for number in range(30):
        (root / f"f{number}").write_bytes(rng.randbytes(rng.randrange(1, 2 * MIB)))
    with (root / "sparse").open("wb") as file:
        file.seek(130 * MIB)  # beyond a group of blocks
        file.write(b"end")
    (root / "link").symlink_to("f1")
    os.link(root / "f2", root / "hard")
    os.setxattr(root / "f3", "user.note", b"kept")
    (root / "bytes \udcff").touch()


@contextlib.contextmanager
def mounted(disk: Path, tmp_path: Path, offset: int, *options: str) -> Iterator[Path]:
    point = tmp_path / "point"
    point.mkdir(exist_ok=True)
    more = ",".join([f"offset={offset}", f"sizelimit={SIZE - 2 * MIB}", *options])
    subprocess.run(["mount", "-o", more, disk, point], check=True)
    try:
        yield point
    finally:
        subprocess.run(["umount", point], check=True)


def contents(disk: Path, tmp_path: Path, offset: int, kind: str) -> str:
    """What tar packs of the file system."""
    options = ["ro", "nouuid"] if kind == "xfs" else ["ro"]
    with mounted(disk, tmp_path, offset, *options) as point:
        return packed(point)


def guest_disk(tmp_path: Path, kind: str) -> Path:
    """A disk with one partition, of a file system in which there was some life."""
    disk = tmp_path / "guest disk"
    with disk.open("wb") as file:
        file.truncate(SIZE)
    subprocess.run(["sfdisk", "-q", disk], input="1MiB,318MiB,83\n", text=True, check=True)
    place = ["--offset", str(MIB), "--sizelimit", str(SIZE - 2 * MIB)]
    loop = subprocess.run(
        ["losetup", "--find", "--show", *place, disk], capture_output=True, text=True, check=True
    ).stdout.strip()
    try:
        subprocess.run([*MAKERS[kind], loop], check=True, capture_output=True)
    finally:
        subprocess.run(["losetup", "--detach", loop], check=True)
    with mounted(disk, tmp_path, MIB) as point:
        fill(point)
    return disk


@pytest.mark.parametrize(
    ("kind", "compression"),
    [("ext4", "none"), ("ext4", "zlib"), ("ext4", "zstd"), ("ext3-1k", "zlib"), ("xfs", "zlib"), ("btrfs", "zstd")],
)
def test_a_file_system_comes_back_equal(node: Node, tmp_path: Path, kind: str, compression: str) -> None:
    node.configure(EXPORT_COMPRESSION=compression, GROW="no")
    disk, backup = guest_disk(tmp_path, kind), tmp_path / "a backup"
    before = contents(disk, tmp_path, MIB, kind)
    exported = node.export(disk, backup)
    assert exported.returncode == 0, exported.stderr
    subprocess.run(["qemu-img", "check", "-q", "-f", "qcow2", backup], check=True)
    target = filled_file(tmp_path / "target", SIZE + 20 * MIB)
    restored = node.restore(target, backup)
    assert restored.returncode == 0, restored.stderr
    assert contents(target, tmp_path, MIB, kind) == before
    if kind.startswith("ext"):
        place = f"{target}?offset={MIB}"
        subprocess.run(["e2fsck", "-fn", place], check=True, capture_output=True)
        used = int(subprocess.run(["du", "-sk", backup], capture_output=True, text=True, check=True).stdout.split()[0])
        deleted = 40 << 10
        assert used < (SIZE >> 10) - deleted, "what was deleted is in the backup"


@pytest.mark.parametrize("compression", COMPRESSIONS)
@pytest.mark.parametrize("start", [b"", b"QFI\xfb\0\0\0\3", b"\x1f\x8b\x08"], ids=["zeros", "qcow2", "gzip"])
def test_a_disk_that_holds_no_file_system(node: Node, tmp_path: Path, compression: str, start: bytes) -> None:
    """Byte for byte, and raw whatever its first bytes say."""
    node.configure(EXPORT_COMPRESSION=compression, GROW="no")
    rng = random.Random(5)
    data = start.ljust(512, b"\0") + rng.randbytes(5 * MIB) + bytes(30 * MIB) + rng.randbytes(MIB + 512)
    disk, backup = tmp_path / "raw", tmp_path / "backup"
    disk.write_bytes(data)
    assert node.export(disk, backup).returncode == 0
    compared = ["qemu-img", "compare", "-f", "raw", "-F", "qcow2", str(disk), str(backup)]
    subprocess.run(compared, check=True, capture_output=True)
    target = filled_file(tmp_path / "target", len(data))
    assert node.restore(target, backup).returncode == 0
    assert target.read_bytes() == data


def test_block_devices_and_the_estimate(node: Node, tmp_path: Path) -> None:
    disk, backup, target = guest_disk(tmp_path, "ext4"), tmp_path / "backup", filled_file(tmp_path / "target", SIZE)
    before = contents(disk, tmp_path, MIB, "ext4")
    read_fd, write_fd = os.pipe()
    with block_device(disk) as device, backup.open("wb") as out:
        done = subprocess.run(
            node.command("export"),
            cwd=ROOT,
            env=stream_environment("export", device, EXP_SIZE_FD=str(write_fd), PATH="/bin"),
            stdout=out,
            stderr=subprocess.PIPE,
            pass_fds=[write_fd],
            check=False,
        )
    os.close(write_fd)
    with os.fdopen(read_fd) as told:
        sizes = [int(line) for line in told]
    assert done.returncode == 0, done.stderr
    assert sizes[-1] == backup.stat().st_size
    with block_device(target) as device:
        assert node.restore(device, backup).returncode == 0
    assert contents(target, tmp_path, MIB, "ext4") == before


def test_a_disk_that_is_too_small_is_not_touched(node: Node, tmp_path: Path) -> None:
    disk, backup = guest_disk(tmp_path, "ext4"), tmp_path / "backup"
    assert node.export(disk, backup).returncode == 0
    # Raw bytes do not tell their size: the last partition ends 1 MiB before the disk does.
    for source, size in ((backup, SIZE - 512), (disk, SIZE - MIB - 512)):
        target = filled_file(tmp_path / "target", size)
        done = node.restore(target, source)
        assert done.returncode == 1
        assert last_line(done).endswith("nothing was written"), done.stderr
        assert target.read_bytes().count(0xFF) == size


@pytest.mark.parametrize("compression", COMPRESSIONS)
def test_a_backup_that_ends_early_is_no_success(node: Node, tmp_path: Path, compression: str) -> None:
    node.configure(EXPORT_COMPRESSION=compression, GROW="no")
    disk, backup = guest_disk(tmp_path, "ext4"), tmp_path / "backup"
    assert node.export(disk, backup).returncode == 0
    data, cut = backup.read_bytes(), tmp_path / "cut"
    rng = random.Random(compression)
    for length in (0, 100, 1 << 16, len(data) - 1, *(rng.randrange(len(data)) for _ in range(4))):
        cut.write_bytes(data[:length])
        target = filled_file(tmp_path / "target", SIZE)
        done = node.restore(target, cut)
        assert done.returncode == 1, length
        last_line(done)
        assert has_no_beginning(target), "it looks whole"


def test_raw_bytes_that_end_early_are_no_success(node: Node, tmp_path: Path) -> None:
    disk, cut = guest_disk(tmp_path, "xfs"), tmp_path / "cut"
    cut.write_bytes(beginning(disk, SIZE - 2 * MIB))
    target = filled_file(tmp_path / "target", SIZE)
    done = node.restore(target, cut)
    assert done.returncode == 1
    assert "ended early" in last_line(done)
    assert beginning(target, MIB) == bytes(MIB)


@pytest.mark.parametrize(
    ("data", "sentence"),
    [
        (b"", "is empty"),
        (b"what is this?" * 100, "set IMPORT_FORMAT=raw"),
        (b"\x1f\x8b\x08" + bytes(600), "compressed with gzip"),
        (b"QFI\xfb" + bytes(600), "version"),
    ],
)
def test_what_is_no_backup_is_refused(node: Node, tmp_path: Path, data: bytes, sentence: str) -> None:
    source, target = tmp_path / "source", filled_file(tmp_path / "target", 10 * MIB)
    source.write_bytes(data)
    done = node.restore(target, source)
    assert done.returncode == 1
    assert sentence in last_line(done)
    assert target.read_bytes() == b"\xff" * (10 * MIB)


def test_a_reader_that_goes_away_fails_the_export(node: Node, tmp_path: Path) -> None:
    disk = guest_disk(tmp_path, "ext4")
    with subprocess.Popen(
        node.command("export"),
        cwd=ROOT,
        env=stream_environment("export", disk, PATH="/bin"),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as process:
        assert process.stdout is not None
        process.stdout.read(1000)
        process.stdout.close()
        assert process.stderr is not None
        said = process.stderr.read().decode()
    assert process.returncode == 1
    assert "the reader has closed its end" in said.splitlines()[-1], said


def test_a_disk_that_cannot_be_read_fails_the_export(node: Node, tmp_path: Path) -> None:
    """The disk is a file whose indirect block leads beyond its file system: the kernel cannot read on."""
    file_system, disk = tmp_path / "fs", tmp_path / "data"
    file_system.write_bytes(b"")
    os.truncate(file_system, 64 * MIB)
    disk.write_bytes(os.urandom(4 * MIB))
    tree = tmp_path / "tree"
    tree.mkdir()
    disk.rename(tree / "disk")
    subprocess.run(["mke2fs", "-q", "-F", "-t", "ext2", "-d", tree, file_system], check=True)
    damage = ["debugfs", "-w", "-R", "set_inode_field /disk block[IND] 0x7fffffff", str(file_system)]
    subprocess.run(damage, check=True, capture_output=True)
    point = tmp_path / "mounted"
    point.mkdir()
    subprocess.run(["mount", "-o", "loop,ro", file_system, point], check=True)
    try:
        done = node.export(point / "disk", tmp_path / "backup")
    finally:
        subprocess.run(["umount", point], check=True)
    assert done.returncode == 1
    assert "cannot read" in last_line(done)


def test_a_closed_descriptor_is_no_place_for_a_backup(node: Node, tmp_path: Path) -> None:
    disk = filled_file(tmp_path / "disk", MIB)
    for verb, redirection in (("export", ">&-"), ("import", "<&-")):
        done = subprocess.run(
            ["sh", "-c", f'exec "$@" {redirection}', "sh", *node.command(verb)],
            cwd=ROOT,
            env=stream_environment(verb, disk, PATH="/bin"),
            capture_output=True,
            check=False,
        )
        assert done.returncode == 1
        assert "is closed" in last_line(done)


@pytest.mark.parametrize("verb", ["export", "import"])
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_ended_at_random_instants(node: Node, tmp_path: Path, verb: str, number: signal.Signals) -> None:
    disk, backup = guest_disk(tmp_path, "ext4"), tmp_path / "backup"
    before = contents(disk, tmp_path, MIB, "ext4")
    assert node.export(disk, backup).returncode == 0
    target = filled_file(tmp_path / "target", SIZE)
    left = loop_devices(), mounts(), set(os.listdir("/var/tmp"))
    rng = random.Random(number)
    for _ in range(6):
        if verb == "import":
            target = filled_file(tmp_path / "target", SIZE)
        with (
            backup.open("rb") as source,
            subprocess.Popen(
                node.command(verb),
                cwd=ROOT,
                env=stream_environment(verb, target if verb == "import" else disk, PATH="/bin"),
                stdin=source,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
            ) as process,
        ):
            time.sleep(rng.uniform(0.05, 0.6))
            process.send_signal(number)
            _, said = process.communicate(timeout=120)
        if process.returncode > 0:
            assert "ended by SIGTERM; " in said.decode().splitlines()[-1], said
        assert not left_attached(left[0], tmp_path), "loop devices left attached"
        assert not left_mounted(left[1], tmp_path), "mounts left behind"
        assert set(os.listdir("/var/tmp")) <= left[2]
        if verb == "import" and process.returncode and not has_no_beginning(target):  # it had done its work by then
            assert contents(target, tmp_path, MIB, "ext4") == before, "it looks whole"
    assert node.restore(target, backup).returncode == 0
    assert contents(target, tmp_path, MIB, "ext4") == before


def is_open(pid: int, path: Path) -> bool:
    """True when the process has opened the file."""
    try:
        return any(os.path.samefile(fd, path) for fd in Path(f"/proc/{pid}/fd").iterdir())
    except OSError:  # closed since it was listed
        return False


def test_a_sender_that_says_nothing_does_not_keep_a_verb_from_ending(node: Node, tmp_path: Path) -> None:
    target = filled_file(tmp_path / "target", MIB)
    with subprocess.Popen(
        node.command("import"),
        cwd=ROOT,
        env=stream_environment("import", target, PATH="/bin"),
        stdin=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as process:
        while not is_open(process.pid, target):  # it waits for the sender then
            assert process.poll() is None
            time.sleep(0.01)
        process.send_signal(signal.SIGTERM)
        assert process.stderr is not None
        said = process.stderr.read().decode()
        assert process.wait(timeout=60) == 1
    assert said.splitlines()[-1].endswith("ended by SIGTERM; the disk is not complete"), said
    assert "Traceback" not in said
