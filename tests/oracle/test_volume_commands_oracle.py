# SPDX-License-Identifier: MIT
"""filesystems, df and hash on disks of sfdisk, mkfs and qemu-img, with blkid and sha256sum as judges."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest

from pydiskimg.cli import main
from tests.fixtures.programs import Tool, run

pytestmark = pytest.mark.oracle

MIB = 1 << 20
TABLE = """\
label: gpt
start=2048, size=8192, type=C12A7328-F81F-11D2-BA4B-00A0C93EC93B, name="EFI system"
size=32768, type=L
size=8192, type=S
size=8192, type=L
"""
MAKERS = {1: "mkfs.vfat -n EFI", 2: "mkfs.ext4 -q -L root,1", 3: "mkswap -L swap"}


@pytest.fixture
def disk(tmp_path: Path, tool: Tool) -> Path:
    """A disk of four partitions; the last is empty."""
    path = tmp_path / "my disk.raw"
    with path.open("wb") as file:
        file.truncate(40 * MIB)
    run(tool("sfdisk"), "-q", str(path), given=TABLE)
    for number, maker in MAKERS.items():
        part = tmp_path / f"part {number}"
        start, size = part_of(path, number, tool)
        with part.open("wb") as file:
            file.truncate(size)
        program, *options = maker.split()
        run(tool(program), *options, str(part))
        with path.open("r+b") as file:
            file.seek(start)
            file.write(part.read_bytes())
    return path


def part_of(path: Path, number: int, tool: Tool) -> tuple[int, int]:
    """The bytes of a partition, by sfdisk: (start, length)."""
    partitions = json.loads(run(tool("sfdisk"), "-J", str(path)))["partitiontable"]["partitions"]
    found = partitions[number - 1]
    return found["start"] * 512, found["size"] * 512


@pytest.fixture
def qcow2(disk: Path, tmp_path: Path, tool: Tool) -> Path:
    path = tmp_path / "disk.qcow2"
    run(tool("qemu-img"), "convert", "-f", "raw", "-O", "qcow2", str(disk), str(path))
    return path


def said(capsys: pytest.CaptureFixture[str], *words: str | Path, status: int = 0) -> str:
    assert main([str(word) for word in words]) == status
    return capsys.readouterr().out


def test_filesystems_is_what_blkid_and_sfdisk_say(
    disk: Path, qcow2: Path, tool: Tool, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    found = json.loads(said(capsys, "filesystems", "--all", "--output", "json", disk))
    assert json.loads(said(capsys, "filesystems", "--all", "--output", "json", qcow2)) == found
    contents = [one for one in found if one["type"] == "filesystem"]
    assert [one["vfs"] for one in contents] == ["vfat", "ext4", "swap", "unknown"]
    for one in contents[:3]:
        words = run(tool("blkid"), "-p", "-o", "export", str(tmp_path / f"part {one['partition']}")).splitlines()
        facts = dict(line.split("=", 1) for line in words)
        expected = (facts["TYPE"], facts["UUID"], facts["LABEL"].replace("\\", ""))
        assert (one["vfs"], one["uuid"], one["label"]) == expected
        assert (one["start"], one["size"]) == part_of(disk, one["partition"], tool)
    table = json.loads(run(tool("sfdisk"), "-J", str(disk)))["partitiontable"]["partitions"]
    parts = [one for one in found if one["type"] == "partition"]
    assert [(one["partition-type"], one["uuid"].upper()) for one in parts] == [
        (row["type"], row["uuid"]) for row in table
    ]
    assert [one["label"] for one in parts] == ["EFI system", None, None, None]
    assert found[-1]["type"] == "device"
    assert found[-1]["size"] == 40 * MIB


def test_names_alone_and_the_long_table(disk: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert said(capsys, "filesystems", disk) == "/dev/sda1\n/dev/sda2\n"
    assert said(capsys, "filesystems", "--extra", disk).split() == [f"/dev/sda{number}" for number in range(1, 5)]
    assert said(capsys, "filesystems", "--parts", disk).split() == [f"/dev/sda{number}" for number in range(1, 5)]
    assert said(capsys, "filesystems", "--blkdevs", disk) == "/dev/sda\n"
    title, *rows = said(capsys, "filesystems", "-lh", disk).splitlines()
    assert title.split() == ["Name", "Type", "VFS", "Label", "Size", "Parent"]
    assert [row.split() for row in rows] == [
        ["/dev/sda1", "filesystem", "vfat", "EFI", "4.0M", "-"],
        ["/dev/sda2", "filesystem", "ext4", "root,1", "16M", "-"],
    ]
    fields = list(csv.reader(said(capsys, "filesystems", "-l", "--csv", "--no-title", disk).splitlines()))
    assert fields[1] == ["/dev/sda2", "filesystem", "ext4", "root,1", str(16 * MIB), ""]


def test_df_names_each_file_system_that_can_be_counted(
    disk: Path, qcow2: Path, tool: Tool, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    title, *rows = said(capsys, "df", disk, qcow2).splitlines()
    assert title.split() == ["Filesystem", "1K-blocks", "Used", "Available", "Use%"]
    assert {len(line) for line in (title, *rows)} == {len(title)}  # numbers end below each other
    assert [row.rsplit(None, 4)[0] for row in rows] == [
        *("my disk.raw:/dev/sda1", "my disk.raw:/dev/sda2"),
        *("disk.qcow2:/dev/sda1", "disk.qcow2:/dev/sda2"),
    ]
    inodes = list(csv.reader(said(capsys, "df", "-i", "--csv", qcow2).splitlines()))
    has_orphan_file = "orphan_file" in run(tool("dumpe2fs"), "-h", str(tmp_path / "part 2"))  # from mke2fs 1.47 on
    assert inodes[2][2] == ("12" if has_orphan_file else "11")  # of an ext4 with nothing but lost+found
    found = json.loads(said(capsys, "df", "--output", "json", disk))
    assert [(one["partition"], one["type"]) for one in found] == [(1, "vfat"), (2, "ext4")]
    assert 0 < found[1]["used"] < found[1]["size"] < 16 * MIB


def test_df_of_damage_says_so_and_counts_the_rest(
    disk: Path, qcow2: Path, tool: Tool, capsys: pytest.CaptureFixture[str]
) -> None:
    start, _ = part_of(disk, 2, tool)
    with disk.open("r+b") as file:
        file.seek(start + 2048 + 0xC)  # bg_free_blocks_count_lo, in blocks of 1 KiB
        file.write(b"\xff\xff")
    assert main(["df", str(disk), str(qcow2)]) == 1
    heard = capsys.readouterr()
    assert "disk.qcow2:/dev/sda2" in heard.out
    assert f"{disk}, partition 2: its space cannot be counted" in heard.err


@pytest.mark.parametrize("algorithm", ["md5", "sha1", "sha256", "sha512"])
def test_hash_is_that_of_the_raw_file(
    algorithm: str, disk: Path, qcow2: Path, tool: Tool, capsys: pytest.CaptureFixture[str]
) -> None:
    expected = run(tool(f"{algorithm}sum"), str(disk)).split()[0]
    assert said(capsys, "hash", "-a", algorithm, disk, qcow2) == f"{expected}  {disk}\n{expected}  {qcow2}\n"
    found = json.loads(said(capsys, "hash", "-a", algorithm, "--output", "json", qcow2))
    assert found == [{"filename": str(qcow2), algorithm: expected}]


def test_hash_of_a_snapshot_and_of_odd_sizes(tmp_path: Path, tool: Tool, capsys: pytest.CaptureFixture[str]) -> None:
    image, raw = tmp_path / "s.qcow2", tmp_path / "raw"
    raw.write_bytes(b"odd" * 12345)
    expected = run(tool("sha256sum"), str(raw)).split()[0]
    assert said(capsys, "hash", "-f", "raw", raw).split()[0] == expected
    run(tool("qemu-img"), "create", "-q", "-f", "qcow2", str(image), "3M")
    before = said(capsys, "hash", image)
    run(tool("qemu-img"), "snapshot", "-c", "before", str(image))
    run(tool("qemu-io"), "-c", "write -P 7 1M 64k", str(image))
    assert said(capsys, "hash", image) != before
    assert said(capsys, "hash", "-l", "before", image) == before
