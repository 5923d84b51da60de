# SPDX-License-Identifier: MIT
"""filesystems names by type what is found by its signature alone, as blkid does."""

from __future__ import annotations

import json
import struct
from collections.abc import Callable
from pathlib import Path

import pytest

from pydiskimg.cli import main
from tests.fixtures.ext_files import sized
from tests.fixtures.programs import Tool, making, run

pytestmark = pytest.mark.oracle

MIB = 1 << 20
MAKERS = {
    "ntfs": ("mkfs.ntfs -F -Q -q", 20),
    "exfat": ("mkfs.exfat", 20),
    "f2fs": ("mkfs.f2fs -q", 60),
    "jfs": ("mkfs.jfs -q", 20),
    "nilfs2": ("mkfs.nilfs2 -q", 140),
}


def md_superblock(minor: int, offset: int) -> bytes:
    """A superblock of md 1.1 or 1.2 (Linux, md_p.h) at this offset (bytes)."""
    block = bytearray(256)
    block[:8] = 0xA92B4EFC.to_bytes(4, "little") + (1).to_bytes(4, "little")
    block[16:32] = bytes(range(minor, minor + 16))
    block[144:152] = (offset // 512).to_bytes(8, "little")
    total = sum(struct.unpack("<64I", block))
    block[216:220] = ((total & 0xFFFFFFFF) + (total >> 32)).to_bytes(4, "little")  # sb_csum, which blkid 2.39 checks
    return bytes(block)


def zfs_label(image: Path) -> None:
    """The first label of a ZFS pool's member: names and values in XDR, which blkid 2.41 reads, and uberblocks."""
    names = {"version": 5000, "state": 0, "txg": 4, "guid": 7}
    put(image, 16 << 10, struct.pack(">BBHII", 1, 1, 0, 0, 1) + b"".join(map(zfs_pair, names, names.values())))
    for number in range(8):
        put(image, (128 + number) << 10, 0x00BAB10C.to_bytes(8, "little") + (5000).to_bytes(8, "little"))


def zfs_pair(name: str, value: int) -> bytes:
    """A pair of a packed nvlist: its size here and in memory, its name, DATA_TYPE_UINT64, one value."""
    text = name.encode().ljust((len(name) + 3) // 4 * 4, b"\0")
    return struct.pack(">III", 28 + len(text), 32 + len(text), len(name)) + text + struct.pack(">IIQ", 8, 1, value)


def iso(image: Path) -> None:
    put(image, 32 << 10, b"\1CD001\1".ljust(40, b"\0") + b"LABEL".ljust(32))
    put(image, 34 << 10, b"\xffCD001\1")


def put(image: Path, offset: int, contents: bytes) -> None:
    with image.open("r+b") as file:
        file.seek(offset)
        file.write(contents)


WRITTEN: dict[str, Callable[[Path], None]] = {
    "linux_raid_member": lambda image: put(image, 4096, md_superblock(2, 4096)),
    "zfs_member": zfs_label,
    "iso9660": iso,
}


def found(image: Path, capsys: pytest.CaptureFixture[str], *options: str) -> list[dict[str, object]]:
    assert main(["filesystems", *options, "--output", "json", str(image)]) == 0
    rows: list[dict[str, object]] = json.loads(capsys.readouterr().out)
    return rows


def by_blkid(image: Path, tool: Tool) -> str:
    return run(tool("blkid"), "-p", "-o", "value", "-s", "TYPE", str(image)).strip()


@pytest.mark.parametrize("kind", MAKERS)
def test_file_systems_of_makers(kind: str, tmp_path: Path, tool: Tool, capsys: pytest.CaptureFixture[str]) -> None:
    maker, size = MAKERS[kind]
    image = sized(tmp_path / "disk", size * MIB)
    run(*making(tool, maker), str(image))
    assert by_blkid(image, tool) == kind
    assert [row["vfs"] for row in found(image, capsys)] == [kind]


@pytest.mark.parametrize("kind", WRITTEN)
def test_superblocks_by_hand(kind: str, tmp_path: Path, tool: Tool, capsys: pytest.CaptureFixture[str]) -> None:
    image = sized(tmp_path / "disk", 64 * MIB)
    WRITTEN[kind](image)
    assert by_blkid(image, tool) == kind
    assert [row["vfs"] for row in found(image, capsys, "--extra")] == [kind]
    assert [row["vfs"] for row in found(image, capsys)] == [kind for kind in (kind,) if kind == "iso9660"]


@pytest.mark.parametrize("minor", [1, 2])
def test_a_member_of_a_raid_is_not_the_file_system_that_was_there(
    minor: int, tmp_path: Path, tool: Tool, capsys: pytest.CaptureFixture[str]
) -> None:
    image = sized(tmp_path / "disk", 64 * MIB)
    run(tool("mkfs.ext4"), "-q", "-b", "4096", "-L", "old", str(image))
    offset = 4096 * (minor - 1)
    put(image, offset, md_superblock(minor, offset))
    assert by_blkid(image, tool) == "linux_raid_member"
    assert [(row["vfs"], row["label"]) for row in found(image, capsys, "--extra")] == [("linux_raid_member", None)]
    assert found(image, capsys) == []


def test_a_member_of_a_raid_with_a_wrong_checksum(
    tmp_path: Path, tool: Tool, capsys: pytest.CaptureFixture[str]
) -> None:
    """Nothing checks it here, so the disk counts as a member; blkid has checked it since 2.39 and finds the ext4."""
    image = sized(tmp_path / "disk", 64 * MIB)
    run(tool("mkfs.ext4"), "-q", "-b", "4096", str(image))
    put(image, 4096, bytes(byte ^ (number == 216) for number, byte in enumerate(md_superblock(2, 4096))))
    assert by_blkid(image, tool) in {"linux_raid_member", "ext4"}
    assert [row["vfs"] for row in found(image, capsys, "--extra")] == ["linux_raid_member"]
