# SPDX-License-Identifier: MIT
"""Put entries into several ext file systems mounted below each other: each goes to the one of its path."""

from __future__ import annotations

import errno
import stat
from collections.abc import Mapping
from dataclasses import dataclass, replace

from pydiskimg.files.entry import Entry
from pydiskimg.files.resolve import UnsafePathError, check_length, components
from pydiskimg.files.writer import MOUNT_POINT, MountPointInTheWayError
from pydiskimg.fs.ext4 import layout
from pydiskimg.fs.ext4.change.put import EntryWriter
from pydiskimg.fs.ext4.inodes import StoredInode
from pydiskimg.fs.ext4.tree.files import RefusedError
from pydiskimg.fs.ext4.tree.steps import Step, path_in_tree, walked
from pydiskimg.text import printable

_KEPT = 1 << 12
_HARD_LINK = 0
_NOWHERE = (errno.ENOENT, errno.ELOOP)


@dataclass(frozen=True, slots=True)
class _Directory:
    """A directory by the writer of its file system, and its path in that."""

    writer: EntryWriter
    path: bytes
    inode: StoredInode


@dataclass(frozen=True, slots=True)
class _Spot:
    """The end of a path: a path in a writer's file system, b"" for its root, and the file there."""

    writer: EntryWriter
    path: bytes
    found: StoredInode | None

    @property
    def is_root(self) -> bool:
        return not self.path

    @property
    def kind(self) -> int | None:
        return None if self.found is None else self.found.kind


class JoinedWriter:
    """Makes files of entries as EntryWriter does, below a root with other file systems mounted below it.

    over has the writers of these, by the writer and the inode of the mount point. A hard link from one to another
    becomes a copy, and further ones in that file system become links to the copy (ADR 0090). All writers stay the
    caller's.
    """

    def __init__(self, root: EntryWriter, over: Mapping[tuple[EntryWriter, int], EntryWriter]) -> None:
        self._root, self._over = root, over
        self._known: dict[bytes, _Directory] = {}
        # For each copied file and each copy the same group: path and inode by file system.
        self._groups: dict[tuple[EntryWriter, int], dict[EntryWriter, tuple[bytes, int]]] = {}

    def make(self, entry: Entry) -> None:
        """Make a file of an entry. Raises as EntryWriter.make() does."""
        with self._root.errors(entry):
            check_length(entry.path)
            spot = self._spot(entry.path)
            if entry.is_directory:
                self._make_directory(entry, spot)
            else:
                self._make_file(entry, spot)
        for name in entry.names:
            further = replace(entry, path=name, kind=_HARD_LINK, link=entry.path, names=(), contents=(), size=0)
            self.make(further)

    def _make_directory(self, entry: Entry, spot: _Spot) -> None:
        if spot.kind == layout.SYMLINK:
            spot = self._led(components(entry.path)) or spot
        if spot.kind not in (None, layout.DIRECTORY):
            self._forget(spot)
        spot.writer.make(entry, at=spot.path)

    def _make_file(self, entry: Entry, spot: _Spot) -> None:
        if spot.is_root and spot.writer is not self._root:
            raise MountPointInTheWayError(MOUNT_POINT)
        if entry.is_hard_link:
            self._link(entry, spot)
            return
        self._forget(spot)
        spot.writer.make(replace(entry, names=()) if entry.names else entry, at=spot.path)
        if entry.kind == stat.S_IFLNK:
            self._known.clear()

    def _link(self, entry: Entry, spot: _Spot) -> None:
        first = self._linked(entry.link)
        assert first.found is not None
        if spot.writer is not first.writer:
            copy = self._twin(first, spot.writer)
            if copy is None:
                self._copy(entry, first, spot)
                return
            first = copy
        if spot.found is None or first.found is None or spot.found.number != first.found.number:
            self._forget(spot)
        spot.writer.make(replace(entry, link=first.path), at=spot.path)

    def _linked(self, link: bytes) -> _Spot:
        """Return the target of a hard link."""
        check_length(link)
        first = self._spot(link)
        if first.is_root and first.writer is self._root:
            raise UnsafePathError("it is a hard link to the directory that the archive is unpacked into")
        if first.found is None:
            raise UnsafePathError(f"it is a hard link to {printable(link)}, which does not exist")
        if first.kind == layout.DIRECTORY:
            raise UnsafePathError(f"it is a hard link to the directory {printable(link)}")
        return first

    def _twin(self, first: _Spot, writer: EntryWriter) -> _Spot | None:
        """Return the copy of a file, or its original, in a writer's file system."""
        assert first.found is not None
        path, number = self._groups.get((first.writer, first.found.number), {}).get(writer, (b"", 0))
        steps = self._walked(path.split(b"/"), writer) if path else None
        return _Spot(writer, path, steps[-1].inode) if steps and steps[-1].inode.number == number else None

    def _copy(self, entry: Entry, first: _Spot, spot: _Spot) -> None:
        """Make a copy of a file, because hard links cannot cross."""
        assert first.found is not None
        self._forget(spot)
        spot.writer.make(first.writer.entry(first.found.number, entry.path), at=spot.path)
        if first.kind == layout.SYMLINK:
            self._known.clear()
        made = self._spot(entry.path).found
        assert made is not None
        group = self._groups.setdefault((first.writer, first.found.number), {})
        group |= {first.writer: (first.path, first.found.number), spot.writer: (spot.path, made.number)}
        self._groups[spot.writer, made.number] = group

    def _forget(self, spot: _Spot) -> None:
        """Discard cached data of a replaced file: its inode may be another file's later, and its target may be gone."""
        if spot.found is None:
            return
        group = self._groups.pop((spot.writer, spot.found.number), {})
        group.pop(spot.writer, None)
        if spot.kind in (layout.DIRECTORY, layout.SYMLINK):
            self._known.clear()

    def _spot(self, path: bytes) -> _Spot:
        """Return the end of a path; the last name is not followed, except into a file system mounted there."""
        parts = components(path)
        if not parts:
            return _Spot(self._root, b"", _top(self._root).inode)
        directory, missing = self._directory(parts[:-1])
        inside = b"/".join(filter(None, (directory.path, *missing, parts[-1])))
        number = None if missing else directory.writer.files.find(directory.inode, parts[-1])
        if number is None:
            return _Spot(directory.writer, inside, None)
        step = self._entered(Step(directory.writer, directory.writer.files.inode(number), parts[-1]))
        return _Spot(step.tree, inside if step.tree is directory.writer else b"", step.inode)

    def _directory(self, parts: list[bytes]) -> tuple[_Directory, list[bytes]]:
        """Return the directory at a path, or the last existing one on its way, and the remaining names."""
        path = b"/".join(parts)
        known = self._known.get(path)
        if known is not None:
            return known, []
        for count in range(len(parts), -1, -1):
            steps = self._walked(parts[:count])
            if steps is not None:
                break
        else:
            raise AssertionError("the root is always there")
        last = steps[-1]
        if last.inode.kind != layout.DIRECTORY:
            raise UnsafePathError("a parent in its path is not a directory")
        found, missing = _Directory(last.tree, path_in_tree(steps), last.inode), parts[count:]
        if missing and last.tree.files.find(last.inode, missing[0]) is not None:
            raise UnsafePathError("a parent in its path is a symlink that leads nowhere inside the tree")
        if not missing:
            if len(self._known) >= _KEPT:
                self._known.clear()
            self._known[path] = found
        return found, missing

    def _led(self, parts: list[bytes]) -> _Spot | None:
        """Return the directory at a path whose last name is a symlink; None if it does not lead to one."""
        try:
            steps = self._walked(parts)
        except RefusedError as error:
            if error.number not in _NOWHERE:
                raise
            return None
        if steps is None or steps[-1].inode.kind != layout.DIRECTORY:
            return None
        return _Spot(steps[-1].tree, path_in_tree(steps), steps[-1].inode)

    def _walked(self, parts: list[bytes], within: EntryWriter | None = None) -> list[Step[EntryWriter]] | None:
        """Return the steps to the end of a path; None if that is missing.

        within is for a path in one file system, without following a symlink at its end.
        """
        top, path = _top(within or self._root), b"/".join(parts)
        try:
            steps, missing = walked(top, path, follow_symlinks=within is None, entered=self._entered)
        except RefusedError as error:
            if error.number == errno.ENOENT:
                return None
            raise
        return steps if missing is None else None

    def _entered(self, step: Step[EntryWriter]) -> Step[EntryWriter]:
        over = self._over.get((step.tree, step.inode.number))
        return step if over is None else Step(over, _top(over).inode, step.name)


def _top(writer: EntryWriter) -> Step[EntryWriter]:
    return Step(writer, writer.files.inode(layout.ROOT_INODE))
