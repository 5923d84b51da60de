# SPDX-License-Identifier: MIT
"""e2fsck and debugfs judge file systems filled from entries, and what is read from them is compared with a model.

e2fsck alone would pass one that has lost every attribute.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from pydiskimg.fs.ext4.populate.populate import populate
from pydiskimg.fs.ext4.tree import open_ext_tree
from pydiskimg.images.create import new_image
from pydiskimg.images.open import open_image
from pydiskimg.images.open_disk import open_disk
from pydiskimg.regions.region import Region
from pydiskimg.units import KIB, MIB
from tests.fixtures.ext_files import sized
from tests.fixtures.made_entries import FIXED, everything, filled_file, folder, hard_link, regular, sparse, symlink
from tests.fixtures.programs import Tool, run

pytestmark = pytest.mark.oracle
KINDS = ("ext2", "ext3", "ext4")


def checked(tool: Tool, path: Path) -> None:
    run(tool("e2fsck"), "-fn", path)


def asked(tool: Tool, path: Path, *requests: str) -> str:
    """Return what debugfs says to requests."""
    return run(tool("debugfs"), "-f", "-", path, given="".join(f"{request}\n" for request in requests))


@pytest.mark.parametrize("block_size", [1024, 2048, 4096])
@pytest.mark.parametrize("kind", KINDS)
def test_everything(kind: str, block_size: int, tmp_path: Path, tool: Tool) -> None:
    path = tmp_path / "disk"
    filled_file(path, 32 * MIB, everything(), kind=kind, block_size=block_size)
    checked(tool, path)
    said = asked(tool, path, "ea_list /noted", "stat /old-device", "stat /new-device", "stat /short", "ls -l /")
    assert "security.capability" in said
    assert "user.empty" in said
    assert "(New-style) Device major/minor number: 259:70000" in said
    assert "Device major/minor number: 04:64" in said
    assert 'Fast link dest: "etc"' in said
    assert "lost+found" in said


@pytest.mark.parametrize("block_size", [1024, 4096])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("count", [1, 100, 3000])
def test_directories_of_many_names(kind: str, count: int, block_size: int, tmp_path: Path, tool: Tool) -> None:
    path = tmp_path / "disk"
    names = [f"name-{number:05}-".encode() + bytes([0xE0 + number % 20]) * (number % 240) for number in range(count)]
    entries = [folder("d"), regular("d/first"), *(hard_link(b"d/" + name, "d/first") for name in names)]
    filled_file(path, 32 * MIB, entries, kind=kind, block_size=block_size)
    checked(tool, path)
    said = asked(tool, path, "stat /d", "htree /d")
    assert ("Flags: 0x81000" in said or "Flags: 0x1000" in said) == (count > 10)
    assert f"name-{count - 1:05}-" in asked(tool, path, "ls /d")
    if count == 3000 and block_size == 1024:
        assert "Indirect levels: 1" in said


@pytest.mark.parametrize("kind", ["ext3", "ext4"])
def test_sizes_around_the_limits_of_maps(kind: str, tmp_path: Path, tool: Tool) -> None:
    path = tmp_path / "disk"
    limits = [KIB * count for count in (1, 12, 12 + 256, 12 + 256 + 256, 12 + 256 + 65536)]
    sizes = sorted({0, 1, *(limit + more for limit in limits for more in (-1, 0, 1))})
    whole = [regular(f"whole-{size}", b"x" * size) for size in sizes if size < MIB]
    ends = [sparse(f"end-{size}", size, [(size - 1, b"x")]) for size in sizes if size]
    many = [
        sparse(f"many-{count}", count * 2048, [(n * 2048, b"x" * 9) for n in range(count)])
        for count in (4, 5, 84, 85, 341, 2000)
    ]
    filled_file(path, 64 * MIB, [*whole, *ends, *many], kind=kind, block_size=1024)
    checked(tool, path)
    with open_disk(path) as disk, open_ext_tree(disk) as tree:
        for size in sizes:
            assert tree.stat(f"/end-{size}").st_size == size if size else True
            assert size >= MIB or tree.read(f"/whole-{size}") == b"x" * size


def test_more_subdirectories_than_are_counted(tmp_path: Path, tool: Tool) -> None:
    path = tmp_path / "disk"
    filled_file(
        path, 160 * MIB, (folder(f"d/{number}") for number in range(70_000)), block_size=1024, bytes_per_inode=1024
    )
    checked(tool, path)
    assert "Links: 1 " in asked(tool, path, "stat /d")


@pytest.mark.parametrize("kind", ["ext2", "ext4"])
def test_a_disk_that_held_something_else(kind: str, tmp_path: Path, tool: Tool) -> None:
    path = tmp_path / "disk"
    path.write_bytes(b"\xa5" * 40 * MIB)
    with open_disk(path, writable=True) as disk:
        populate(Region(disk, MIB, 38 * MIB), everything(), **FIXED, kind=kind)
        data = path.read_bytes()
    assert data[:MIB] == data[39 * MIB :] == b"\xa5" * MIB
    (tmp_path / "partition").write_bytes(data[MIB : 39 * MIB])
    checked(tool, tmp_path / "partition")


def test_a_qcow2_is_filled_in_one_pass(tmp_path: Path, tool: Tool) -> None:
    with new_image(tmp_path / "disk.qcow2", 64 * MIB, format="qcow2") as disk:
        populate(disk, everything(), **FIXED)
    with new_image(tmp_path / "disk.raw", 64 * MIB, format="raw") as disk:
        populate(disk, everything(), **FIXED)
    run(tool("qemu-img"), "compare", tmp_path / "disk.qcow2", tmp_path / "disk.raw")
    with open_image(tmp_path / "disk.qcow2") as image, open_ext_tree(image) as tree:
        assert tree.read("/etc/through") == b"a parent that is a symlink"


@pytest.mark.parametrize("kind", KINDS)
def test_blocks_of_replaced_files_are_used_again(kind: str, tmp_path: Path, tool: Tool) -> None:
    path = tmp_path / "disk"
    size = 3 * MIB
    # Every second block: the map has blocks of its own, and what is free is in many pieces.
    pieces = [(at, bytes([at >> 10 & 0xFF]) * KIB) for at in range(0, size, 2 * KIB)]
    entries = [
        one
        for number in range(16)
        for one in (
            sparse("file", size, pieces, xattrs={b"user.large": bytes(500)}),
            regular(f"kept-{number}", bytes([number]) * 9000),
            symlink("link", f"{number}" * 200),
        )
    ]
    filled_file(path, 8 * MIB, entries, kind=kind, block_size=1024)
    checked(tool, path)
    with open_disk(path) as disk, open_ext_tree(disk) as tree:
        assert all(tree.read(f"/kept-{number}") == bytes([number]) * 9000 for number in range(16))
        data = tree.read("/file", limit=4 * MIB)
        assert tree.attributes("/file") == {"user.large": bytes(500)}
    assert all(data[at : at + KIB] == piece for at, piece in pieces)


def test_all_blocks_and_inodes_in_use(tmp_path: Path, tool: Tool) -> None:
    path = tmp_path / "disk"
    with open_disk(sized(path, 8 * MIB), writable=True) as disk:
        empty = populate(disk, [], **FIXED).file_system
    left = empty.free_blocks - 1  # of the root directory's blocks
    filled_file(path, 8 * MIB, [regular("file", b"x" * (left - 2) * KIB)])
    checked(tool, path)
    filled_file(path, 8 * MIB, (regular(f"{number}") for number in range(empty.inodes - 11)), reserved_percent=0)
    checked(tool, path)
