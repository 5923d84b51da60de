# SPDX-License-Identifier: MIT
"""What took a disk over from ext, as real makers leave it: an export holds all of it, whatever the old bitmaps say."""

from __future__ import annotations

import random
import struct
from pathlib import Path

import pytest

from pydiskimg.extents import Kind
from pydiskimg.images.raw import open_raw
from pydiskimg.units import KIB, MIB
from pydiskimg.volumes.used import used_source
from tests.fixtures.ext_files import made_ext, some_files
from tests.fixtures.programs import Tool, making, run
from tests.fixtures.used_copy import copy_used

pytestmark = pytest.mark.oracle

SIZE = 400 * MIB

MAKERS = (
    "mkudffs",
    "mkudffs --bootarea=preserve",
    "mkudffs --bootarea=preserve -b 2048",
    "mkudffs --bootarea=preserve -b 4096",
    "mkfs.jfs -q",
    "mkfs.f2fs -q -f",
    "mkfs.nilfs2 -q -f",
    "mkfs.xfs -q -f",
    "mkfs.btrfs -q -f",
    "mkntfs -F -Q -q",
    "mkfs.exfat",
    "mkfs.vfat -F 32",
    "mkfs.vfat -F 16",
)


@pytest.fixture(scope="module")
def contents(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return some_files(tmp_path_factory.mktemp("contents"), 40)


def aged(tool: Tool, path: Path, kind: str, contents: Path) -> list[tuple[int, int]]:
    """Have mke2fs make a file system with files; return what is free in it, the large pieces."""
    made_ext(tool, path, f"-t {kind}", SIZE, contents)
    with open_raw(path) as source:
        extents = list(used_source(source).extents())
    free = [(extent.start, extent.end) for extent in extents if extent.kind is Kind.HOLE and extent.length > MIB]
    assert sum(end - start for start, end in free) > 300 * MIB
    return free


def fill(path: Path, free: list[tuple[int, int]]) -> None:
    """Write where the old bitmaps have nothing, as the new owner does, and not where its own structures may be."""
    noise = random.Random(5).randbytes(64 * KIB)
    with path.open("r+b") as file:
        for start, end in free:
            for offset in range((start + MIB) // MIB * MIB + 300 * KIB, end - MIB, 8 * MIB):
                if 16 * MIB < offset < SIZE - 16 * MIB:
                    file.seek(offset)
                    file.write(noise)


def assert_all_is_there(path: Path, copy: Path) -> None:
    with open_raw(path) as source:
        copy_used(used_source(source), copy)
    with path.open("rb") as one, copy.open("rb") as other:
        while block := one.read(MIB):
            assert block == other.read(MIB)


@pytest.mark.parametrize("kind", ["ext2", "ext4"])
@pytest.mark.parametrize("maker", MAKERS)
def test_a_new_file_system(maker: str, kind: str, tmp_path: Path, contents: Path, tool: Tool) -> None:
    path = tmp_path / "disk"
    free = aged(tool, path, kind, contents)
    run(*making(tool, maker), path)
    fill(path, free)
    assert_all_is_there(path, tmp_path / "copy")


def _zfs(label: int) -> dict[int, bytes]:
    """A label as zpool writes it: 8 KiB that it leaves alone, 8 KiB of zeros, 112 KiB of names and values."""
    pairs = struct.pack(">BBHIII", 1, 1, 0, 0, 1, 36) + struct.pack(">II", 36, 7) + b"version\0"
    uberblock = struct.pack("<QQ", 0x00BAB10C, 5000)
    return {
        label + 8 * KIB: bytes(8 * KIB),
        label + 16 * KIB: pairs.ljust(112 * KIB, b"\0"),
        label + 128 * KIB: b"".join(uberblock.ljust(4 * KIB, b"\0") for _ in range(32)),
    }


LABELS = (0, 256 * KIB, SIZE - 512 * KIB, SIZE - 256 * KIB)
# What nothing makes here as ordinary files: as their own sources say that it is written.
BY_HAND: dict[str, dict[int, bytes]] = {
    "zfs": {offset: data for label in LABELS for offset, data in _zfs(label).items()},
    **{f"zfs, label {number} alone": _zfs(label) for number, label in enumerate(LABELS)},
    "stratis": {512 + 4: b"!Stra0tis\x86\xff\x02^\x41rh"},
    "stratis, second": {4608 + 4: b"!Stra0tis\x86\xff\x02^\x41rh"},
    "md 1.2": {4096: bytes.fromhex("fc4e2ba901000000")},
    "md 1.0": {SIZE - 8 * KIB: bytes.fromhex("fc4e2ba901000000")},
    "iso 9660": {32 * KIB: b"\1CD001\1"},
    "vmfs": {MIB: bytes.fromhex("0dd001c0")},
}


@pytest.mark.parametrize("kind", ["ext2", "ext4"])
@pytest.mark.parametrize("name", BY_HAND)
def test_what_leaves_the_superblock_alone(name: str, kind: str, tmp_path: Path, contents: Path, tool: Tool) -> None:
    path = tmp_path / "disk"
    free = aged(tool, path, kind, contents)
    with path.open("r+b") as file:
        file.seek(1024)
        before = file.read(1024)
        for offset, data in BY_HAND[name].items():
            file.seek(offset)
            file.write(data)
        file.seek(1024)
        assert file.read(1024) == before
    fill(path, free)
    assert_all_is_there(path, tmp_path / "copy")


def test_udf_leaves_the_superblock_alone(tmp_path: Path, contents: Path, tool: Tool) -> None:
    """Otherwise the tests of it above would show nothing."""
    path = tmp_path / "disk"
    aged(tool, path, "ext4", contents)
    run(tool("mkudffs"), "--bootarea=preserve", path)
    with path.open("rb") as file:
        file.seek(1024 + 0x38)
        assert file.read(2) == b"\x53\xef"
    with open_raw(path) as source:
        notes = used_source(source).notes
    assert notes == ["the whole disk (ext4): looks like UDF as well; all of it counts as in use"]
