# SPDX-License-Identifier: MIT
"""File systems grow with their partition, keep their files, and stay good when it ends in the middle."""

from __future__ import annotations

import os
import random
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest

from pydiskimg.errors import DiskImageError, FileSystemError, InUseError, PartitionError, StorageError
from pydiskimg.fs.ext4.file_system import read_file_system
from pydiskimg.fs.ext4.grow import plan_ext_growth
from pydiskimg.fs.ext4.journal import Journal
from pydiskimg.fs.ext4.make import make_ext
from pydiskimg.fs.probe.size import coverage
from pydiskimg.host.loop import loop_device
from pydiskimg.host.mount import mounted
from pydiskimg.images.open_disk import open_disk
from pydiskimg.partitions.grow import plan_partition_growth
from pydiskimg.regions.region import Region
from pydiskimg.units import MIB
from pydiskimg.volumes.grow import grow_last_volume
from tests.fixtures.all_imported import IMPORT_ALL
from tests.fixtures.block_devices import beginning, block_device
from tests.fixtures.growing import (
    NEW,
    OLD,
    TABLES,
    check,
    digest,
    disk_with,
    fill,
    judged,
    last_range,
    loop,
    mounted_at,
    state,
)
from tests.fixtures.stopping_disk import StoppedError, StoppingDisk

ROOT = Path(__file__).resolve().parents[2]
pytestmark = pytest.mark.root
Tool = Callable[[str], str]


@pytest.fixture(scope="module")
def contents(tmp_path_factory: pytest.TempPathFactory) -> str:
    place = tmp_path_factory.mktemp("contents")
    fill(place)
    return digest(place)


def grow(path: Path | str) -> str:
    with open_disk(path, writable=True) as disk:
        return str(grow_last_volume(disk))


@pytest.mark.parametrize("table", TABLES)
@pytest.mark.parametrize("fs_type", ["ext2", "ext3", "ext4", "xfs", "btrfs"])
def test_grown(tmp_path: Path, tool: Tool, contents: str, table: str, fs_type: str) -> None:
    tool(f"mkfs.{fs_type}")
    path = disk_with(tmp_path / "disk", table, fs_type)
    said = grow(path)
    start, length = last_range(path)
    assert 0 <= NEW - start - length < 2 * MIB
    assert judged(path, fs_type, contents, tmp_path) > length - 70 * MIB
    reached = f"{length // MIB if table != 'none' else 600} MiB"
    assert re.fullmatch(rf".*the {fs_type} file system .*from \d+ MiB to {reached}", said), said
    assert ("partition" in said) == (table != "none")
    # Again there is nothing to do, and nothing is done.
    before = state(path)
    assert "nothing to grow: " in grow(path)
    assert state(path) == before


@pytest.mark.parametrize(
    "options",
    [
        "-t ext2",
        "-t ext3 -b 1024",
        "-t ext4",
        "-t ext4 -b 1024 -O ^resize_inode",
        "-t ext4 -b 1024 -g 2048 -O sparse_super2 -E resize=400000",  # the reserve is used up
        "-t ext4 -b 1024 -O bigalloc -C 4096 -g 8192 -i 16384",
    ],
)
def test_the_kernel_fills_what_ext_has_gained(tmp_path: Path, tool: Tool, options: str) -> None:
    """Inodes and blocks of all new groups, over what the disk held before."""
    path = disk_with(tmp_path / "disk", "none", "", *options.split(), mkfs=tool("mke2fs"), contents=False)
    with path.open("r+b") as file:
        file.seek(OLD)
        while file.tell() < NEW:
            file.write(b"\xff" * min(MIB, NEW - file.tell()))
    grow(path)
    with loop(path, 0, NEW // 512 * 512) as device:
        with mounted_at(device, tmp_path / "point") as point:
            for number in range(3000):
                (point / f"directory {number}").mkdir()
            free = os.statvfs(point).f_bavail * os.statvfs(point).f_frsize
            (point / "large").write_bytes(b"8" * (free - 4 * MIB))
        check("ext4", device)
        with mounted_at(device, tmp_path / "point", "-o", "ro") as point:
            assert (point / "large").stat().st_size == free - 4 * MIB
            assert len(list(point.iterdir())) == 3002


def test_ext_of_a_running_guest(tmp_path: Path, contents: str) -> None:
    """What is in the file while it is mounted: the journal is replayed, as the guest's next start would."""
    living = disk_with(tmp_path / "living", "mbr", "ext4", "-q", contents=False)
    path = tmp_path / "disk"
    # However long copying takes, the kernel must not write to the journal meanwhile.
    quiet = ("-o", "commit=3600,noinit_itable")
    with loop(living, 30 * MIB, 310 * MIB) as device, mounted_at(device, tmp_path / "filling", *quiet) as point:
        fill(point)
        subprocess.run(["sync", "-f", point], check=True)
        subprocess.run(["cp", "--sparse=always", living, path], check=True)
    assert "needs_recovery" in superblock_of(path, 30 * MIB)
    assert "the ext4 file system in it from 310 MiB to 570 MiB" in grow(path)
    assert "needs_recovery" not in superblock_of(path, 30 * MIB)
    judged(path, "ext4", contents, tmp_path)


def superblock_of(path: Path, start: int) -> str:
    with loop(path, start, 300 * MIB, read_only=True) as device:
        return subprocess.run(["dumpe2fs", "-h", device], capture_output=True, text=True, check=True).stdout


def test_ext_without_root(tmp_path: Path, contents: str) -> None:
    path = disk_with(tmp_path / "disk", "mbr", "ext4")
    done = grown_by_nobody(path)
    assert (done.returncode, done.stderr) == (0, "")
    assert judged(path, "ext4", contents, tmp_path) > 500 * MIB


def test_on_a_block_device_with_large_sectors(tmp_path: Path, contents: str) -> None:
    path = tmp_path / "disk"
    path.write_bytes(b"")
    os.truncate(path, 340 * MIB)
    with block_device(path, sector_size=4096) as device:
        subprocess.run(["sfdisk", "-q", device], input="label: gpt\n1M,20M\n30M,,L\n", text=True, check=True)
    with loop(path, 30 * MIB, 308 * MIB) as device:
        subprocess.run(["mkfs.xfs", "-q", device], check=True)
        with mounted_at(device, tmp_path / "point") as point:
            fill(point)
    os.truncate(path, NEW // 4096 * 4096)
    with block_device(path, sector_size=4096) as device:
        said = grow(device)
        assert (
            "partition 2 was grown from 309 MiB to 569 MiB, the xfs file system in it from 308 MiB to 569 MiB" in said
        )
        assert (
            "No errors detected"
            in subprocess.run(["sfdisk", "--verify", device], capture_output=True, text=True, check=True).stdout
        )
    with loop(path, 30 * MIB, 569 * MIB) as device:
        check("xfs", device)


@pytest.mark.parametrize("table", ["mbr", "gpt"])
def test_an_image_for_other_sectors_is_left(tmp_path: Path, table: str) -> None:
    path = disk_with(tmp_path / "disk", table, "xfs", contents=False)
    os.truncate(path, NEW // 4096 * 4096)
    before = state(path)
    with block_device(path, sector_size=4096) as device:
        said = grow(device)
    assert "nothing to grow: " in said
    assert "for sectors of 512 bytes, while the disk has sectors of 4096" in said
    assert state(path) == before


@pytest.mark.parametrize("sector_size", [1024, 2048, 4096])
def test_a_table_for_larger_sectors_is_left(tmp_path: Path, sector_size: int) -> None:
    """As sfdisk makes it on a disk with such sectors; it was called damaged."""
    path = tmp_path / "disk"
    path.write_bytes(b"")
    os.truncate(path, 64 * MIB)
    with block_device(path, sector_size=sector_size) as device:
        subprocess.run(["sfdisk", "-q", device], input="label: gpt\n1M,20M\n", text=True, check=True)
    os.truncate(path, 128 * MIB)
    before = state(path)
    with block_device(path) as device:
        said = grow(device)
    assert f"nothing to grow: found a GPT for sectors of {sector_size} bytes, while the disk has sectors of 512" in said
    assert state(path) == before


def test_what_may_belong_to_another_is_left(tmp_path: Path) -> None:
    """UDF over an old ext4, and a member of a RAID whose superblock lies where the file system would grow to."""
    path = disk_with(tmp_path / "disk", "gpt", "ext4", contents=False)
    with open_disk(path) as disk:
        plan = plan_partition_growth(disk, 512)
    assert plan
    end = plan.partition.start + plan.partition.length
    clean = tmp_path / "clean"
    path.rename(clean)
    for offset, mark, what in (
        (plan.partition.start + 32 * 1024, b"\0BEA01\1", "UDF"),
        (end - 8192, bytes.fromhex("fc4e2ba9"), "a member of a RAID (md 1.0)"),
    ):
        subprocess.run(["cp", "--sparse=always", clean, path], check=True)
        with path.open("r+b") as file:
            file.seek(offset)
            file.write(mark)
        before = state(path)
        assert f"nothing to grow: the last partition (2) contains ext4, and looks like {what} as well" in grow(path)
        assert state(path) == before


def test_a_gpt_that_linux_ignores_is_left(tmp_path: Path) -> None:
    path = disk_with(tmp_path / "disk", "gpt", "ext4", contents=False)
    with path.open("r+b") as file:
        file.seek(446 + 8)
        file.write((63).to_bytes(4, "little"))
    before = state(path)
    assert "nothing to grow: Linux ignores the GPT: its protective MBR entry starts at sector 63, expected 1" in grow(
        path
    )
    assert state(path) == before


@pytest.mark.parametrize(
    ("command", "what"),
    [
        (["mkswap"], "contains swap"),
        (["mkfs.vfat"], "contains vfat"),
        (["true"], "contains nothing that is known here"),
        (
            ["cryptsetup", "-q", "luksFormat", "--type", "luks1", "-i", "1", "-d", "/dev/zero", "-l", "8"],
            "contains LUKS",
        ),
    ],
)
def test_what_is_not_grown(tmp_path: Path, tool: Tool, command: list[str], what: str) -> None:
    path = disk_with(tmp_path / "disk", "gpt", "", *command[1:], mkfs=tool(command[0]), contents=False)
    before = state(path)
    assert grow(path) == f"{path}: nothing to grow: the last partition (2) {what}"
    assert state(path) == before


def test_swap_behind_the_root(tmp_path: Path) -> None:
    path = disk_with(tmp_path / "disk", "mbr", "xfs", contents=False)
    subprocess.run(["sfdisk", "-q", "-a", path], input="345M,,S\n", text=True, check=True)
    with loop(path, 345 * MIB, 200 * MIB) as device:
        subprocess.run(["mkswap", device], check=True, capture_output=True)
    assert grow(path) == f"{path}: nothing to grow: the last partition (4) contains swap"


@pytest.mark.parametrize("fs_type", ["xfs", "btrfs"])
def test_damaged_file_systems_change_nothing(tmp_path: Path, fs_type: str) -> None:
    """The superblock is good, what it leads to is not."""
    path = disk_with(tmp_path / "disk", "mbr", fs_type, contents=False)
    keep = 512 if fs_type == "xfs" else 68 * 1024
    with path.open("r+b") as file:
        file.seek(30 * MIB + keep)
        file.write(b"\xff" * (290 * MIB))
    before = beginning(path, 30 * MIB)
    with pytest.raises(StorageError, match="cannot be mounted"):
        grow(path)
    assert beginning(path, 30 * MIB) == before


def test_an_image_that_is_incomplete(tmp_path: Path) -> None:
    path = disk_with(tmp_path / "disk", "mbr", "xfs", contents=False)
    table = bytearray(beginning(path, 512))
    table[446 + 32 + 12 : 446 + 32 + 16] = (290 * MIB // 512).to_bytes(4, "little")
    with path.open("r+b") as file:
        file.write(table)
    with pytest.raises(FileSystemError, match="its xfs file system has 325058560 bytes, its partition 304087040"):
        grow(path)
    assert beginning(path, 512) == table


def test_a_hostile_table_is_refused(tmp_path: Path) -> None:
    path = disk_with(tmp_path / "disk", "gpt", "xfs", contents=False)
    with path.open("r+b") as file:
        file.seek(512 + 48)
        file.write(b"\xff" * 8)
    with pytest.raises(PartitionError, match=r"the GPT is damaged \(header at byte 512: CRC"):
        grow(path)


def test_a_btrfs_whose_twin_is_mounted(tmp_path: Path) -> None:
    path = disk_with(tmp_path / "disk", "none", "btrfs", contents=False)
    twin = tmp_path / "twin"
    subprocess.run(["cp", "--sparse=always", path, twin], check=True)
    before = state(path)
    with loop_device(twin) as device, mounted(device.path, fs_type="btrfs"):
        with pytest.raises(InUseError, match=r"a btrfs with the UUID .* is mounted on this machine"):
            grow(path)
        assert state(path) == before
    assert "was grown from 340 MiB to 600 MiB" in grow(path)


def test_an_xfs_whose_twin_is_mounted(tmp_path: Path, contents: str) -> None:
    path = disk_with(tmp_path / "disk", "none", "xfs")
    twin = tmp_path / "twin"
    subprocess.run(["cp", "--sparse=always", path, twin], check=True)
    with loop_device(twin) as device, mounted(device.path, fs_type="xfs"):
        assert "was grown from 340 MiB to 600 MiB" in grow(path)
    judged(path, "xfs", contents, tmp_path)


def test_a_btrfs_on_two_devices(tmp_path: Path) -> None:
    path = disk_with(tmp_path / "disk", "none", "btrfs", contents=False)
    second = tmp_path / "second"
    second.write_bytes(b"")
    os.truncate(second, 340 * MIB)
    with loop(path, 0, 340 * MIB) as one, loop(second, 0, 340 * MIB) as two:
        subprocess.run(["mkfs.btrfs", "-q", "-f", one, two], check=True)
    with pytest.raises(FileSystemError, match="spans 2 devices"):
        grow(path)


def ext_state(path: Path, **fields: int) -> None:
    """Change fields of the superblock of an ext file system without checksums."""
    from pydiskimg.fs.ext4.layout import SUPERBLOCK, SUPERBLOCK_OFFSET

    with path.open("r+b") as file:
        file.seek(SUPERBLOCK_OFFSET)
        raw = bytearray(file.read(SUPERBLOCK.size))
        SUPERBLOCK.put(raw, fields)
        file.seek(SUPERBLOCK_OFFSET)
        file.write(raw)


@pytest.mark.parametrize(
    ("kind", "state", "message"),
    [
        ("ext4", 3, "errors are recorded in its ext file system"),
        ("ext3", 2, "errors are recorded in its ext file system"),
        ("ext2", 0, "has no journal and was not unmounted"),
    ],
)
def test_ext_that_needs_a_check_is_refused(tmp_path: Path, kind: str, state: int, message: str) -> None:
    options = ["-q", "-O", "^metadata_csum"] if kind == "ext4" else ["-q"]
    path = disk_with(tmp_path / "disk", "none", kind, *options, contents=False)
    ext_state(path, s_state=state)
    with pytest.raises(FileSystemError, match=message):
        grow(path)


def test_what_we_made_covers_what_it_says(tmp_path: Path) -> None:
    path = tmp_path / "disk"
    path.write_bytes(b"")
    os.truncate(path, 100 * MIB)
    with open_disk(path, writable=True) as disk:
        make_ext(Region(disk, 0, 80 * MIB), kind="ext4")
        found = coverage(disk, "ext4")
    assert found.size == 80 * MIB
    assert found.limit >= (1 << 32) * 1024 - 1024


@pytest.mark.parametrize("fs_type", ["ext3", "xfs", "btrfs"])
def test_no_room_for_the_file_of_the_disk(tmp_path: Path, contents: str, fs_type: str) -> None:
    """Writes of growing fail; the files are there, and with more room it grows."""
    small = tmp_path / "small"
    small.mkdir()
    with mounted_at("none", small, "-t", "tmpfs", "-o", "size=200m"):
        path = disk_with(small / "disk", "mbr", fs_type)
        status = os.statvfs(small)
        (small / "ballast").write_bytes(bytes(status.f_bavail * status.f_frsize - 8192))
        with pytest.raises(FileSystemError, match=r"partition 3 was grown to 570 MiB, .* was not, and is intact"):
            grow(path)
        (small / "ballast").unlink()
        assert "was grown from 310 MiB to 570 MiB" in grow(path)
        judged(path, fs_type, contents, tmp_path)


GROWING = """
import sys
from pydiskimg.images.open_disk import open_disk
from pydiskimg.volumes.grow import grow_last_volume
sys.stdin.readline()
with open_disk(sys.argv[1], writable=True) as disk:
    grow_last_volume(disk)
"""


# The disk is in the current directory.
BY_NOBODY = f"""{IMPORT_ALL}
import os, sys
from pydiskimg.images.open_disk import open_disk
from pydiskimg.volumes.grow import grow_last_volume
os.setgid(65534)
os.setuid(65534)
with open_disk(sys.argv[1], writable=True) as disk:
    grow_last_volume(disk)
"""


def grown_by_nobody(path: Path) -> subprocess.CompletedProcess[str]:
    """Let a process that is not root's grow the disk, which it may read and write, in a directory it may look into."""
    path.parent.chmod(0o755)
    path.chmod(0o666)
    command = [sys.executable, "-c", BY_NOBODY, path.name]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.run(command, cwd=path.parent, env=environment, capture_output=True, text=True, check=False)


def killed_after(path: Path, seconds: float) -> None:
    process = subprocess.Popen([sys.executable, "-c", GROWING, path], stdin=subprocess.PIPE, text=True)
    assert process.stdin is not None
    time.sleep(0.5)
    process.stdin.write("\n")
    with suppress(BrokenPipeError):
        process.stdin.flush()
    time.sleep(seconds)
    process.send_signal(signal.SIGKILL)
    process.stdin.close()
    process.wait()


@pytest.mark.parametrize("fs_type", ["ext4", "xfs", "btrfs"])
def test_killed_at_any_instant(tmp_path: Path, contents: str, fs_type: str) -> None:
    """The table is valid, the files are there, and the next run ends what this one began."""
    clean = disk_with(tmp_path / "clean", "gpt", fs_type)
    rng = random.Random(9)
    for _ in range(8):
        path = tmp_path / "disk"
        subprocess.run(["cp", "--sparse=always", clean, path], check=True)
        killed_after(path, rng.uniform(0, 0.25))
        _wait_until_free(path)
        with open_disk(path) as disk:
            growth = plan_partition_growth(disk, 512)
        assert growth
        assert growth.partition.number == 2
        grow(path)
        judged(path, fs_type, contents, tmp_path)
        assert last_range(path) == (30 * MIB, 569 * MIB)


def _wait_until_free(path: Path) -> None:
    """The kernel lets go of the loop device a moment after the process has gone."""
    for _ in range(100):
        try:
            open_disk(path, writable=True).close()
        except DiskImageError:
            time.sleep(0.05)
        else:
            return
    raise AssertionError(f"{path} is still held")


def test_without_root(tmp_path: Path) -> None:
    path = disk_with(tmp_path / "disk", "mbr", "xfs", contents=False)
    before = state(path)
    done = grown_by_nobody(path)
    assert "cannot make a private mount namespace: Operation not permitted; mounting needs root" in done.stderr
    assert state(path) == before


@pytest.mark.parametrize(
    ("options", "writes_after"),
    [("-b 4096", 0), ("-b 4096", 3), ("-b 4096", 6), ("-b 1024 -g 2048 -O sparse_super2 -E resize=400000", 6)],
)
def test_the_kernel_ends_what_was_interrupted(tmp_path: Path, contents: str, options: str, writes_after: int) -> None:
    """The transaction is complete, the blocks are not in their places: mounting replays it."""
    clean = disk_with(tmp_path / "clean", "none", "ext4", "-q", *options.split())
    path = tmp_path / "disk"
    for writes in range(1000):
        subprocess.run(["cp", "--sparse=always", clean, path], check=True)
        with open_disk(path, writable=True) as disk, suppress(StoppedError):
            plan_ext_growth(StoppingDisk(disk, writes)).write()
        if log_is_full(path):
            break
    subprocess.run(["cp", "--sparse=always", clean, path], check=True)
    with open_disk(path, writable=True) as disk, suppress(StoppedError):
        plan_ext_growth(StoppingDisk(disk, writes + writes_after)).write()
    assert log_is_full(path)
    with loop(path, 0, NEW // 4096 * 4096) as device:
        for _ in range(2):  # the first time the kernel counts the groups before it replays
            with mounted_at(device, tmp_path / "point") as point:
                assert digest(point) == contents
        assert subprocess.run(["e2fsck", "-fp", device], check=False, capture_output=True).returncode in (0, 1)
        check("ext4", device)
        with mounted_at(device, tmp_path / "point", "-o", "ro") as point:
            assert digest(point) == contents
            assert os.statvfs(point).f_blocks * os.statvfs(point).f_frsize > 530 * MIB


def log_is_full(path: Path) -> bool:
    with open_disk(path) as disk:
        return Journal(read_file_system(disk)).start != 0
