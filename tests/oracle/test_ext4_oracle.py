# SPDX-License-Identifier: MIT
"""e2fsprogs and libblkid judge the file systems: e2fsck, dumpe2fs beside mke2fs, resize2fs, blkid and wipefs."""

from __future__ import annotations

import difflib
import json
import os
import shutil
import struct
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pydiskimg.disks.file import FileDisk
from pydiskimg.fs.ext4.make import make_ext
from pydiskimg.fs.ext4.new_file_system import ExtInfo
from pydiskimg.units import GIB, KIB, MIB, TIB

pytestmark = pytest.mark.oracle

Tool = Callable[[str], str]
ONE = UUID("a3c1f2d4-0b1e-4c55-9a6f-1234567890ab")
NOW = 1700000000
KINDS = ("ext2", "ext3", "ext4")
# Neither mke2fs nor the file system may see the machine's own configuration or clock.
ENVIRONMENT = {"PATH": os.environ["PATH"], "E2FSPROGS_FAKE_TIME": str(NOW), "LC_ALL": "C", "TZ": "UTC"}


def run(*command: str, check: bool = True, given_input: bytes | None = None) -> str:
    done = subprocess.run(command, input=given_input, capture_output=True, check=False, env=ENVIRONMENT)
    assert not check or not done.returncode, f"{command}: {done.stdout.decode()}{done.stderr.decode()}"
    return done.stdout.decode()


@pytest.fixture
def sparse(tmp_path: Path) -> Iterator[Path]:
    """A directory for huge sparse files: in memory where there is one, because disks take long to map them."""
    memory = Path("/dev/shm")
    if not os.access(memory, os.W_OK):
        yield tmp_path
        return
    directory = Path(tempfile.mkdtemp(dir=memory, prefix="pydiskimg-"))
    try:
        yield directory
    finally:
        shutil.rmtree(directory)


@contextmanager
def opened(path: Path, *, reads_as_zero: bool) -> Iterator[FileDisk]:
    fd = os.open(path, os.O_RDWR)
    try:
        yield FileDisk(fd, str(path), reads_as_zero=reads_as_zero)
    finally:
        os.close(fd)


def make(path: Path, size: int, *, fill: bool = False, **options: Any) -> ExtInfo:
    """Make a file system in a new file: sparse, or with fill full of 0xFF."""
    with path.open("wb") as file:
        file.truncate(size)
        if fill:
            for _ in range(0, size, MIB):
                file.write(b"\xff" * min(MIB, size - file.tell()))
    return remake(path, reads_as_zero=not fill, **options)


def remake(path: Path, *, reads_as_zero: bool = False, **options: Any) -> ExtInfo:
    """Make a file system over whatever a file holds."""
    with opened(path, reads_as_zero=reads_as_zero) as disk:
        return make_ext(disk, **options)


def fsck(tool: Tool, path: Path) -> None:
    done = subprocess.run([tool("e2fsck"), "-fn", str(path)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def signatures(tool: Tool, path: Path) -> list[str]:
    found = json.loads(run(tool("wipefs"), "--no-act", "--json", str(path)) or '{"signatures": []}')
    return [entry["type"] for entry in found["signatures"]]


def probed(tool: Tool, path: Path) -> dict[str, str]:
    lines = run(tool("blkid"), "-p", "-o", "export", str(path)).splitlines()
    return dict(line.split("=", 1) for line in lines if "=" in line)


SIZES = (8 * MIB, 8 * MIB + 513, 33 * MIB, 64 * MIB, 500 * MIB + 12345, 512 * MIB, 3 * GIB + 4097, 100 * GIB)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("kind", KINDS)
def test_e2fsck_finds_nothing(kind: str, size: int, sparse: Path, tool: Tool) -> None:
    path = sparse / "disk"
    make(path, size, kind=kind)
    fsck(tool, path)


@pytest.mark.parametrize(
    ("size", "kind", "block_size"),
    [
        (15 * TIB, "ext4", 4096),
        (1 * TIB, "ext4", 4096),
        (1 * TIB, "ext3", 4096),
        (1 * TIB, "ext4", 1024),
        (4 * TIB, "ext4", 2048),
    ],
)
def test_e2fsck_finds_nothing_in_large_ones(size: int, kind: str, block_size: int, sparse: Path, tool: Tool) -> None:
    path = sparse / "disk"
    make(path, size, kind=kind, block_size=block_size)
    fsck(tool, path)


@pytest.mark.parametrize("size", [8 * MIB, 33 * MIB + 777, 130 * MIB])
@pytest.mark.parametrize("block_size", [1024, 2048, 4096])
@pytest.mark.parametrize("kind", KINDS)
def test_over_a_disk_full_of_ones(kind: str, block_size: int, size: int, tmp_path: Path, tool: Tool) -> None:
    path = tmp_path / "disk"
    info = make(path, size, fill=True, kind=kind, block_size=block_size, label="root")
    fsck(tool, path)
    assert signatures(tool, path) == [kind]
    fields = probed(tool, path)
    assert (fields["TYPE"], fields["UUID"], fields["LABEL"]) == (kind, str(info.uuid), "root")


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    size=st.integers(8 * MIB, 256 * MIB) | st.integers(8 * MIB, 64 * GIB),
    kind=st.sampled_from(KINDS),
    block_size=st.sampled_from([None, 1024, 2048, 4096]),
    bytes_per_inode=st.sampled_from([None, None, 1024, 5000, 65536, 1 << 26]),
    reserved_percent=st.sampled_from([0, 5, 0.3, 50]),
)
def test_e2fsck_finds_nothing_whatever_is_asked_for(sparse: Path, tool: Tool, size: int, **options: Any) -> None:
    path = sparse / "disk"
    info = make(path, size, **options)
    fsck(tool, path)
    assert info.size <= size


def dumped(tool: Tool, path: Path) -> list[str]:
    return run(tool("dumpe2fs"), str(path)).splitlines()


def beside_mke2fs(tool: Tool, tmp_path: Path, size: int, kind: str, *options: str, **ours: Any) -> list[str]:
    """Return the lines of dumpe2fs in which ours and that of mke2fs differ, with - and + in front."""
    path, peer = tmp_path / "ours", tmp_path / "theirs"
    make(path, size, kind=kind, uuid=ONE, hash_seed=ONE, now=NOW, **ours)
    with peer.open("wb") as file:
        file.truncate(size)
    features = "^metadata_csum_seed,^orphan_file" if kind == "ext4" else "none"
    command = [tool("mke2fs"), "-F", "-q", "-t", kind, "-U", str(ONE), "-E", f"hash_seed={ONE}", *options]
    if features != "none":
        command += ["-O", features]
    run(*command, str(peer))
    diff = difflib.unified_diff(dumped(tool, peer), dumped(tool, path), lineterm="", n=0)
    return [line for line in diff if not line.startswith(("---", "+++", "@@"))]


# What may differ, and why: mke2fs counts the bytes that it wrote in another way, and the superblock's checksum
# covers that count. From 1.47.1 on it writes the block bitmaps of groups that hold nothing but a copy of the
# superblock, which the kernel can work out (BLOCK_UNINIT).
EXPLAINED = ("Lifetime writes:", "Checksum:")


def unexplained(lines: list[str]) -> list[str]:
    return [line for line in lines if not line[1:].startswith(EXPLAINED)]


@pytest.mark.parametrize(
    "size", [8 * MIB, 40 * MIB, 64 * MIB + 5000, 511 * MIB, 512 * MIB, 700 * MIB, 20 * GIB + 54321, 300 * GIB]
)
@pytest.mark.parametrize("kind", KINDS)
def test_dumpe2fs_sees_what_mke2fs_makes(kind: str, size: int, sparse: Path, tool: Tool) -> None:
    lines = unexplained(beside_mke2fs(tool, sparse, size, kind))
    if has_written_backup_bitmaps(tool):
        lines = [
            line for line in lines if not line.startswith(("-Group", "+Group", "-  Block bitmap", "+  Block bitmap"))
        ]
    assert lines == []


def has_written_backup_bitmaps(tool: Tool) -> bool:
    done = subprocess.run([tool("mke2fs"), "-V"], capture_output=True, text=True, check=False)
    version = done.stderr.split()[1].split(".")
    return tuple(map(int, version)) >= (1, 47, 1)


@pytest.mark.parametrize("block_size", [1024, 2048, 4096])
@pytest.mark.parametrize(("kind", "size"), [("ext4", 2 * GIB + 999), ("ext3", 700 * MIB), ("ext2", 9 * MIB)])
def test_the_same_for_every_block_size(kind: str, size: int, block_size: int, sparse: Path, tool: Tool) -> None:
    header = "Group "
    lines = unexplained(beside_mke2fs(tool, sparse, size, kind, "-b", str(block_size), block_size=block_size))
    if has_written_backup_bitmaps(tool):
        lines = [line for line in lines if not line[1:].startswith((header, "  Block bitmap"))]
    assert lines == []


def test_features_are_the_agreed_ones(sparse: Path, tool: Tool) -> None:
    found = {}
    for kind in KINDS:
        make(sparse / kind, 600 * MIB, kind=kind)
        lines = run(tool("dumpe2fs"), "-h", str(sparse / kind)).splitlines()
        found[kind] = next(line for line in lines if "features" in line).split(":")[1].split()
    base = ["ext_attr", "resize_inode", "dir_index", "filetype", "sparse_super", "large_file"]
    assert sorted(found["ext2"]) == sorted(base)
    assert sorted(found["ext3"]) == sorted([*base, "has_journal"])
    more = ["has_journal", "extent", "64bit", "flex_bg", "huge_file", "dir_nlink", "extra_isize", "metadata_csum"]
    assert sorted(found["ext4"]) == sorted([*base, *more])


@pytest.mark.parametrize("kind", KINDS)
def test_it_can_be_grown(kind: str, sparse: Path, tool: Tool) -> None:
    path = sparse / "disk"
    make(path, 64 * MIB, kind=kind)
    os.truncate(path, GIB)
    run(tool("resize2fs"), str(path))
    fsck(tool, path)
    assert "Block count:              1048576" in dumped(tool, path)
    run(tool("debugfs"), "-w", "-R", "mkdir /after", str(path))
    fsck(tool, path)


@pytest.mark.parametrize("fill", [False, True])
def test_debugfs_reads_the_directories(fill: bool, tmp_path: Path, tool: Tool) -> None:
    path = tmp_path / "disk"
    make(path, 20 * MIB, fill=fill)
    listed = run(tool("debugfs"), "-R", "ls -p /", str(path)).split()
    assert [line.split("/")[1:6] for line in listed] == [
        ["2", "040755", "0", "0", "."],
        ["2", "040755", "0", "0", ".."],
        ["11", "040700", "0", "0", "lost+found"],
    ]


def old_swap(path: Path, tool: Tool) -> None:
    run(tool("mkswap"), str(path))


def old_swap_of_64_kib_pages(path: Path, tool: Tool) -> None:
    run(tool("mkswap"), "--pagesize", "65536", str(path))


def old_btrfs(path: Path, tool: Tool) -> None:
    run(tool("mkfs.btrfs"), "-q", str(path))


def old_xfs(path: Path, tool: Tool) -> None:
    run(tool("mkfs.xfs"), "-q", str(path))


def old_vfat(path: Path, tool: Tool) -> None:
    run(tool("mkfs.vfat"), str(path))


def old_ext4_of_larger_blocks(path: Path, tool: Tool) -> None:
    run(tool("mke2fs"), "-q", "-F", "-t", "ext4", "-b", "4096", str(path))


def old_gpt(path: Path, tool: Tool) -> None:
    run(tool("sfdisk"), "-q", str(path), given_input=b"label: gpt\n,,\n")


def old_mbr(path: Path, tool: Tool) -> None:
    run(tool("sfdisk"), "-q", str(path), given_input=b"label: dos\n,,\n")


def old_luks2(path: Path, tool: Tool) -> None:
    iterations = ("--pbkdf", "pbkdf2", "--pbkdf-force-iterations", "1000")
    run(tool("cryptsetup"), "-q", "luksFormat", "--type", "luks2", *iterations, str(path), "-", given_input=b"secret")


def old_luks2_without_its_first_header(path: Path, tool: Tool) -> None:
    old_luks2(path, tool)
    stamp(path, 0, bytes(4096))


def old_lvm(path: Path, tool: Tool) -> None:
    """The label of a physical volume (LVM2 lib/label, format_text); its checksum is CRC-32 without the last turn."""
    label = struct.pack("<8sQII8s", b"LABELONE", 1, 0, 32, b"LVM2 001") + b"a" * 32 + bytes(512 - 64)
    register = 0xF597A6CF
    for byte in label[20:]:
        register ^= byte
        for _ in range(8):
            register = (register >> 1) ^ (0xEDB88320 if register & 1 else 0)
    stamp(path, 512, label[:16] + struct.pack("<I", register) + label[20:])


def old_md_0_90(path: Path, tool: Tool) -> None:
    """Superblock of Linux RAID 0.90 (Documentation/admin-guide/md.rst, md_p.h): the last whole 64 KiB."""
    size = path.stat().st_size
    header = struct.pack("<IIIIIIIII", 0xA92B4EFC, 0, 90, 0, 0, 0x1234, NOW, 1, 1024).ljust(4096, b"\0")
    stamp(path, size // 65536 * 65536 - 65536, header)


def old_md_1_0(path: Path, tool: Tool) -> None:
    """Superblock of Linux RAID 1.0: 8 KiB from the end."""
    offset = path.stat().st_size // 4096 * 4096 - 8192
    fields = bytearray(256)
    struct.pack_into("<III", fields, 0, 0xA92B4EFC, 1, 0)
    struct.pack_into("<Q", fields, 144, offset // 512)
    total = sum(struct.unpack("<64I", fields))
    struct.pack_into("<I", fields, 216, (total & 0xFFFFFFFF) + (total >> 32))
    stamp(path, offset, bytes(fields))


def old_iso9660(path: Path, tool: Tool) -> None:
    stamp(path, 32 * KIB, b"\x01CD001\x01".ljust(2048, b"\0") + b"\xffCD001\x01")


def old_squashfs(path: Path, tool: Tool) -> None:
    stamp(path, 0, b"hsqs" + bytes(24) + struct.pack("<HH", 4, 0) + bytes(64))


def stamp(path: Path, offset: int, data: bytes) -> None:
    with path.open("r+b") as file:
        file.seek(offset)
        file.write(data)


OLD = (
    old_swap,
    old_swap_of_64_kib_pages,
    old_btrfs,
    old_xfs,
    old_vfat,
    old_ext4_of_larger_blocks,
    old_gpt,
    old_mbr,
    old_luks2,
    old_luks2_without_its_first_header,
    old_lvm,
    old_md_0_90,
    old_md_1_0,
    old_iso9660,
    old_squashfs,
)
SIZE_OF_OLD = 320 * MIB + 37 * KIB  # xfs wants 300 MiB


@pytest.mark.parametrize("old", OLD, ids=lambda old: old.__name__)
@pytest.mark.parametrize("kind", ["ext2", "ext4"])
def test_nothing_of_an_earlier_use_is_seen(
    kind: str, old: Callable[[Path, Tool], None], sparse: Path, tool: Tool
) -> None:
    path = sparse / "disk"
    with path.open("wb") as file:
        file.truncate(SIZE_OF_OLD)
    old(path, tool)
    assert signatures(tool, path), "the signature is one that libblkid knows"
    info = remake(path, kind=kind)
    assert signatures(tool, path) == [kind]
    assert probed(tool, path)["UUID"] == str(info.uuid)
    fsck(tool, path)


def test_a_journal_of_an_earlier_file_system_is_not_replayed(tmp_path: Path, tool: Tool) -> None:
    """The old log held commits for the same blocks; not one of its bytes may be left."""
    path = tmp_path / "disk"
    make(path, 64 * MIB, fill=True, now=NOW)
    listed = run(tool("debugfs"), "-R", "stat <8>", str(path))
    assert "Size: 4194304" in listed
    content = tmp_path / "journal"
    run(tool("debugfs"), "-R", f"dump <8> {content}", str(path))
    data = content.read_bytes()
    assert len(data) == 4 * MIB
    assert not any(data[1024:])
