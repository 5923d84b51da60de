# SPDX-License-Identifier: MIT
"""A draft of changes to a guest's files: all are computed first and then written, so that a refusal changes nothing."""

from __future__ import annotations

import errno
import fnmatch
import logging
import os
import stat
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Protocol

from pydiskimg.errors import DiskImageError, StorageError
from pydiskimg.files.tree import OutsideTreeError, Tree
from pydiskimg.system.edits.selinux import DIRECTORY, FILE, SYMLINK, Labels
from pydiskimg.system.edits.text import encoded

log = logging.getLogger(__name__)

FILE_LIMIT = 1 << 20  # bytes of a file
TOTAL_LIMIT = 16 << 20  # bytes of all files together; a guest's configuration has a few thousand
NAMES_LIMIT = 1 << 16  # in one directory
FILES_LIMIT = 256  # in one directory that match one pattern


# The errors of setting a label on vfat, and on a node whose policy does not know it.
_NO_LABEL = (errno.EOPNOTSUPP, errno.EINVAL)
_FULL = (errno.ENOSPC, errno.EDQUOT)


class _Make(Protocol):
    def __call__(self, *, attributes: Mapping[str, bytes]) -> None: ...


class GuestError(DiskImageError):
    """The contents of the guest's files keep them from being changed; nothing was written."""


@dataclass(frozen=True, slots=True)
class _Contents:
    """The new contents of a file; data None: it will be removed. mode is that of a new one."""

    data: bytes | None
    mode: int = 0o644


@dataclass(frozen=True, slots=True)
class _Link:
    target: str


@dataclass(frozen=True, slots=True)
class _Directory:
    mode: int


_New = _Contents | _Link | _Directory
_GONE = _Contents(None)


class Draft:
    """The guest's files in their future state. Reading sees earlier changes; nothing is written until write()."""

    def __init__(self, tree: Tree) -> None:
        self._tree = tree
        self._old: dict[str, bytes | None] = {}
        self._new: dict[str, _New] = {}
        self._notes: dict[str, list[str]] = {}
        self._gone: set[str] = set()  # also for files that will be replaced
        self._listed: dict[str, tuple[int, list[str]]] = {}
        self._total = 0
        self._labels = Labels(tree)

    def read(self, path: str, *, limit: int = FILE_LIMIT) -> bytes | None:
        """Return the contents of a regular file of at most limit bytes, None if the file does not exist.

        Raises StorageError for a file that is not regular or too large, GuestError when all together are too large.
        """
        new = self._new.get(path)
        if isinstance(new, _Contents):
            return new.data
        if isinstance(new, _Link):
            return self.read(new.target)
        if path not in self._old:
            try:
                data = self._tree.read(path, limit=limit)
            except FileNotFoundError:
                data = None
            self._old[path] = data
            self._total += len(data or b"")
            if self._total > TOTAL_LIMIT:
                raise GuestError(f"{path}: the files that may have to be changed are larger than {TOTAL_LIMIT} bytes")
        return self._old[path]

    def is_file(self, path: str) -> bool:
        """True when path leads, through symlinks, to a regular file."""
        new = self._new.get(path)
        if new is not None:
            return not isinstance(new, _Directory) and self.read(path) is not None
        try:
            return stat.S_ISREG(self._tree.stat(path).st_mode)
        except (FileNotFoundError, OutsideTreeError):
            return False

    def exists(self, path: str) -> bool:
        """True when path leads, through symlinks, to an existing file."""
        new = self._new.get(path)
        if new is None:
            return self._tree.exists(path)
        return self.exists(new.target) if isinstance(new, _Link) else new != _GONE

    def stat(self, path: str, *, follow_symlinks: bool = True) -> os.stat_result | None:
        """Return the result of os.stat() for path before any change; None if it did not exist."""
        try:
            return self._tree.stat(path, follow_symlinks=follow_symlinks)
        except (FileNotFoundError, OutsideTreeError):
            return None

    def is_dangling(self, path: str) -> bool:
        """True when path is a broken symlink: a file cannot always be made through it."""
        try:
            self._tree.stat(path, follow_symlinks=False)
        except FileNotFoundError:
            return False
        return not self.exists(path)

    def files(self, directory: str, pattern: str) -> list[str]:
        """Return the paths of the regular files in directory whose names match, sorted; empty without the directory.

        Raises GuestError for more than FILES_LIMIT of them.
        """
        names = self._names(directory)
        matching = [f"{directory}/{name}" for name in names if fnmatch.fnmatchcase(name, pattern)]
        if len(matching) > FILES_LIMIT:
            text = f"{directory}: {len(matching)} names match {pattern}"
            raise GuestError(f"{text}; at most {FILES_LIMIT} such files are read")
        made = [path for path in self._new if path.rpartition("/")[0] == directory]
        matching += [path for path in made if fnmatch.fnmatchcase(path.rpartition("/")[2], pattern)]
        return sorted({path for path in matching if self.is_file(path)}, key=encoded)

    def directories(self, directory: str, pattern: str) -> list[str]:
        """Return the paths of at most FILES_LIMIT directories in directory whose names match, sorted."""
        matching = [f"{directory}/{name}" for name in self._names(directory) if fnmatch.fnmatchcase(name, pattern)]
        found = [(path, self.stat(path)) for path in sorted(matching, key=encoded)[:FILES_LIMIT]]
        return [path for path, status in found if status is not None and stat.S_ISDIR(status.st_mode)]

    def names(self, directory: str, *, limit: int) -> list[str]:
        """Return the sorted names in a directory before any change; empty without it.

        Raises GuestError for more than limit.
        """
        names = self._names(directory)
        if len(names) > limit:
            raise GuestError(f"{directory}: contains {len(names)} names; at most {limit} are read")
        return names

    def _names(self, directory: str) -> list[str]:
        """Return the names in a directory before any change, cached: a guest may have a million in it."""
        if directory not in self._listed:
            found = self._list(directory)
            self._listed[directory] = len(found), found[:NAMES_LIMIT]
        count, names = self._listed[directory]
        if count > NAMES_LIMIT:
            raise GuestError(f"{directory}: contains {count} names; at most {NAMES_LIMIT} are read")
        return names

    def _list(self, directory: str) -> list[str]:
        try:
            return list(self._tree.list(directory))
        except FileNotFoundError:
            return []
        except StorageError as error:
            if error.errno != errno.ENOTDIR:  # /etc/sysconfig/network is a directory on SuSE only
                raise
            return []

    def change(self, path: str, data: bytes, what: str, *, mode: int = 0o644) -> None:
        """Give a file new contents, or make one of this mode, and its parent directories; what describes it for the
        log.

        A file that already has these contents is not changed. An existing file keeps its mode.
        """
        if data == self.read(path):
            return
        self._note(path, _Contents(data, mode), what)

    def make_directory(self, path: str, what: str, *, mode: int = 0o755) -> None:
        """Make a directory of this mode, and its parents, unless the path exists."""
        if not self.exists(path):
            self._note(path, _Directory(mode), what)

    def remove(self, path: str, what: str) -> None:
        """Remove a file or symlink, if it exists. Raises GuestError for a directory."""
        status = self.stat(path, follow_symlinks=False)
        if status is None:
            self._new.pop(path, None)
        elif stat.S_ISDIR(status.st_mode):
            raise GuestError(f"{path} in the guest: is a directory; expected a file or symlink, which would be removed")
        elif self._new.get(path) != _GONE:
            self._gone.add(path)
            self._note(path, _GONE, what)

    def symlink(self, path: str, target: str, what: str) -> None:
        """Make a symlink to the absolute path target, and its parent directories, unless the path exists."""
        if path not in self._new and self.stat(path, follow_symlinks=False) is None:
            self._note(path, _Link(target), what)

    def _note(self, path: str, new: _New, what: str) -> None:
        if self._new.get(path) == _GONE:  # the log names the file that replaces it
            self._notes[path] = []
        self._new[path] = new
        self._notes.setdefault(path, []).append(what)

    def write(self, order: Callable[[str], int]) -> int:
        """Write the changes, paths of a lower order first, and return how many files were written.

        Each file has its old or its new contents; after an error those of a higher order are still old.
        """
        written = 0
        for path in sorted(self._new, key=order):
            try:
                is_written = self._write(path, self._new[path])
            except StorageError as error:
                if error.errno not in _FULL:
                    raise
                text = f"{error}; the guest's file system has no free block or no free inode: make room in it"
                raise StorageError(text, errno=error.errno, filename=path) from error
            if is_written:
                written += 1
                log.info("%s: %s", path, ", ".join(dict.fromkeys(self._notes[path])))
        return written

    def _write(self, path: str, new: _New) -> bool:
        """Write one file; return False if it turns out to be unchanged."""
        if path in self._gone and self.stat(path, follow_symlinks=False) is not None:
            self._tree.remove(path)
        if new == _GONE:
            return True
        if isinstance(new, _Directory):
            self._make_directory(path)
        elif isinstance(new, _Link):
            self._make_parents(path)
            self._labelled(path, SYMLINK, partial(self._tree.symlink, path, new.target))
        elif self._old.get(path) is None or path in self._gone:
            assert new.data is not None
            self._make_parents(path)
            self._labelled(path, FILE, partial(self._tree.write, path, new.data, mode=new.mode))
        # it may lead to a file that is already written
        elif self._tree.read(path, limit=self._limit(path)) != new.data:
            assert new.data is not None
            self._tree.replace(path, new.data)
        else:
            return False
        return True

    def _limit(self, path: str) -> int:
        return max(FILE_LIMIT, len(self._old[path] or b""))

    def _make_parents(self, path: str) -> None:
        parent = path.rpartition("/")[0]
        if parent:
            self._make_directory(parent)

    def _make_directory(self, path: str) -> None:
        if self._tree.exists(path):
            return
        self._make_parents(path)
        new = self._new.get(path)
        mode = new.mode if isinstance(new, _Directory) else 0o755
        self._labelled(path, DIRECTORY, partial(self._tree.make_directory, path, mode=mode))

    def _labelled(self, path: str, kind: str, make: _Make) -> None:
        """Make a file with its SELinux label, or without one if the file system or the node's kernel refuses it."""
        attributes = self._labels.attributes(path, kind)
        try:
            make(attributes=attributes)
        except StorageError as error:
            if not attributes or error.errno not in _NO_LABEL:
                raise
            log.warning("%s gets no SELinux label: %s", path, error)
            if kind == FILE or self.stat(path, follow_symlinks=False) is None:  # the other attributes are set by now
                make(attributes={})
