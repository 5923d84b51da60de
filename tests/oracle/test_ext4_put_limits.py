# SPDX-License-Identifier: MIT
"""Entries put where a file or a directory has as many links as Linux allows, 65,000."""

from __future__ import annotations

from pathlib import Path

import pytest

from pydiskimg.disks.memory import MemoryDisk
from pydiskimg.errors import DiskImageError
from pydiskimg.fs.ext4.change.tree import open_changed_tree
from pydiskimg.fs.ext4.tree import open_ext_tree
from pydiskimg.units import MIB
from tests.fixtures.ext_files import made_ext
from tests.fixtures.made_entries import folder, hard_link, regular
from tests.fixtures.programs import Tool, run

pytestmark = pytest.mark.oracle

MOST = 65000


def image(tool: Tool, tmp_path: Path, options: str, links: int) -> MemoryDisk:
    """Return a file system with a file and a directory whose link counts are that high."""
    path = made_ext(tool, tmp_path / "image", options, 4 * MIB)
    commands = f"write /dev/null file\nmkdir d\nset_inode_field file links_count {links}\n"
    run(tool("debugfs"), "-w", "-f", "-", path, given=commands + f"set_inode_field d links_count {links}\n")
    disk = MemoryDisk(0, name="disk")
    disk.data = bytearray(path.read_bytes())
    return disk


def links_of(disk: MemoryDisk, path: str) -> int:
    with open_ext_tree(disk) as tree:
        return tree.stat(path).st_nlink


def test_a_file_has_at_most_65000_names(tool: Tool, tmp_path: Path) -> None:
    disk = image(tool, tmp_path, "-t ext4 -b 1024", MOST - 1)
    with open_changed_tree(disk) as tree:
        tree.put([regular("new", b"1"), hard_link("d/one", "file")], "/")
        with pytest.raises(DiskImageError, match=r"d/two.*already has 65000 names"):
            tree.put([hard_link("d/two", "file")], "/")
        assert tree.list("/d") == ["one"]
    assert links_of(disk, "/file") == MOST


def test_a_directory_beyond_65000_links_counts_no_more(tool: Tool, tmp_path: Path) -> None:
    disk = image(tool, tmp_path, "-t ext4 -b 1024", MOST - 1)
    with open_changed_tree(disk) as tree:
        tree.put([folder("d/a")], "/")
        assert links_of(disk, "/d") == 1
        tree.put([folder("d/b"), folder("d/c")], "/")
        tree.remove_tree("/d/a")
    assert links_of(disk, "/d") == 1


def test_without_dir_nlink_a_directory_has_at_most_65000_links(tool: Tool, tmp_path: Path) -> None:
    disk = image(tool, tmp_path, "-t ext4 -b 1024 -O ^dir_nlink", MOST - 2)
    with open_changed_tree(disk) as tree:
        tree.put([folder("d/a")], "/")
        with pytest.raises(DiskImageError, match="d/b: would be one subdirectory more than possible there"):
            tree.put([folder("d/b")], "/")
        assert tree.list("/d") == ["a"]
    assert links_of(disk, "/d") == MOST - 1
