# SPDX-License-Identifier: MIT
"""GNU tar and bsdtar judge what is packed: what they unpack of it is the tree it was made of, and so is what we do."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from pydiskimg import open_tree, populate
from pydiskimg.disks.memory import MemoryDisk
from pydiskimg.files.directory import DirectoryReader
from pydiskimg.files.tar import extract, write_archive
from pydiskimg.fs.ext4.tree.entries import TreeEntries
from pydiskimg.units import MIB
from tests.archive_trees import differences, odd_tree, sparse_tree
from tests.fixtures.programs import Tool, run

pytestmark = pytest.mark.oracle

GNU = ("--numeric-owner", "--xattrs", "--xattrs-include=*", "--acls")


def attributes_tree(root: Path) -> None:
    root.mkdir()
    for index, value in enumerate((b"", b"\0binary\n=", b"v" * 500)):
        (root / f"{index}").write_text("file")
        os.setxattr(root / f"{index}", b"user.a=b%c" if index else b"user.plain", value)


@pytest.mark.parametrize("make", [odd_tree, sparse_tree, attributes_tree])
def test_they_unpack_the_same_tree(make: Callable[[Path], None], tool: Tool, tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    if make is odd_tree:
        tree.mkdir()
    make(tree)
    archive, disk = tmp_path / "a.tar", MemoryDisk(512 * MIB, name="disk")
    populate(disk, DirectoryReader(os.fsencode(tree), prefix=b".").entries())
    with open_tree(disk) as files, archive.open("wb") as file:  # the holes are known before the contents are read
        entries = TreeEntries(files, "/", b".").entries()
        write_archive((entry for entry in entries if entry.path != b"./lost+found"), file.fileno(), "archive")
    unpacked = {name: tmp_path / name for name in ("tar", "bsdtar", "ours")}
    for path in unpacked.values():
        path.mkdir()
    run(tool("tar"), "-xpf", archive, *GNU, "-C", unpacked["tar"])
    run(tool("bsdtar"), "-xpf", archive, "--numeric-owner", "-C", unpacked["bsdtar"])
    extract(archive, str(unpacked["ours"]))
    assert differences(unpacked["ours"], tree) == []
    assert differences(unpacked["tar"], tree) == []
    if make is sparse_tree:  # bsdtar keeps names of attributes encoded, and not the times of "."
        assert [found for found in differences(unpacked["bsdtar"], tree) if not found.startswith("b''")] == []
