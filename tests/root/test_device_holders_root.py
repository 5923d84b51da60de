# SPDX-License-Identifier: MIT
"""Block devices in use as a whole, by a partition, or by the disk around them: who is named when they are refused."""

from __future__ import annotations

import hashlib
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from pydiskimg.cli import main
from pydiskimg.errors import InUseError
from pydiskimg.host.holders import device_holder
from pydiskimg.images.open_disk import open_disk
from tests.fixtures.block_devices import block_device, partition_device

pytestmark = pytest.mark.root
MIB = 1 << 20
PARTITION = 304 * MIB  # mkfs.xfs takes no less than 300 MiB
SIZE = PARTITION + 32 * MIB


@contextmanager
def mounted(device: str, point: Path) -> Iterator[str]:
    point.mkdir(exist_ok=True)
    subprocess.run(["mount", device, point], check=True)
    try:
        yield str(point)
    finally:
        subprocess.run(["umount", point], check=True)


def digest_of(device: str) -> bytes:
    with open(device, "rb") as file:
        return hashlib.file_digest(file, "sha256").digest()


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[str]:
    path = tmp_path / "disk"
    with path.open("wb") as file:
        file.truncate(SIZE)
    subprocess.run(["sfdisk", "-q", path], input=f"label: gpt\n2048,{PARTITION // 512}\n,\n", text=True, check=True)
    with block_device(path) as device:
        yield device


@pytest.fixture
def partition(disk: str) -> Iterator[str]:
    with partition_device(disk, 1, start=MIB, size=PARTITION) as node:
        yield node


@pytest.mark.parametrize("kind", ["ext4", "xfs", "btrfs"])
def test_a_partition_is_mounted(kind: str, disk: str, partition: str, tmp_path: Path) -> None:
    subprocess.run([f"mkfs.{kind}", partition], check=True, capture_output=True)
    name = Path(partition).name
    with mounted(partition, tmp_path / "a point") as point:
        assert device_holder(disk) == f"partition {name} is mounted on {point}"
        assert device_holder(partition) == f"mounted on {point}"
        with pytest.raises(InUseError, match=f"in use .mounted on {point}"):
            open_disk(partition, writable=True)
        with pytest.raises(InUseError, match=f"in use .partition {name} is mounted on {point}"):
            open_disk(disk, writable=True)


def test_the_whole_disk_is_mounted(disk: str, partition: str, tmp_path: Path) -> None:
    subprocess.run(["mke2fs", "-q", "-F", disk], check=True)
    with (
        mounted(disk, tmp_path / "point") as point,
        pytest.raises(InUseError, match=f"the whole disk, {Path(disk).name}, is mounted on {point}"),
    ):
        open_disk(partition, writable=True)


def test_a_partition_is_swap_space(disk: str, partition: str) -> None:
    subprocess.run(["mkswap", partition], check=True, capture_output=True)
    subprocess.run(["swapon", partition], check=True)
    try:
        assert device_holder(partition) == "swap space"
        with pytest.raises(InUseError, match=f"in use .partition {Path(partition).name} is swap space"):
            open_disk(disk, writable=True)
    finally:
        subprocess.run(["swapoff", partition], check=True)


def test_a_process_has_it(disk: str) -> None:
    with open_disk(disk, writable=True):
        assert device_holder(disk) == "another process has opened it exclusively"
    assert device_holder("/dev/no such device") == "unknown holder"


COMMANDS = (
    *("partition delete {disk} 1", "partition delete {disk} 2", "partition add {disk} --size 1M", "grow {disk}"),
    *("partition set {disk} 1 --name new", "partition create {disk} --force", "shrink {disk} --size 100M"),
    *("mkfs --force {disk}", "mkfs --force --partition 1 {disk}", "mkfs --force {part}", "mkswap --force {part}"),
    *("sparsify {disk}", "sparsify {part}", "rm {part} /lost+found", "mkdir {disk} --partition 1 /new"),
    *("copy-in {part} {file} /", "write --yes -f raw {file} {disk}", "write --yes -f raw {file} {part}"),
    *("convert -n {file} {disk}", "convert -n {file} {part}", "build {tree} {disk}", "build {tree} {part}"),
    *("dd if={file} of={part} -O raw", "resize {disk} +1M", "tar-in {part} {tarball} /"),
)


def test_no_command_writes_to_a_mounted_partition(
    disk: str, partition: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    names = {"disk": disk, "part": partition, "file": str(tmp_path / "file"), "tree": str(tmp_path)}
    names["tarball"] = str(tmp_path / "archive.tar")
    Path(names["file"]).write_bytes(b"x" * MIB)
    subprocess.run(["tar", "-cf", names["tarball"], "-C", "/etc", "hostname"], check=True)
    subprocess.run(["mke2fs", "-q", "-F", "-t", "ext4", partition], check=True)
    with mounted(partition, tmp_path / "point"):
        before = digest_of(disk)
        for command in COMMANDS:
            assert main([word.format(**names) for word in command.split()]) == 1, command
            said = capsys.readouterr().err
            assert "is in use (" in said or "is a block device" in said, command
            assert said.count("\n") == 1, said
        assert digest_of(disk) == before
