# SPDX-License-Identifier: MIT
"""The place of an entry's path in the new file system, or in two, one mounted at a directory of the other."""

from __future__ import annotations

from collections.abc import Callable

from pydiskimg.files.resolve import UnsafePathError, components
from pydiskimg.fs.ext4 import layout
from pydiskimg.fs.ext4.populate.names import NameTable
from pydiskimg.fs.ext4.tree.entry_paths import EntryPaths, Named, NewName

_MOST_LINKS = 40  # as the kernel follows
_SYMLINK = layout.FILE_TYPES[layout.SYMLINK]


class FilledPaths(EntryPaths):
    """Entries' paths in new file systems; symlinks resolve as if the directory at which paths begin were "/".

    above is each directory's parent, also across file systems.
    """

    def __init__(
        self, names: NameTable, read_link: Callable[[int], bytes], make_directory: Callable[[NewName], int]
    ) -> None:
        super().__init__([layout.ROOT_INODE], names.find, read_link, make_directory)
        self.above: dict[int, int] = {}
        self._over: dict[int, int] = {}

    def begin(self, top: int) -> None:
        """Let paths begin at this directory from now on."""
        self._steps = [top]
        self.forget()

    def join(self, point: int, root: int) -> None:
        """Mount the root of another file system at the directory point."""
        self._over[point] = root
        self.above[root] = self.above[point]
        self.forget()

    def entered(self, directory: int) -> int:
        """Return the directory that is visible at this one: itself, or the root mounted there."""
        return self._over.get(directory, directory)

    def led(self, path: bytes) -> Named | None:
        """Return the file at path, the last component followed, too; None if it does not exist."""
        try:
            return self._led(components(path))
        except (FileNotFoundError, UnsafePathError):
            return None

    def _led(self, parts: list[bytes]) -> Named | None:
        for _ in range(_MOST_LINKS):
            found = self.find(self.walked(parts[:-1], make=False), parts[-1])
            if found is None or found.file_type != _SYMLINK:
                return found
            target = self._read_link(found.inode).split(b"/")
            parts = target if not target[0] else [*parts[:-1], *target]
        return None
