# SPDX-License-Identifier: MIT
"""Images of 4 MiB with bytes changed in their metadata: files or one sentence, within time and memory."""

from __future__ import annotations

import os
import random
import stat
from pathlib import Path

import pytest

from pydiskimg.disks.memory import MemoryDisk
from pydiskimg.errors import DiskImageError
from pydiskimg.fs.ext4.check import check_ext
from pydiskimg.fs.ext4.tree import ExtTree, open_ext_tree
from pydiskimg.units import MIB
from tests.fixtures.ext_damage import damaged, full_of_metadata, metadata
from tests.fixtures.ext_files import made_ext
from tests.fixtures.hostile_reading import look_at_everything
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


@pytest.fixture(params=KINDS)
def image(request: pytest.FixtureRequest, tool: Tool, tmp_path_factory: pytest.TempPathFactory) -> bytes:
    return full_of_metadata(tool, tmp_path_factory.mktemp("image"), KINDS[request.param])


def test_damaged_metadata(image: bytes) -> None:
    rng = random.Random(int(os.environ.get("PYDISKIMG_TEST_SEED", "1")))
    places = list(metadata(image))
    disk = MemoryDisk(0, name="disk")
    for _ in range(ROUNDS):
        disk.data = damaged(image, places, rng)
        with limits(SECONDS, MEMORY):
            look_at_everything(disk)
            check_ext(disk)


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
        (
            "write /etc/passwd odd-name\n",
            b"odd-name",
            b"odd/name",
            "the name 'odd/name', which is not a valid file name",
        ),
        ("write /etc/passwd odd-name\n", b"odd-name", b"odd\0name", "which is not a valid file name"),
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


def test_a_map_whose_blocks_are_their_own_pointers_ends(tool: Tool, tmp_path: Path) -> None:
    """Three levels of 256 pointers that all name one block would be 16 million blocks to look at."""
    path = made_ext(tool, tmp_path / "image", "-t ext3 -b 1024", 64 * MIB)
    commands = "write /dev/null file\nset_inode_field file size 0x100000000\nset_inode_field file block[TIND] 9000\n"
    run(tool("debugfs"), "-w", "-f", "-", path, given=commands)
    disk = MemoryDisk(0, name="disk")
    disk.data = bytearray(path.read_bytes())
    disk.data[9000 * 1024 : 9001 * 1024] = (9000).to_bytes(4, "little") * 256
    with limits(0.5, MEMORY), pytest.raises(DiskImageError, match="its map has block 9000 twice"):
        list(open_ext_tree(disk).open("/file").extents())


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
