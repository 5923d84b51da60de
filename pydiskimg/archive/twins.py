# SPDX-License-Identifier: MIT
"""Copies of one file on several file systems, to which its further names there are linked.

A file with the names /usr/a, /boot/b, /boot/c and /usr/d, /boot being a mount, becomes two files of two names each.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from pydiskimg.archive.resolve import Parents, UnsafePathError
from pydiskimg.file_copy import Spot

_Identity = tuple[int, int]


class Twins:
    """Remembers where the copies of each file are, below root_fd, which it borrows."""

    def __init__(self, root_fd: int) -> None:
        self._root_fd = root_fd
        # Of each file and each of its copies: one group, by the device, of path and identity.
        self._groups: dict[_Identity, dict[int, tuple[list[bytes], _Identity]]] = {}

    def add(self, parts: list[bytes], status: os.stat_result, copy_parts: list[bytes], copy: os.stat_result) -> None:
        """Remember that copy, at copy_parts, was made of the file at parts."""
        first, made = _identity(status), _identity(copy)
        group = self._groups.setdefault(first, {first[0]: (parts, first)})
        group[made[0]] = copy_parts, made
        self._groups[made] = group

    def forget(self, status: os.stat_result) -> None:
        """Forget one that loses a name: what gets its inode number or its path next is another file."""
        identity = _identity(status)
        group = self._groups.pop(identity, None)
        if group is not None and group.get(identity[0], ((), ()))[1] == identity:
            del group[identity[0]]

    @contextmanager
    def opened(self, status: os.stat_result, device: int) -> Iterator[Spot | None]:
        """Give the place of the copy of a file, or of what it is a copy of, on the file system device; None: none."""
        parts, identity = self._groups.get(_identity(status), {}).get(device, ([], None))
        parents = Parents(self._root_fd)
        spot = None
        try:
            if identity is not None:
                with suppress(FileNotFoundError, UnsafePathError):
                    found = Spot(parents.open(parts[:-1], make=False), parts[-1])
                    spot = found if _identity(found.lstat()) == identity else None
            yield spot
        finally:
            parents.close()


def _identity(status: os.stat_result) -> _Identity:
    return status.st_dev, status.st_ino
