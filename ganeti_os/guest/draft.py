# SPDX-License-Identifier: MIT
"""New contents of a guest's files: all computed first, then written, so that a refusal changes nothing."""

from __future__ import annotations

import errno
import fnmatch
import logging
import stat
from collections.abc import Callable

from pydiskimg.errors import DiskImageError, OutsideTreeError, StorageError
from pydiskimg.protocols import Tree

log = logging.getLogger(__name__)

TOTAL_LIMIT = 16 << 20  # bytes of all files together; a guest's configuration has some thousand
FILES_LIMIT = 256  # in one directory that match one pattern


class GuestError(DiskImageError):
    """What the guest's files say keeps them from being changed; nothing was written."""


class Draft:
    """The guest's files as they are to be. Reading sees what was changed before; nothing is written until write()."""

    def __init__(self, tree: Tree) -> None:
        self._tree = tree
        self._old: dict[str, bytes | None] = {}
        self._new: dict[str, bytes] = {}
        self._notes: dict[str, list[str]] = {}
        self._total = 0

    def read(self, path: str) -> bytes | None:
        """Return the contents of a regular file, None when there is no such file.

        Raises StorageError for what is no regular file or too large, GuestError when all are too large together.
        """
        if path in self._new:
            return self._new[path]
        if path not in self._old:
            try:
                data = self._tree.read(path)
            except FileNotFoundError:
                data = None
            self._old[path] = data
            self._total += len(data or b"")
            if self._total > TOTAL_LIMIT:
                raise GuestError(f"{path}: the files that may have to be changed are larger than {TOTAL_LIMIT} bytes")
        return self._old[path]

    def is_file(self, path: str) -> bool:
        """True when path ends, through symlinks, on a regular file."""
        try:
            return path in self._new or stat.S_ISREG(self._tree.stat(path).st_mode)
        except (FileNotFoundError, OutsideTreeError):
            return False

    def exists(self, path: str) -> bool:
        """True when path ends, through symlinks, on anything."""
        return path in self._new or self._tree.exists(path)

    def is_dangling(self, path: str) -> bool:
        """True when path is a symlink that leads to nothing: a file cannot always be made through it."""
        try:
            self._tree.stat(path, follow_symlinks=False)
        except FileNotFoundError:
            return False
        return not self.exists(path)

    def files(self, directory: str, pattern: str) -> list[str]:
        """Return the paths of the regular files in directory whose names match, sorted; none without a directory.

        Raises GuestError for more than FILES_LIMIT of them.
        """
        try:
            names = self._tree.list(directory)
        except FileNotFoundError:
            return []
        except StorageError as error:
            if error.errno == errno.ENOTDIR:  # /etc/sysconfig/network is a directory on SuSE only
                return []
            raise
        matching = [f"{directory}/{name}" for name in names if fnmatch.fnmatchcase(name, pattern)]
        if len(matching) > FILES_LIMIT:
            text = f"{directory}: {len(matching)} names match {pattern}"
            raise GuestError(f"{text}; at most {FILES_LIMIT} such files are looked at, and nothing was changed")
        return [path for path in matching if self.is_file(path)]

    def change(self, path: str, data: bytes, what: str) -> None:
        """Give a file new contents, or make one; what says it for the log. Contents that it has are no change."""
        if data == self.read(path):
            return
        self._new[path] = data
        self._notes.setdefault(path, []).append(what)

    def write(self, order: Callable[[str], int]) -> int:
        """Write what was changed, the paths of a lower order first, and return how many files.

        Each file is the old or the new one; after an error those of a higher order are still old.
        """
        written = 0
        for path in sorted(self._new, key=order):
            if self._old.get(path) is None:
                self._tree.write(path, self._new[path])
            elif self._tree.read(path) != self._new[path]:  # it may be a symlink to one that is written already
                self._tree.replace(path, self._new[path])
            else:
                continue
            written += 1
            log.info("%s: %s", path, ", ".join(self._notes[path]))
        return written
