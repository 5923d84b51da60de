# SPDX-License-Identifier: MIT
"""GRUB's files in a guest's tree: those that the boot loader is built from, and the copies that it reads at boot.

The guest controls these files: their sizes and number are bounded, and every path is resolved inside the tree.
"""

from __future__ import annotations

import posixpath
from collections.abc import Iterable, Iterator, Mapping
from typing import Protocol

from pydiskimg.boot.modules import NAME, check_module
from pydiskimg.errors import BootLoaderError
from pydiskimg.files.tree import Tree

# Debian, Red Hat and Arch; current and older SUSE.
DIRECTORIES = ("/usr/lib/grub/i386-pc", "/usr/share/grub2/i386-pc", "/usr/lib/grub2/i386-pc")
# A complete directory has this file; a directory without it was left by a package for another platform.
_ESSENTIAL = "boot.img"
# Files besides the modules and lists: EFI emulation for some systems, and how the modules were built.
_OTHERS = frozenset({"efiemu32.o", "efiemu64.o", "modinfo.sh"})
_COPIED = (".mod", ".lst")
_FILE_LIMIT = 1 << 20  # bytes; the largest has 300 KiB
_TOTAL_LIMIT = 32 << 20  # bytes of all copied files; Debian's have 3.5 MiB
_NAMES_LIMIT = 1024
_FONT = "unicode.pf2"
_FONT_DIRECTORIES = ("/usr/share/grub", "/usr/share/grub2")
_FONT_LIMIT = 16 << 20
_ENVIRONMENT_NAME = "grubenv"
_ENVIRONMENT = b"# GRUB Environment Block\n".ljust(1024, b"#")
# In the packages of Red Hat and SUSE, whose GRUB is in /boot/grub2.
_GRUB2 = ("/usr/sbin/grub2-install", "/usr/bin/grub2-install", "/usr/sbin/grub2-mkconfig", "/boot/grub2")


class Dress(Protocol):
    """Returns the extended attributes for a new file or directory of the guest: the SELinux label of its policy."""

    def __call__(self, path: str, *, is_directory: bool) -> Mapping[str, bytes]:
        """Return attribute names and values."""


def _undressed(path: str, *, is_directory: bool) -> Mapping[str, bytes]:  # noqa: ARG001 - a Dress
    return {}


class Grub:
    """The files of the GRUB in one directory of a guest's tree; they are read on demand."""

    def __init__(self, tree: Tree, directory: str) -> None:
        self.directory = directory
        self._tree = tree
        self._contents: dict[str, bytes] = {}

    def path(self, name: str) -> str:
        """Return the path of a file in the guest."""
        return f"{self.directory}/{name}"

    def file(self, name: str) -> bytes:
        """Return a file's contents. Raises BootLoaderError if it is missing, StorageError for more than 1 MiB."""
        if name not in self._contents:
            try:
                self._contents[name] = self._tree.read(self.path(name), limit=_FILE_LIMIT)
            except FileNotFoundError:
                raise BootLoaderError(
                    f"{self.path(name)}: is missing in the guest; install GRUB's package again"
                ) from None
        return self._contents[name]

    def module(self, name: str) -> bytes:
        """Return a module's contents; errors as for file(), and BootLoaderError if it is not a module."""
        contents = self.file(f"{name}.mod")
        check_module(contents, self.path(f"{name}.mod"))
        return contents

    def names(self) -> list[str]:
        """Return the names of the files that GRUB may read at boot. Raises BootLoaderError for more than 1024."""
        names = [
            name
            for name in self._tree.list(self.directory)
            if NAME.fullmatch(name) and (name in _OTHERS or name.endswith(_COPIED))
        ]
        if len(names) > _NAMES_LIMIT:
            raise BootLoaderError(
                f"{self.directory}: contains {len(names)} modules and lists, expected at most {_NAMES_LIMIT}"
            )
        return names


def read_grub(tree: Tree) -> Grub | None:
    """Return the GRUB for a BIOS in the tree; None if there is none."""
    for directory in DIRECTORIES:
        if tree.exists(f"{directory}/{_ESSENTIAL}"):
            return Grub(tree, directory)
    return None


def grub_home(tree: Tree) -> str:
    """Return the name of the directory in /boot where the system's own GRUB keeps its files: grub2 or grub."""
    return "grub2" if any(tree.exists(path) for path in _GRUB2) else "grub"


def copy_modules(tree: Tree, grub: Grub, target: str, *, dress: Dress = _undressed) -> int:
    """Copy the files that GRUB reads at boot to target (as /boot/grub), as grub-install does; return how many.

    Modules and lists replace those in i386-pc below target, the font goes to fonts, and an environment block is made if
    there is none. Directories are made as needed. dress returns the extended attributes of a new file or directory; all
    modules get those of the first. The files are on stable storage once the file system is synced or unmounted. Raises
    BootLoaderError for too many or too large files, StorageError.
    """
    modules, fonts = f"{target}/i386-pc", f"{target}/fonts"
    names = grub.names()
    known = set(names)
    _make_directories(tree, modules, dress)
    for old in tree.list(modules):
        if old.endswith(_COPIED) and old not in known:
            tree.remove(f"{modules}/{old}")
    # All are read first: changing a tree discards its cache of directories.
    contents = list(_contents(grub, names))
    _write(tree, modules, contents, f"{modules}/{names[0]}" if names else modules, dress)
    font = _font(tree)
    if font is not None:
        _make_directories(tree, fonts, dress)
        _write(tree, fonts, [(_FONT, font)], f"{fonts}/{_FONT}", dress)
    if not tree.exists(f"{target}/{_ENVIRONMENT_NAME}"):
        _write(tree, target, [(_ENVIRONMENT_NAME, _ENVIRONMENT)], f"{target}/{_ENVIRONMENT_NAME}", dress)
    return len(names)


def _write(tree: Tree, directory: str, files: Iterable[tuple[str, bytes]], first: str, dress: Dress) -> None:
    tree.write_files(directory, files, attributes=dress(first, is_directory=False))


def _contents(grub: Grub, names: list[str]) -> Iterator[tuple[str, bytes]]:
    total = 0
    for name in names:
        contents = grub.file(name)
        total += len(contents)
        if total > _TOTAL_LIMIT:
            raise BootLoaderError(f"{grub.directory}: its modules are larger than {_TOTAL_LIMIT} bytes together")
        yield name, contents


def _font(tree: Tree) -> bytes | None:
    for directory in _FONT_DIRECTORIES:
        try:
            return tree.read(f"{directory}/{_FONT}", limit=_FONT_LIMIT)
        except FileNotFoundError:
            continue
    return None


def _make_directories(tree: Tree, path: str, dress: Dress) -> None:
    if path != "/" and not tree.exists(path):
        _make_directories(tree, posixpath.dirname(path), dress)
        tree.make_directory(path, attributes=dress(path, is_directory=True))
