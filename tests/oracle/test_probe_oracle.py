# SPDX-License-Identifier: MIT
"""probe() compared with blkid, on file systems that their own mkfs programs made."""

from __future__ import annotations

import mmap
import random
import re
import subprocess
import zlib
from collections.abc import Callable
from pathlib import Path

import pytest

from pydiskimg.disks.memory import MemoryDisk
from pydiskimg.errors import FileSystemError
from pydiskimg.fs.probe import FileSystemKind, probe

pytestmark = pytest.mark.oracle
Tool = Callable[[str], str]

MIB = 1 << 20
KEY = "/proc/sys/kernel/ostype"  # any readable file of a few bytes will do as a key
LUKS = f"cryptsetup luksFormat -q --pbkdf pbkdf2 --pbkdf-force-iterations 1000 --key-file {KEY}"
MAKERS = [
    ("mkfs.ext2 -q -L root", 10),
    ("mkfs.ext2 -q -O ^filetype,^sparse_super,^resize_inode", 10),
    ("mkfs.ext3 -q -L -", 20),
    ("mkfs.ext4 -q -L räksmörgås", 20),
    ("mkfs.ext4 -q -b 4096 -O ^has_journal", 20),
    ("mkfs.ext4 -q -O ^metadata_csum,^64bit", 20),
    ("mkfs.ext4 -q -O journal_dev", 20),
    ("mkfs.xfs -q -L root", 320),
    ("mkfs.xfs -q -m crc=0", 320),
    ("mkfs.xfs -q -s size=4096 -b size=4096", 320),
    ("mkfs.btrfs -q -L root", 120),
    ("mkfs.btrfs -q --csum sha256", 120),
    ("mkfs.btrfs -q --mixed", 40),
    ("mkswap -L swap", 10),
    ("mkswap -p 8192 -L swap", 10),
    ("mkswap -p 65536", 10),
    ("mkswap -U clear", 10),
    ("mkfs.vfat -F 12 -n EFI", 2),
    ("mkfs.vfat -F 16", 20),
    ("mkfs.vfat -F 16 --mbr=y -n MBR", 20),
    ("mkfs.vfat -F 32 -n LONGERNAME", 80),
    ("mkfs.vfat -F 32 -S 4096 -n BIG", 400),
    ("mkfs.vfat -i 00000000", 10),
    (f"{LUKS} --type luks1", 20),
    (f"{LUKS} --type luks2 --label secret", 20),
]


class MappedFile:
    """A Source over a file: enough of one for probe()."""

    def __init__(self, path: Path) -> None:
        self.name = str(path)
        with path.open("r+b") as file:
            self.map = mmap.mmap(file.fileno(), 0)
        self.size = len(self.map)

    def read_into(self, offset: int, buffer: bytearray | memoryview) -> None:
        assert offset >= 0
        assert offset + len(buffer) <= self.size
        buffer[:] = self.map[offset : offset + len(buffer)]

    extents = None


def ours(path: Path) -> FileSystemKind | None:
    source = MappedFile(path)
    try:
        return probe(source)  # type: ignore[arg-type]  # extents() is not used
    finally:
        source.map.close()


def blkid(tool: Tool, path: Path) -> FileSystemKind | None:
    """What blkid says; a type that probe() does not know counts as nothing."""
    done = subprocess.run([tool("blkid"), "-p", "-o", "udev", path], capture_output=True, check=False, text=True)
    fields = dict(line.split("=", 1) for line in done.stdout.splitlines() if "=" in line)
    if fields.get("ID_FS_AMBIVALENT"):
        raise FileSystemError(fields["ID_FS_AMBIVALENT"])
    if fields.get("ID_FS_TYPE") in (None, "jbd"):
        return None
    return FileSystemKind(fields["ID_FS_TYPE"], fields.get("ID_FS_UUID"), fields.get("ID_FS_LABEL_ENC"))


def made(tool: Tool, directory: Path, maker: str, size_mib: int) -> Path:
    path = directory / "image"
    with path.open("wb") as file:
        file.truncate(size_mib * MIB)
    program, *arguments = maker.split()
    subprocess.run([tool(program), *arguments, path], check=True, capture_output=True)
    return path


@pytest.mark.parametrize(("maker", "size_mib"), MAKERS)
def test_blkid_agrees(tool: Tool, tmp_path: Path, maker: str, size_mib: int) -> None:
    path = made(tool, tmp_path, maker, size_mib)
    found = ours(path)
    assert found == blkid(tool, path)
    assert (found is None) == ("journal_dev" in maker)


def lvm_label(sector: int, uuid: bytes) -> bytes:
    """A physical volume's label sector, by the layout that LVM2 documents; blkid judges it."""
    body = (32).to_bytes(4, "little") + b"LVM2 001" + uuid + bytes(512 - 32 - len(uuid))
    crc = zlib.crc32(body, 0xF597A6CF ^ 0xFFFFFFFF) ^ 0xFFFFFFFF
    return b"LABELONE" + sector.to_bytes(8, "little") + crc.to_bytes(4, "little") + body


@pytest.mark.parametrize("sector", [0, 1, 2, 3, 4])
def test_lvm_label_in_the_first_four_sectors(tool: Tool, tmp_path: Path, sector: int) -> None:
    disk = MemoryDisk(4 * MIB)
    disk.write(sector * 512, lvm_label(sector, b"abcdef0123456789ABCDEFghijklmnop"))
    path = tmp_path / "image"
    path.write_bytes(disk.data)
    assert ours(path) == blkid(tool, path)
    assert (ours(path) is None) == (sector == 4)


@pytest.mark.root
def test_physical_volume(tool: Tool, tmp_path: Path) -> None:
    from pydiskimg.host.loop import loop_device

    path = tmp_path / "image"
    with path.open("wb") as file:
        file.truncate(10 * MIB)
    with loop_device(path) as device:
        command = [tool("pvcreate"), "-qq", "--config", "devices/use_devicesfile=0", device.path]
        subprocess.run(command, check=True, capture_output=True)
    found = ours(path)
    assert found is not None
    assert found == blkid(tool, path)
    assert found.type == "LVM2_member"


@pytest.mark.parametrize(
    "label", ["two words", "back\\slash", "quo'te\"", "slash/", "%n$(x)", "new\nline", "\x1b[31m", "ÿ"]
)
def test_strange_labels_are_told_safely(tool: Tool, tmp_path: Path, label: str) -> None:
    path = tmp_path / "image"
    with path.open("wb") as file:
        file.truncate(10 * MIB)
    subprocess.run([tool("mkfs.ext2"), "-q", "-L", label, path], check=True)
    found, judged = ours(path), blkid(tool, path)
    assert found is not None
    assert found.label is not None
    assert judged is not None
    assert found.label.isprintable()
    # blkid escapes more characters than we do, in the same way.
    assert unescaped(found.label) == unescaped(judged.label or "") == label.encode()


def unescaped(text: str) -> bytes:
    return re.sub(rb"\\x([0-9a-f]{2})", lambda match: bytes.fromhex(match[1].decode()), text.encode())


def patched(path: Path, offset: int, data: bytes) -> None:
    with path.open("r+b") as file:
        file.seek(offset)
        file.write(data)


SWAP_OF_4K_PAGES = [(1024, b"\1\0\0\0\xff\0\0\0"), (4096 - 10, b"SWAPSPACE2")]


@pytest.mark.parametrize("maker", ["mkfs.vfat -F 16 -n LABEL", "mkfs.vfat -F 32 -n LABEL", "mkfs.xfs -q -m crc=0"])
@pytest.mark.parametrize("second", ["ext2", "swap"])
def test_two_signatures_are_refused_as_blkid_does(tool: Tool, tmp_path: Path, maker: str, second: str) -> None:
    path = made(tool, tmp_path, maker, 320)
    patches = SWAP_OF_4K_PAGES
    if second == "ext2":
        (tmp_path / "other").mkdir()
        other = made(tool, tmp_path / "other", "mkfs.ext2 -q", 320).read_bytes()
        patches = [(1024, other[1024:2048])]
    for offset, data in patches:
        patched(path, offset, data)
    assert verdict(ours, path) == "ambiguous"
    assert verdict(lambda name: blkid(tool, name), path) in ("ambiguous", None)  # None: since 2.41, without a word


@pytest.mark.parametrize(
    ("maker", "size_mib", "places"),
    [
        ("mkfs.ext3 -q", 10, range(1072, 1400)),  # before that, versions of blkid differ in what they find plausible
        ("mkfs.vfat -F 12 -n LABEL", 2, range(62)),
        ("mkfs.vfat -F 16 -n LABEL", 20, range(62)),
        ("mkfs.vfat -F 32 -n LABEL", 40, range(90)),
        ("mkfs.xfs -q -m crc=0", 320, range(128)),
        ("mkswap -L swap", 1, range(1024, 1300)),
    ],
)
def test_blkid_agrees_on_damaged_ones(tool: Tool, tmp_path: Path, maker: str, size_mib: int, places: range) -> None:
    path = made(tool, tmp_path, maker, size_mib)
    rng = random.Random(maker)
    with path.open("r+b", buffering=0) as file:
        for _ in range(60):
            at, value = rng.choice(places), rng.choice([0, 1, 2, 8, 0x29, 0x7F, 0x80, 0xF0, 0xFF])
            file.seek(at)
            (old,) = file.read(1)
            file.seek(at)
            file.write(bytes([value]))
            assert verdict(ours, path) == verdict(lambda name: blkid(tool, name), path), f"byte {at} = {value}"
            file.seek(at)
            file.write(bytes([old]))


def verdict(judge: Callable[[Path], FileSystemKind | None], path: Path) -> object:
    try:
        return judge(path)
    except FileSystemError:
        return "ambiguous"
