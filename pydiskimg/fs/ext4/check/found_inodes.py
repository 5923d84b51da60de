# SPDX-License-Identifier: MIT
"""The findings on each inode: its type, its link count and the number of its entries, and a directory's parents.

Five bytes for each inode of a group that has any in use, and eight more if the group has directories.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterator
from itertools import count

from pydiskimg.fs.ext4 import layout

FREE = 0
UNKNOWN = 0xFF  # of a group whose inodes could not be read
IN_USE = 0x80  # with a type that no file has, or an inode of the file system's own
_CODES = {kind: number + 1 for number, kind in enumerate(layout.FILE_TYPES)}
DIRECTORY = _CODES[layout.DIRECTORY]
FILE_TYPES = {_CODES[kind]: file_type for kind, file_type in layout.FILE_TYPES.items()}
_MOST_LINKS = 0xFFFF


class FoundInodes:
    """The inodes of all groups, by number."""

    def __init__(self, inodes_per_group: int) -> None:
        self._count = inodes_per_group
        self._kinds: dict[int, bytearray] = {}
        self._links: dict[int, array[int]] = {}
        self._names: dict[int, array[int]] = {}
        self._parents: dict[int, array[int]] = {}
        self._dotdots: dict[int, array[int]] = {}
        self._unknown: set[int] = set()

    def set_unknown(self, group: int) -> None:
        """Note that the inodes of a group could not be read."""
        self._unknown.add(group)

    def set(self, number: int, kind: int, links: int) -> None:
        """Note that an inode is in use, with its type in i_mode and its link count."""
        group, index = divmod(number - 1, self._count)
        if group not in self._kinds:
            self._kinds[group] = bytearray(self._count)
            self._links[group], self._names[group] = (array("H", bytes(2 * self._count)) for _ in range(2))
        self._kinds[group][index] = _CODES.get(kind, IN_USE)
        self._links[group][index] = links

    def kind(self, number: int) -> int:
        """Return FREE, UNKNOWN, IN_USE or the number for the type of an inode."""
        group, index = divmod(number - 1, self._count)
        kinds = self._kinds.get(group)
        if kinds is None:
            return UNKNOWN if group in self._unknown else FREE
        return kinds[index]

    def name(self, number: int) -> None:
        """Count an entry that names a used inode."""
        group, index = divmod(number - 1, self._count)
        names = self._names[group]
        names[index] = min(names[index] + 1, _MOST_LINKS)

    def add_names(self, number: int, names: int) -> None:
        """Count references that are not entries."""
        group, index = divmod(number - 1, self._count)
        self._names[group][index] = min(self._names[group][index] + names, _MOST_LINKS)

    def parent(self, number: int) -> int:
        """Return the directory with the entry of a directory; 0 if none was found."""
        return self._numbers(self._parents, number)

    def set_parent(self, number: int, parent: int) -> None:
        self._set_number(self._parents, number, parent)

    def dotdot(self, number: int) -> int:
        """Return the parent that a directory itself states."""
        return self._numbers(self._dotdots, number)

    def set_dotdot(self, number: int, parent: int) -> None:
        self._set_number(self._dotdots, number, parent)

    def in_use(self, group: int) -> tuple[int, int]:
        """Return the bits of a group's inodes in use, and how many of them are directories."""
        kinds = self._kinds.get(group)
        if kinds is None:
            return 0, 0
        text = kinds.translate(_AS_BITS)[::-1].decode("ascii")
        return int(text, 2), kinds.count(DIRECTORY)

    def directories(self) -> Iterator[int]:
        """Yield the numbers of all directories, ascending."""
        for group in sorted(self._kinds):
            kinds, at = self._kinds[group], -1
            for _ in count():
                at = kinds.find(DIRECTORY, at + 1)
                if at < 0:
                    break
                yield group * self._count + at + 1

    def links(self) -> Iterator[tuple[int, int, int]]:
        """Yield (number, link count, entries found) of the inodes in use whose counts differ, or that have none."""
        for group in sorted(self._kinds):
            triples = zip(self._kinds[group], self._links[group], self._names[group], strict=True)
            for index, (kind, links, names) in enumerate(triples):
                if kind and (links != names or not names):
                    yield group * self._count + index + 1, links, names

    def _numbers(self, numbers: dict[int, array[int]], number: int) -> int:
        group, index = divmod(number - 1, self._count)
        found = numbers.get(group)
        return found[index] if found else 0

    def _set_number(self, numbers: dict[int, array[int]], number: int, value: int) -> None:
        group, index = divmod(number - 1, self._count)
        if group not in numbers:
            numbers[group] = array("I", bytes(4 * self._count))
        numbers[group][index] = value


_AS_BITS = b"0" + b"1" * 255
