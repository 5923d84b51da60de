# SPDX-License-Identifier: MIT
"""The copy of GRUB's modules in a guest, whose files may be anything."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from pydiskimg.boot import copy_modules, read_grub
from pydiskimg.errors import BootLoaderError, StorageError
from pydiskimg.files.mounted_tree import MountedTree, open_mounted_tree
from tests.fixtures.grub_files import grub_files, write_grub

SECRET = b"the node's own\n"


@pytest.fixture
def root(tmp_path: Path) -> Iterator[Path]:
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside/normal.mod").write_bytes(SECRET)
    root = tmp_path / "guest"
    (root / "boot").mkdir(parents=True)
    write_grub(root)
    yield root
    assert [path.name for path in (tmp_path / "outside").iterdir()] == ["normal.mod"]
    assert (tmp_path / "outside/normal.mod").read_bytes() == SECRET


def copied(root: Path) -> int:
    with open_mounted_tree(root) as tree:
        return copy_into(tree)


def copy_into(tree: MountedTree) -> int:
    grub = read_grub(tree)
    assert grub is not None
    return copy_modules(tree, grub, "/boot/grub")


def test_what_is_copied(root: Path) -> None:
    (root / "usr/share/grub").mkdir(parents=True)
    (root / "usr/share/grub/unicode.pf2").write_bytes(b"a font")
    umask = os.umask(0o077)
    try:
        count = copied(root)
    finally:
        os.umask(umask)
    expected = {name: data for name, data in grub_files().items() if name.endswith((".mod", ".lst", ".sh"))}
    modules = root / "boot/grub/i386-pc"
    assert {path.name: path.read_bytes() for path in modules.iterdir()} == expected
    assert count == len(expected)
    assert (root / "boot/grub/fonts/unicode.pf2").read_bytes() == b"a font"
    environment = (root / "boot/grub/grubenv").read_bytes()
    assert (len(environment), environment[:25], environment[-1:]) == (1024, b"# GRUB Environment Block\n", b"#")
    for path in (*modules.iterdir(), root / "boot/grub/grubenv"):
        assert stat.S_IMODE(path.stat().st_mode) == 0o644
    assert stat.S_IMODE(modules.stat().st_mode) == 0o755


def test_an_older_grubs_modules_go_and_its_environment_stays(root: Path) -> None:
    modules = root / "boot/grub/i386-pc"
    modules.mkdir(parents=True)
    for name in ("gone.mod", "normal.mod", "fs.lst", "core.img"):
        (modules / name).write_bytes(b"older")
    (modules / "ext2.mod").hardlink_to(modules / "core.img")
    (root / "boot/grub/grubenv").write_bytes(b"saved_entry=2")
    copied(root)
    names = sorted(path.name for path in modules.iterdir())
    assert "gone.mod" not in names
    assert (modules / "core.img").read_bytes() == b"older"
    assert (modules / "ext2.mod").read_bytes() == grub_files()["ext2.mod"]
    assert (modules / "normal.mod").read_bytes() == grub_files()["normal.mod"]
    assert (root / "boot/grub/grubenv").read_bytes() == b"saved_entry=2"


def test_new_files_get_attributes(root: Path) -> None:
    asked = []

    def dress(path: str, *, is_directory: bool) -> dict[str, bytes]:
        asked.append((path, is_directory))
        return {"user.label": b"boot"}

    with open_mounted_tree(root) as tree:
        grub = read_grub(tree)
        assert grub is not None
        copy_modules(tree, grub, "/boot/grub", dress=dress)
        for path in ("/boot/grub", "/boot/grub/i386-pc", "/boot/grub/i386-pc/normal.mod", "/boot/grub/grubenv"):
            assert tree.attribute(path, "user.label") == b"boot"
    first = "/boot/grub/i386-pc/biosdisk.mod"
    assert asked == [("/boot/grub", True), ("/boot/grub/i386-pc", True), (first, False), ("/boot/grub/grubenv", False)]


def make_fifo(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.unlink(missing_ok=True)
    os.mkfifo(path)


def make_large(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()
    os.truncate(path, 10 << 30)


def many_modules(root: Path, count: int, size: int) -> None:
    for number in range(count):
        path = root / f"usr/lib/grub/i386-pc/m{number}.mod"
        path.touch()
        os.truncate(path, size)


def other_directory(root: Path) -> None:
    (root / "outside").mkdir()
    symlink(root / "boot/grub/i386-pc", Path("/outside"))


def symlink(path: Path, target: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.symlink_to(target)


MODULE = "usr/lib/grub/i386-pc/ext2.mod"
HARMLESS: dict[str, Callable[[Path], None]] = {
    "a symlink to the node's file in a module's place": lambda root: symlink(
        root / "boot/grub/i386-pc/normal.mod", root.parent / "outside/normal.mod"
    ),
    "a relative one": lambda root: symlink(
        root / "boot/grub/i386-pc/normal.mod", Path("../../../../outside/normal.mod")
    ),
    "a FIFO in a module's place": lambda root: make_fifo(root / "boot/grub/i386-pc/ext2.mod"),
    "a name with a newline among the modules": lambda root: make_fifo(root / "usr/lib/grub/i386-pc/a\nb.mod"),
    "an absolute symlink to a directory of its own": other_directory,
}


@pytest.mark.parametrize("name", HARMLESS)
def test_nothing_outside_is_touched(root: Path, name: str) -> None:
    HARMLESS[name](root)
    copied(root)
    with open_mounted_tree(root) as tree:
        assert tree.read("/boot/grub/i386-pc/normal.mod") == grub_files()["normal.mod"]
        assert tree.read("/boot/grub/i386-pc/ext2.mod") == grub_files()["ext2.mod"]


REFUSED: dict[str, tuple[Callable[[Path], None], str]] = {
    "symlinks that lead out": (lambda root: symlink(root / "boot/grub", root.parent / "outside"), "/boot/grub"),
    "a FIFO in the directory's place": (lambda root: make_fifo(root / "boot/grub"), "/boot/grub/i386-pc"),
    "a directory in a module's place": (
        lambda root: (root / "boot/grub/i386-pc/normal.mod").mkdir(parents=True),
        r"/boot/grub/i386-pc/normal\.mod",
    ),
    "a module that is a FIFO": (lambda root: make_fifo(root / MODULE), rf"/{MODULE}"),
    "a module of 10 GB": (lambda root: make_large(root / MODULE), rf"/{MODULE}.*larger than the 1048576 bytes"),
    "a font of 10 GB": (
        lambda root: make_large(root / "usr/share/grub/unicode.pf2"),
        r"/usr/share/grub/unicode\.pf2.*larger than",
    ),
    "large modules": (
        lambda root: many_modules(root, 33, 1 << 20),
        r"/usr/lib/grub/i386-pc: its modules are larger than 33554432 bytes together",
    ),
    "many modules": (
        lambda root: many_modules(root, 1100, 10),
        r"/usr/lib/grub/i386-pc: contains 1\d+ modules and lists, expected at most 1024",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refused_with_the_path(root: Path, name: str) -> None:
    make, expected = REFUSED[name]
    make(root)
    with pytest.raises((StorageError, BootLoaderError), match=expected):
        copied(root)
