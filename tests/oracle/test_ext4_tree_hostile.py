# SPDX-License-Identifier: MIT
"""Images of 4 MiB with bytes changed in their metadata: files or one sentence, within time and memory."""

from __future__ import annotations

import os
import random
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from pydiskimg.disks.memory import MemoryDisk
from pydiskimg.errors import DiskImageError
from pydiskimg.fs.ext4 import layout
from pydiskimg.fs.ext4.descriptors import locations, read_descriptors
from pydiskimg.fs.ext4.file_system import NotBelievedError, read_file_system
from pydiskimg.fs.ext4.inodes import read_inode
from pydiskimg.fs.ext4.map_reader import file_pieces, pointers_in
from pydiskimg.fs.ext4.tree import ExtTree, open_ext_tree
from pydiskimg.protocols import read_bytes
from pydiskimg.units import MIB
from tests.fixtures.ext_files import made_ext
from tests.fixtures.limits import assert_sentence, limits
from tests.fixtures.programs import Tool, run

pytestmark = pytest.mark.oracle

SECONDS, MEMORY = 2.0, 256 << 20
KINDS = {
    "extents": "-t ext4 -O ^metadata_csum,inline_data,ea_inode -b 1024 -I 256",
    "pointers": "-t ext3 -b 1024",
    "checksums": "-t ext4 -b 1024",
}
ROUNDS = 15
NASTY = (0, 1, 2, 7, 8, 0x7F, 0x80, 0xFF, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF, 1 << 63)


@pytest.fixture(params=KINDS)
def image(request: pytest.FixtureRequest, tool: Tool, tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """A file system with everything that there is to damage: maps of several levels, hashes, attributes."""
    root = tmp_path_factory.mktemp("files")
    (root / "etc").mkdir()
    for number in range(60):
        (root / "etc" / f"{'long ' * (number % 40)}{number}").write_bytes(b"%d" % number * number)
    (root / "a" / "b" / "c").mkdir(parents=True)
    (root / "a" / "b" / "c" / "up").symlink_to("../../../etc")
    (root / "slow").symlink_to("s" * 100)
    with (root / "pieces").open("wb") as file:
        for number in range(200):
            file.seek(number * 2048 * 3)
            file.write(random.Random(number).randbytes(100))
    (root / "large").write_bytes(random.Random(1).randbytes(300_000))
    path = made_ext(tool, tmp_path_factory.mktemp("image") / "image", KINDS[request.param], 4 * MIB, root)
    value = tmp_path_factory.mktemp("value") / "value"
    value.write_bytes(b"v" * 600)
    commands = f"ea_set large user.small x\nea_set -f {value} pieces user.large\nea_set a user.more yyyy\n"
    run(tool("debugfs"), "-w", "-f", "-", path, given=commands)
    run(tool("e2fsck"), "-fyD", path, expect=(0, 1))
    return path.read_bytes()


def metadata(data: bytes) -> Iterator[tuple[int, int]]:
    """Yield (start, length) of what describes files: superblock, descriptors, inodes, maps, directories, attributes."""
    disk = MemoryDisk(0)
    disk.data = bytearray(data)
    fs = read_file_system(disk)
    size = fs.geometry.block_size
    yield 1024, 1024
    yield fs.geometry.descriptor_block(0) * size, 64
    for descriptor in read_descriptors(fs):
        _, _, (_, table, _) = locations(fs.geometry, descriptor)
        yield table * size, 40 * fs.geometry.inode_size
    for number in (layout.ROOT_INODE, *range(layout.FIRST_INODE, fs.geometry.inodes)):
        try:
            inode = read_inode(fs, number)
        except NotBelievedError:  # one that is free has no checksum
            continue
        if number > layout.FIRST_INODE and inode.flags & layout.EXTENTS_FLAG and inode.i_block[6]:
            yield int.from_bytes(inode.i_block[16:20], "little") * size, size  # the first node below the root
        if inode.kind == layout.REGULAR_FILE and not inode.flags & layout.EXTENTS_FLAG:
            yield from ((block * size, size) for block in pointers_in(inode.i_block)[layout.DIRECT_BLOCKS :] if block)
        if inode.kind == layout.DIRECTORY and not inode.flags & layout.INLINE_DATA_FLAG:
            yield from ((at * size, count * size) for _, at, count in file_pieces(fs, inode))
        if inode.xattr_block:
            yield inode.xattr_block * size, size
    journal = next(file_pieces(fs, read_inode(fs, layout.JOURNAL_INODE)))[1]
    yield journal * size, 4 * size


def look_at_everything(disk: MemoryDisk) -> None:
    """Read all that the tree can give; what cannot be read is said in a sentence."""
    try:
        tree = open_ext_tree(disk)
    except DiskImageError as error:
        assert_sentence(str(error))
        return
    try:
        for path, status in tree.walk():
            look_at(tree, path, status)
    except DiskImageError as error:
        assert_sentence(str(error))
    for path in ("/a/b/c/up/40", "/etc/../slow", "/pieces", "/large"):
        try:
            look_at(tree, path, tree.stat(path))
        except DiskImageError as error:
            assert_sentence(str(error))


def look_at(tree: ExtTree, path: str, status: os.stat_result) -> None:
    try:
        tree.attributes(path, follow_symlinks=False)
        if stat.S_ISLNK(status.st_mode):
            tree.readlink(path)
        elif stat.S_ISREG(status.st_mode):
            source = tree.open(path)
            with tree.errors(path):
                for extent in source.extents():
                    assert 0 <= extent.start < extent.end <= source.size
                    read_bytes(source, extent.start, min(extent.length, MIB))
    except DiskImageError as error:
        assert_sentence(str(error))


def test_damaged_metadata(image: bytes) -> None:
    rng = random.Random(int(os.environ.get("PYDISKIMG_TEST_SEED", "1")))
    places = list(metadata(image))
    disk = MemoryDisk(0, name="disk")
    for _ in range(ROUNDS):
        disk.data = bytearray(image)
        for _ in range(rng.choice((1, 1, 2, 5))):
            start, length = rng.choice(places)
            width = rng.choice((1, 2, 4, 8))
            at = start + rng.randrange(max(1, length // width)) * width
            value = rng.choice(NASTY) if rng.random() < 0.5 else rng.getrandbits(64)
            disk.data[at : at + width] = (value & (1 << 8 * width) - 1).to_bytes(width, "little")
        with limits(SECONDS, MEMORY):
            look_at_everything(disk)


def test_the_sound_image_is_read(image: bytes) -> None:
    disk = MemoryDisk(0, name="disk")
    disk.data = bytearray(image)
    tree = open_ext_tree(disk)
    assert len(list(tree.walk())) == 60 + 8 + 1  # and /lost+found
    assert tree.read("/a/b/c/up/40") == b"40" * 40
    assert tree.attribute("/pieces", "user.large") == b"v" * 600


@pytest.mark.parametrize(
    ("commands", "before", "after", "text"),
    [
        ("mkdir a\nmkdir a/b\nln a a/b/back\n", b"", b"", "/a/b/back: .* the directory of inode 12 has two names"),
        ("write /etc/passwd odd-name\n", b"odd-name", b"odd/name", "the name 'odd/name', which no file can have"),
        ("write /etc/passwd odd-name\n", b"odd-name", b"odd\0name", "which no file can have"),
        (
            "write /etc/passwd odd-name\nset_inode_field odd-name size 0x8000000000000000\n",
            b"",
            b"",
            "more than a file",
        ),
        ("write /etc/passwd odd-name\nset_inode_field odd-name mode 0\n", b"", b"", "its mode is 0o0"),
        ("write /etc/passwd odd-name\nmkdir b\n", b"\x08\x01odd-name", b"\xff\x01odd-name", "a name of 255"),
        ("symlink odd-name target\nset_inode_field odd-name size 0\n", b"", b"", "a symlink of 0 bytes"),
        (
            "symlink odd-name target\nset_inode_field odd-name size 0x40000000\n",
            b"",
            b"",
            "of 1073741824 bytes",
        ),
        ("mkdir a\nset_inode_field a size 0x400000000000\n", b"", b"", "of the 68719476736 blocks of its directory"),
        ("mkdir a\nset_inode_field a size 1000\n", b"", b"", "a directory of 1000 bytes"),
    ],
)
def test_structures_that_cannot_be(
    tool: Tool, tmp_path: Path, commands: str, before: bytes, after: bytes, text: str
) -> None:
    path = made_ext(tool, tmp_path / "image", "-t ext4 -b 1024 -O ^metadata_csum,^has_journal", 4 * MIB)
    run(tool("debugfs"), "-w", "-f", "-", path, given=commands)
    disk = MemoryDisk(0, name="disk")
    disk.data = bytearray(path.read_bytes())
    if before:
        at = disk.data.index(before)
        disk.data[at : at + len(after)] = after
    tree = open_ext_tree(disk)
    with limits(SECONDS, MEMORY), pytest.raises(DiskImageError, match=text) as caught:
        read_all(tree)
    assert_sentence(str(caught.value))


def read_all(tree: ExtTree) -> None:
    for path, status in tree.walk():
        if stat.S_ISREG(status.st_mode):
            tree.read(path)
        elif stat.S_ISLNK(status.st_mode):
            tree.readlink(path)


def test_an_entry_for_an_inode_beyond_the_end(tool: Tool, tmp_path: Path) -> None:
    path = made_ext(tool, tmp_path / "image", "-t ext4 -b 1024 -O ^metadata_csum,^has_journal", 4 * MIB)
    run(tool("debugfs"), "-w", "-f", "-", path, given="write /etc/passwd odd-name\n")
    disk = MemoryDisk(0, name="disk")
    disk.data = bytearray(path.read_bytes())
    at = disk.data.index(b"odd-name") - 8
    disk.data[at : at + 4] = (1025).to_bytes(4, "little")
    with pytest.raises(DiskImageError, match=r"/odd-name: .* there is no inode 1025; the last one is 1024"):
        open_ext_tree(disk).stat("/odd-name")


def test_a_path_follows_forty_symlinks_and_no_more(tool: Tool, tmp_path: Path) -> None:
    path = made_ext(tool, tmp_path / "image", "-t ext4", 4 * MIB)
    commands = "write /etc/passwd 0\n" + "".join(f"symlink {number} {number - 1}\n" for number in range(1, 42))
    run(tool("debugfs"), "-w", "-f", "-", path, given=commands)
    disk = MemoryDisk(0, name="disk")
    disk.data = bytearray(path.read_bytes())
    tree = open_ext_tree(disk)
    assert tree.exists("/40")
    assert not tree.exists("/41")
    assert tree.readlink("/41") == "40"
