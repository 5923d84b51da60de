# SPDX-License-Identifier: MIT
"""The text of every error is one line that can be printed, whatever the names in it are."""

from __future__ import annotations

import errno
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from pydiskimg import open_disk, open_image, open_tar, open_tree
from pydiskimg.errors import DiskImageError, InvalidImageError, StorageError, closed_error, storage_error
from pydiskimg.files.mounted_tree import open_mounted_tree
from pydiskimg.files.tree import ReadableTree, Tree
from pydiskimg.files.writer import Wording, open_writer
from pydiskimg.fs.ext4.change.joined import JoinedTree
from pydiskimg.fs.ext4.change.tree import ChangedTree, open_changed_tree
from pydiskimg.fs.ext4.tree import open_ext_tree
from pydiskimg.fs.ext4.tree.entries import TreeEntries
from pydiskimg.units import MIB
from tests.fixtures.made_entries import filled, folder, regular

ODD = "no\0\n\x1b[2J\u202e\udcff"
READ: list[Callable[[ReadableTree, str], object]] = [
    lambda tree, path: tree.read(path),
    lambda tree, path: tree.readlink(path),
    lambda tree, path: tree.attribute(path, "user.x"),
    lambda tree, path: tree.stat(path),
    lambda tree, path: tree.stat(path, follow_symlinks=False),
    lambda tree, path: tree.list(path),
    lambda tree, path: [*tree.walk(path)],
]
CHANGED: list[Callable[[Tree, str], object]] = [
    lambda tree, path: tree.write(path, b""),
    lambda tree, path: tree.replace(path, b""),
    lambda tree, path: tree.write_files(path, [("a", b"")]),
    lambda tree, path: tree.make_directory(path),
    lambda tree, path: tree.symlink(path, "target"),
    lambda tree, path: tree.remove(path),
]
EXT: list[Callable[[ChangedTree, str], object]] = [
    lambda tree, path: tree.open(path),
    lambda tree, path: tree.put([regular("a")], path),
    lambda tree, path: tree.make_node(path, 0o10644),
    lambda tree, path: tree.remove_directory(path),
    lambda tree, path: tree.remove_tree(path),
    lambda tree, path: tree.rename(path, "/to"),
    lambda tree, path: tree.link(path, "/to"),
    lambda tree, path: tree.link("/file", path),
    lambda tree, path: tree.append(path, b""),
    lambda tree, path: tree.truncate(path, 1),
    lambda tree, path: tree.chmod(path, 0o600),
    lambda tree, path: tree.chown(path, 1, 1),
    lambda tree, path: tree.utime(path, atime_ns=1, mtime_ns=1),
    lambda tree, path: tree.set_attribute(path, "user.x", b""),
    lambda tree, path: tree.remove_attribute(path, "user.x"),
    lambda tree, path: [*TreeEntries(tree, path).entries()],
]
FILES: list[Callable[[str], object]] = [
    open_image,
    open_disk,
    lambda path: open_disk(path, writable=True),
    open_tree,
    lambda path: open_writer(path, Wording("name")).__enter__(),
    lambda path: open_tar(path).__enter__(),
    lambda path: open_mounted_tree(path, name=path).__enter__(),
]


@pytest.fixture
def changed() -> Iterator[ChangedTree]:
    with open_changed_tree(filled([folder("etc"), regular("file")], size=8 * MIB)) as tree:
        yield tree


def paths() -> Iterator[str]:
    """Yield paths to what is not there, within a file, and of a name that no file has."""
    for name in (ODD, ODD.replace("\0", "")):
        yield from (f"/{name}/below", f"/file/{name}", f"/etc/{name}{'x' * 256}")


def refused(call: Callable[[], object]) -> None:
    with pytest.raises(DiskImageError) as caught:
        call()
    text = str(caught.value)
    assert text.isprintable(), text
    assert r"no\n\x1b[2J\u202e\xff" in text.replace(r"\x00", ""), text


def test_of_a_tree_that_is_read(changed: ChangedTree, tmp_path: Path) -> None:
    (tmp_path / "etc").mkdir()
    (tmp_path / "file").touch()
    with open_ext_tree(filled([folder("etc"), regular("file")], size=8 * MIB)) as read:
        for call in READ:
            for path in paths():
                refused(lambda call=call, path=path: call(read, path))  # type: ignore[misc] # bound now
                refused(lambda call=call, path=path: call(changed, path))  # type: ignore[misc]
    with open_mounted_tree(str(tmp_path), name="mounted") as mounted:
        for call in READ:
            for path in paths():
                refused(lambda call=call, path=path: call(mounted, path))  # type: ignore[misc]


def test_of_a_tree_that_is_changed(changed: ChangedTree, tmp_path: Path) -> None:
    (tmp_path / "etc").mkdir()
    (tmp_path / "file").touch()
    with open_mounted_tree(str(tmp_path), name="mounted") as mounted:
        for tree in (changed, JoinedTree(changed), mounted):
            for call in CHANGED:
                for path in paths():
                    refused(lambda tree=tree, call=call, path=path: call(tree, path))  # type: ignore[misc]


@pytest.mark.parametrize("number", range(len(EXT)))
def test_of_what_only_an_ext_has(changed: ChangedTree, number: int) -> None:
    for path in paths():
        refused(lambda path=path: EXT[number](changed, path))  # type: ignore[misc]


def test_of_two_paths_the_one_is_named_that_is_wrong(changed: ChangedTree) -> None:
    for call, first, second, path in (
        (changed.rename, "/missing", "/to", "/missing"),
        (changed.rename, "/file", "/missing/to", "/missing/to"),
        (changed.link, "/missing", "/to", "/missing"),
        (changed.link, "/file", "/missing/to", "/missing/to"),
    ):
        with pytest.raises(StorageError) as caught:
            call(first, second)
        assert (str(caught.value), caught.value.filename) == (f"memory, {path}: does not exist", path)


@pytest.mark.parametrize("number", range(len(FILES)))
def test_of_files_of_the_system(tmp_path: Path, number: int) -> None:
    path = f"{tmp_path}/{ODD}/file".replace("\0", "")
    refused(lambda: FILES[number](path))
    with pytest.raises(StorageError) as caught:
        open_image(path)
    assert caught.value.filename == path  # a program gets the name itself


def test_of_any_error() -> None:
    for error in (
        InvalidImageError(f"{ODD}: is not an image"),
        storage_error(OSError(errno.EIO, "x"), ODD, "cannot read"),
        closed_error(ODD),
    ):
        error.add_what_is_left(f"of {ODD}, nothing was written")
        assert str(error).isprintable()
        assert len(str(error).splitlines()) == 1
