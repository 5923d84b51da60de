# SPDX-License-Identifier: MIT
"""Where an entry of a path goes in the file system that is filled: a directory's inode and one name in it.

As files/resolve.py does it with descriptors: an entry's parents may be symlinks, which resolve as if the tree were "/";
the last component is never followed.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from typing import NamedTuple

from pydiskimg.files.resolve import UnsafePathError, components
from pydiskimg.fs.ext4 import layout
from pydiskimg.fs.ext4.populate.names import Named, NameTable

_MOST_LINKS = 40  # as the kernel follows
_KEPT = 1 << 12
_NO_NAMES = (b"", b".", b"..")
_DIRECTORY = layout.FILE_TYPES[layout.DIRECTORY]
_SYMLINK = layout.FILE_TYPES[layout.SYMLINK]


class NewName(NamedTuple):
    """A name in a directory, which is an inode; there may be a file of this name already."""

    directory: int
    name: bytes


class PathResolver:
    """Finds directories by path, and makes those that are missing.

    above is each directory's parent, also across file systems. read_link returns the target of a symlink's inode,
    make_directory makes a directory of a name in another one and returns its inode.
    """

    def __init__(
        self, names: NameTable, read_link: Callable[[int], bytes], make_directory: Callable[[NewName], int]
    ) -> None:
        self.above: dict[int, int] = {}
        self.top = layout.ROOT_INODE
        self._names = names
        self._read_link = read_link
        self._make_directory = make_directory
        self._known: dict[bytes, int] = {}
        self._over: dict[int, int] = {}

    def begin(self, top: int) -> None:
        """Let paths begin at this directory from now on."""
        self.top = top
        self.forget()

    def join(self, point: int, root: int) -> None:
        """Let the root of another file system lie over the directory point."""
        self._over[point] = root
        self.above[root] = self.above[point]
        self.forget()

    def entered(self, directory: int) -> int:
        """Return the directory that is seen where this one is: itself, or the root of what lies over it."""
        return self._over.get(directory, directory)

    def forget(self) -> None:
        """Resolve anew next time: call it when a symlink or a directory went away."""
        self._known.clear()

    def locate(self, path: bytes, *, make: bool = True) -> NewName | None:
        """Return where an entry of this path goes; None for the root itself.

        Directories that are missing are made unless make is false. Raises UnsafePathError, FileNotFoundError.
        """
        directory, _, name = path.rpartition(b"/")
        if name in _NO_NAMES:
            parts = components(path)
            if not parts:
                return None
            directory, name = b"/".join(parts[:-1]), parts[-1]
        if len(name) > layout.NAME_MAX:
            raise OSError(errno.ENAMETOOLONG, os.strerror(errno.ENAMETOOLONG))
        return NewName(self.directory(directory, make=make), name)

    def directory(self, path: bytes, *, make: bool) -> int:
        """Return the inode of the directory of this path; errors as for locate()."""
        found = self._known.get(path)
        if found is None:
            found = self._walk(components(path), make=make)
            if len(self._known) >= _KEPT:
                self._known.clear()
            self._known[path] = found
        return found

    def find(self, path: bytes) -> Named | None:
        """Return what path leads to, the last component followed, too; None where that is nothing."""
        try:
            return self._follow(components(path))
        except (FileNotFoundError, UnsafePathError):
            return None

    def _follow(self, parts: list[bytes]) -> Named | None:
        for _ in range(_MOST_LINKS):
            directory = self._walk(parts[:-1], make=False)
            found = self._names.find(directory, parts[-1])
            if found is None or found.file_type != _SYMLINK:
                return found
            target = self._read_link(found.inode).split(b"/")
            parts = target if not target[0] else [*parts[:-1], *target]
        return None

    def _walk(self, parts: list[bytes], *, make: bool) -> int:
        current = self.top
        left = [part for part in reversed(parts) if part not in (b"", b".")]
        own = len(left)  # the rest of left, at its end, is of symlinks
        links = 0
        while left:
            name = left.pop()
            is_own = len(left) < own
            own = min(own, len(left))
            if name == b"..":
                current = self.above[current]
                continue
            found = self._names.find(current, name)
            if found is None:
                current = self._missing(NewName(current, name), make=make, is_own=is_own)
            elif found.file_type == _DIRECTORY:
                current = self.entered(found.inode)
            elif found.file_type == _SYMLINK:
                links += 1
                if links > _MOST_LINKS:
                    raise UnsafePathError("its path runs in a circle of symlinks")
                target = self._read_link(found.inode)
                current = self.top if target.startswith(b"/") else current
                left += [part for part in reversed(target.split(b"/")) if part not in (b"", b".")]
            else:
                raise UnsafePathError("a parent in its path is not a directory")
        return current

    def _missing(self, name: NewName, *, make: bool, is_own: bool) -> int:
        if not make:
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT))
        if not is_own:
            raise UnsafePathError("a parent in its path is a symlink that leads nowhere inside the tree")
        if len(name.name) > layout.NAME_MAX:
            raise OSError(errno.ENAMETOOLONG, os.strerror(errno.ENAMETOOLONG))
        return self._make_directory(name)
