# SPDX-License-Identifier: MIT
"""A btrfs that the kernel would join with other devices is not mounted."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from pydiskimg.before_mount import btrfs
from pydiskimg.errors import FileSystemError
from pydiskimg.loop import loop_device
from pydiskimg.mount import mounted
from tests.fixtures.block_devices import block_device
from tests.fixtures.judges import blkid

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
