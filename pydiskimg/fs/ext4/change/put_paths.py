# SPDX-License-Identifier: MIT
"""Where an entry of a path goes in an existing file system: a directory's inode and one name in it.

As files/resolve.py does it with descriptors: an entry's parents may be symlinks, the last component is never followed.
Symlinks of the image lead where the guest that it belongs to follows them; those that entries have made must not lead
out of the directory that entries are put into.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Sequence

from pydiskimg.files.resolve import UnsafePathError, components
from pydiskimg.fs.ext4 import layout
from pydiskimg.fs.ext4.change.batch import ChangeBatch
from pydiskimg.fs.ext4.inodes import StoredInode
from pydiskimg.fs.ext4.populate.paths import NewName
from pydiskimg.fs.ext4.tree.files import RefusedError
from pydiskimg.fs.ext4.tree.steps import FollowedSymlinks

_KEPT = 1 << 12
_NO_NAMES = (b"", b".", b"..")


class EntryPaths:
    """Finds directories by path below the last of steps, the inodes from the root on, and makes those that are missing.

    target returns where the symlink of an inode leads, make_directory makes a directory and returns its inode. Raises
    UnsafePathError, FileNotFoundError where nothing is to be made, and as FileChanges does.
    """

    def __init__(
        self,
        batch: ChangeBatch,
        steps: Sequence[int],
        target: Callable[[StoredInode], bytes],
        make_directory: Callable[[NewName], int],
    ) -> None:
        self._names, self._changes = batch.names, batch.changes
        self._steps = list(steps)
        self._target = target
        self._make_directory = make_directory
        self._known: dict[bytes, int] = {}
        self._made_symlinks: set[int] = set()

    @property
    def top(self) -> int:
        """The directory that paths begin at."""
        return self._steps[-1]

    def forget(self) -> None:
        """Resolve again next time: call it when a symlink or a directory went away."""
        self._known.clear()

    def made_symlink(self, number: int) -> None:
        """Remember that an entry has made a symlink, or another one of it."""
        if len(self._steps) > 1:
            self._made_symlinks.add(number)

    def locate(self, path: bytes, *, make: bool = True) -> NewName | None:
        """Return where an entry of this path goes; None for the directory that paths begin at."""
        directory, _, name = path.rpartition(b"/")
        if name in _NO_NAMES:
            parts = components(path)
            if not parts:
                return None
            directory, name = b"/".join(parts[:-1]), parts[-1]
        if b"\0" in name:
            raise UnsafePathError("its path has a NUL byte in it")
        found = self._known.get(directory)
        if found is None:
            found = self._walked(components(directory), make=make)
            if len(self._known) >= _KEPT:
                self._known.clear()
            self._known[directory] = found
        return NewName(found, name)

    def found(self, name: NewName) -> StoredInode | None:
        """Return what has a name."""
        number = self._names.find(*name)
        return None if number is None else self._changes.inode(number)

    def as_directory(self, path: bytes, name: NewName) -> StoredInode | None:
        """Return the directory that has a name, to which path leads, or the one that the symlink there leads to."""
        found = self.found(name)
        if found is None or found.kind == layout.DIRECTORY:
            return found
        if found.kind != layout.SYMLINK:
            return None
        try:
            return self._changes.inode(self._walked(components(path), make=False))
        except (FileNotFoundError, UnsafePathError, RefusedError):
            return None

    def _walked(self, parts: list[bytes], *, make: bool) -> int:
        steps, left = list(self._steps), parts[::-1]
        own = len(left)  # the rest of left, at its end, is of symlinks
        followed = FollowedSymlinks()
        is_led = False  # by a symlink that an entry has made
        while left:
            name = left.pop()
            is_own = len(left) < own
            own = min(own, len(left))
            if name in (b"", b"."):
                continue
            if name == b"..":
                del steps[max(len(steps) - 1, 1) :]
                continue
            number = self._names.find(steps[-1], name)
            if number is None:
                self._check_inside(steps, is_led=is_led)
                steps.append(self._missing(NewName(steps[-1], name), make=make, is_own=is_own))
                continue
            inode = self._changes.inode(number)
            if inode.kind == layout.SYMLINK:
                is_led |= number in self._made_symlinks
                target = self._target(inode)
                if target.startswith(b"/"):
                    del steps[1:]
                left += followed.names(target)
            elif inode.kind == layout.DIRECTORY:
                steps.append(number)
            else:
                raise UnsafePathError("a parent in its path is not a directory")
        self._check_inside(steps, is_led=is_led)
        return steps[-1]

    def _check_inside(self, steps: list[int], *, is_led: bool) -> None:
        if is_led and steps[: len(self._steps)] != self._steps:
            raise UnsafePathError("its path leads through an entry's symlink out of the directory that it is put into")

    def _missing(self, name: NewName, *, make: bool, is_own: bool) -> int:
        if not make:
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT))
        if not is_own:
            raise UnsafePathError("a parent in its path is a symlink that leads nowhere inside the tree")
        return self._make_directory(name)
