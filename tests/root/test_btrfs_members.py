# SPDX-License-Identifier: MIT
"""A btrfs that the kernel would join with other devices is not mounted."""

from __future__ import annotations

import os
import struct
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from pydiskimg.crc32c import crc32c
from pydiskimg.errors import FileSystemError
from pydiskimg.fs.probe.btrfs import OFFSET, SUPERBLOCK
from pydiskimg.host.before_mount import btrfs
from pydiskimg.host.before_mount.btrfs_devices import foreign_device
from pydiskimg.host.loop import loop_device
from pydiskimg.host.mount import mounted
from tests.fixtures.block_devices import block_device
from tests.fixtures.growing import mounted_at
from tests.fixtures.judges import blkid
from tests.fixtures.programs import run

pytestmark = pytest.mark.root
MIB = 1 << 20
Tool = Callable[[str], str]


def formatted(tool: Tool, path: Path, *options: str) -> Path:
    with path.open("wb") as file:
        file.truncate(130 * MIB)
    subprocess.run([tool("mkfs.btrfs"), "-q", *options, path], check=True, capture_output=True)
    return path


def test_two_devices_that_the_kernel_knows(tool: Tool, tmp_path: Path) -> None:
    paths = [formatted(tool, tmp_path / name) for name in ("one", "two")]
    with block_device(paths[0]) as one, block_device(paths[1]) as two:
        subprocess.run([tool("mkfs.btrfs"), "-q", "-f", "-d", "single", one, two], check=True, capture_output=True)
        subprocess.run([tool("btrfs"), "device", "scan", one, two], check=True, capture_output=True)
        with pytest.raises(FileSystemError, match="it spans 2 devices"), mounted(one, fs_type="btrfs"):
            pass
        subprocess.run([tool("btrfs"), "device", "scan", "--forget"], check=True, capture_output=True)


def only_counts_itself(device: str) -> None:
    """Let the superblock of a btrfs say that it has one device, with a checksum that holds."""
    with open(device, "r+b", buffering=0) as file:
        block = bytearray(os.pread(file.fileno(), 4096, 64 << 10))
        struct.pack_into("<Q", block, 136, 1)
        struct.pack_into("<I", block, 0, crc32c(bytes(block[32:])) ^ 0xFFFFFFFF)
        os.pwrite(file.fileno(), block, 64 << 10)
        os.fsync(file.fileno())


def test_a_seed_that_only_the_chunk_tree_names(tool: Tool, tmp_path: Path) -> None:
    """The kernel opens it although the superblock says that there is one device, and shows what is in it."""
    seed, sprout = formatted(tool, tmp_path / "seed"), tmp_path / "sprout"
    with sprout.open("wb") as file:
        file.truncate(200 * MIB)
    with block_device(seed) as other, block_device(sprout) as device:
        with mounted_at(other, tmp_path / "point") as point:
            (point / "secret").write_text("of another guest\n")
        run(tool("btrfstune"), "-S", "1", other)
        with mounted_at(other, tmp_path / "point", "-r") as point:
            run(tool("btrfs"), "device", "add", "-f", device, point)
        only_counts_itself(device)
        run(tool("btrfs"), "device", "scan", other, device)
        try:
            with mounted_at(device, tmp_path / "point") as point:  # by mount(8), which shows that this works
                assert (point / "secret").read_text() == "of another guest\n"
            only_counts_itself(device)
            for read_only in (False, True):
                with (
                    pytest.raises(FileSystemError, match=r"its chunk tree names another device \(number 1, "),
                    mounted(device, fs_type="btrfs", read_only=read_only),
                ):
                    pass
        finally:
            run(tool("btrfs"), "device", "scan", "--forget")


@pytest.mark.parametrize("profile", ["single", "dup"])
@pytest.mark.parametrize("checksum", ["crc32c", "sha256", "xxhash"])
def test_one_device_however_it_was_made(tool: Tool, tmp_path: Path, profile: str, checksum: str) -> None:
    path = formatted(tool, tmp_path / "image", "-m", profile, "--csum", checksum)
    with loop_device(path) as loop, mounted(loop.path, fs_type="btrfs") as target:
        assert Path(target).is_mount()


@pytest.mark.parametrize("option", ["-m", "-u"])
def test_one_device_with_a_new_uuid(tool: Tool, tmp_path: Path, option: str) -> None:
    """-m keeps the old one in the tree's items, as metadata_uuid."""
    path = formatted(tool, tmp_path / "image")
    run(tool("btrfstune"), "-f", option, path)
    with loop_device(path) as loop, mounted(loop.path, fs_type="btrfs") as target:
        assert Path(target).is_mount()


def test_a_chunk_tree_of_several_nodes(tool: Tool, tmp_path: Path) -> None:
    path = tmp_path / "image"
    with path.open("wb") as file:
        file.truncate(100 << 30)
    run(tool("mkfs.btrfs"), "-q", "-n", "4096", path)
    with block_device(path) as device:
        with mounted_at(device, tmp_path / "point") as point:
            run(tool("fallocate"), "-l", "60G", point / "large")  # of chunks of 1 GiB; nothing is written
        dumped = run(tool("btrfs"), "inspect-internal", "dump-super", device)
        assert "chunk_root_level\t1" in dumped
        with open(device, "rb", buffering=0) as raw:
            reads: list[int] = []

            def read(offset: int, length: int) -> bytes:
                reads.append(offset)
                return os.pread(raw.fileno(), length, offset)

            assert foreign_device(read, SUPERBLOCK.unpack(os.pread(raw.fileno(), SUPERBLOCK.size, OFFSET))) is None
        assert len(reads) == 2 * 2, "two copies of the root, two of the first leaf"
        with mounted(device, fs_type="btrfs") as target:
            assert Path(target).is_mount()


@pytest.mark.parametrize("member", ["other", "the same", "of another"])
def test_what_udev_has_shown_to_the_kernel(
    tool: Tool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, member: str
) -> None:
    path = formatted(tool, tmp_path / "image")
    whole = {"offset": 0, "length": 130 * MIB}
    fsid, device = blkid(str(path), whole, "UUID"), blkid(str(path), whole, "UUID_SUB")
    assert fsid
    assert device
    data = tmp_path / "udev"
    data.mkdir()
    (data / "c1:3").write_text("E:ID_FS_TYPE=btrfs\n")
    (data / "b8:1").write_text(f"E:ID_FS_TYPE=ext4\nE:ID_FS_UUID={fsid}\n")
    (data / "b8:2").write_text(
        "S:disk/by-id/x\nE:ID_FS_TYPE=btrfs\n"
        f"E:ID_FS_UUID={fsid if member != 'of another' else device}\n"
        f"E:ID_FS_UUID_SUB={device if member == 'the same' else fsid}\n"
    )
    monkeypatch.setattr(btrfs, "UDEV_DATA", str(data))
    with loop_device(path) as loop:
        if member == "other":
            with (
                pytest.raises(FileSystemError, match=f"the fsid {fsid} of another member, block device 8:2"),
                mounted(loop.path, fs_type="btrfs"),
            ):
                pass
        else:
            with mounted(loop.path, fs_type="btrfs") as target:
                assert Path(target).is_mount()
