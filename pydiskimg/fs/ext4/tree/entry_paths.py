# SPDX-License-Identifier: MIT
"""The place of an entry's path in an ext file system: a directory's inode and a name in it.

Paths resolve as in files/resolve.py, which uses descriptors: an entry's parents may be symlinks, the last component is
never followed.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Sequence
from typing import NamedTuple, NoReturn

from pydiskimg.files.resolve import UnsafePathError, components
from pydiskimg.fs.ext4 import layout
from pydiskimg.fs.ext4.tree.files import RefusedError
from pydiskimg.fs.ext4.tree.steps import FollowedSymlinks

_KEPT = 1 << 12
_NO_NAMES = (b"", b".", b"..")
_DIRECTORY = layout.FILE_TYPES[layout.DIRECTORY]
_SYMLINK = layout.FILE_TYPES[layout.SYMLINK]


class NewName(NamedTuple):
    """A name in the directory with this inode; a file of this name may exist."""

    directory: int
    name: bytes


class Named(NamedTuple):
    """The file of a name: its inode, and file_type as in directories."""

    inode: int
    file_type: int


class EntryPaths:
    """Finds directories by path below the last of steps, the inodes from the root on, and makes missing ones.

    find returns the file of a name in a directory, read_link the target of a symlink's inode, make_directory makes a
    directory and returns its inode. Symlinks resolve as in a system whose root is the first step; symlinks made by
    entries must not lead out of the directory at which paths begin. Errors of find and read_link are passed on.
    """

    def __init__(
        self,
        steps: Sequence[int],
        find: Callable[[int, bytes], Named | None],
        read_link: Callable[[int], bytes],
        make_directory: Callable[[NewName], int],
    ) -> None:
        self.find = find
        self._steps = list(steps)
        self._read_link = read_link
        self._make_directory = make_directory
        self._known: dict[bytes, int] = {}
        self._made_symlinks: set[int] = set()

    @property
    def top(self) -> int:
        """The directory at which paths begin."""
        return self._steps[-1]

    def forget(self) -> None:
        """Discard cached directories: call it when a symlink or a directory was removed."""
        self._known.clear()

    def made_symlink(self, number: int) -> None:
        """Note that an entry has made a symlink, or another name of one."""
        if len(self._steps) > 1:
            self._made_symlinks.add(number)

    def entered(self, directory: int) -> int:
        """Return the directory that is visible at this one."""
        return directory

    def locate(self, path: bytes, *, make: bool = True) -> NewName | None:
        """Return the place for an entry of this path; None for the directory at which paths begin.

        Missing directories are made unless make is false. Raises UnsafePathError, FileNotFoundError.
        """
        directory, _, name = path.rpartition(b"/")
        if name in _NO_NAMES:
            parts = components(path)
            if not parts:
                return None
            directory, name = b"/".join(parts[:-1]), parts[-1]
        if len(name) > layout.NAME_MAX or b"\0" in name:
            _refuse(name)
        return NewName(self.directory(directory, make=make), name)

    def directory(self, path: bytes, *, make: bool) -> int:
        """Return the inode of the directory of this path; errors as for locate()."""
        found = self._known.get(path)
        if found is None:
            found = self.walked(components(path), make=make)
            if len(self._known) >= _KEPT:
                self._known.clear()
            self._known[path] = found
        return found

    def walked(self, parts: list[bytes], *, make: bool) -> int:
        """Return the inode of the directory at the end of names; errors as for locate()."""
        steps, left = list(self._steps), parts[::-1]
        own = len(left)  # the last names in left are from symlinks
        followed = FollowedSymlinks()
        is_led = False  # through a symlink that an entry has made
        while left:
            name = left.pop()
            is_own = len(left) < own
            own = min(own, len(left))
            if name in (b"", b"."):
                continue
            if name == b"..":
                del steps[max(len(steps) - 1, 1) :]
                continue
            found = self.find(steps[-1], name)
            if found is None:
                self._check_inside(steps, is_led=is_led)
                steps.append(self._missing(NewName(steps[-1], name), make=make, is_own=is_own))
            elif found.file_type == _SYMLINK:
                is_led |= found.inode in self._made_symlinks
                target = self._read_link(found.inode)
                if target.startswith(b"/"):
                    del steps[1:]
                left += _names(followed, target)
            elif found.file_type == _DIRECTORY:
                steps.append(self.entered(found.inode))
            else:
                raise UnsafePathError("a parent in its path is not a directory")
        self._check_inside(steps, is_led=is_led)
        return steps[-1]

    def _check_inside(self, steps: list[int], *, is_led: bool) -> None:
        if is_led and steps[: len(self._steps)] != self._steps:
            raise UnsafePathError("its path leads through an entry's symlink out of the target directory")

    def _missing(self, name: NewName, *, make: bool, is_own: bool) -> int:
        if not make:
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT))
        if not is_own:
            raise UnsafePathError("a parent in its path is a symlink that leads nowhere inside the tree")
        if len(name.name) > layout.NAME_MAX or b"\0" in name.name:
            _refuse(name.name)
        return self._make_directory(name)


def _names(followed: FollowedSymlinks, target: bytes) -> list[bytes]:
    try:
        return followed.names(target)
    except RefusedError as error:
        raise UnsafePathError(f"its path {error}") from error


def _refuse(name: bytes) -> NoReturn:
    """Refuse an invalid file name."""
    if b"\0" in name:
        raise UnsafePathError("its path has a NUL byte in it")
    raise OSError(errno.ENAMETOOLONG, os.strerror(errno.ENAMETOOLONG))
