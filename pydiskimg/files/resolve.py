# SPDX-License-Identifier: MIT
"""The place of an entry: a directory's descriptor and a name in it, never outside the tree.

An entry's parents may be symlinks (lib -> usr/lib, followed by lib/x); they resolve as if the tree were "/", by
openat2(RESOLVE_IN_ROOT). The last component is never followed.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import NamedTuple

from pydiskimg.linux.openat2 import (
    RESOLVE_BENEATH,
    RESOLVE_IN_ROOT,
    RESOLVE_NO_MAGICLINKS,
    RESOLVE_NO_SYMLINKS,
    openat2,
)

_PATH_MAX = 4096
_NAME_MAX = 255
_MISSING_MODE = 0o755
_KEPT = 64
_NO_NAMES = (b"", b".", b"..")
_O_PATH = os.O_PATH | os.O_DIRECTORY


class UnsafePathError(ValueError):
    """An entry's path cannot be resolved inside the tree; the text is a clause for the message about the entry."""


class Spot(NamedTuple):
    """A name in a directory that the caller holds open."""

    directory: int
    name: bytes

    @property
    def path(self) -> bytes:
        """A path for calls without dir_fd; it is as safe, because name is one component."""
        return b"/proc/self/fd/%d/%s" % (self.directory, self.name)

    def lstat(self) -> os.stat_result:
        return os.stat(self.name, dir_fd=self.directory, follow_symlinks=False)


def components(path: bytes) -> list[bytes]:
    """Return the components of an entry's path below the tree's root; none for the root itself.

    A leading "/" and components "." are dropped. Raises UnsafePathError for "..".
    """
    parts = [part for part in path.split(b"/") if part not in (b"", b".")]
    if b".." in parts:
        raise UnsafePathError('its path has ".." in it')
    return parts


def check_length(path: bytes) -> None:
    """Raise UnsafePathError for a path, or a name in it, longer than the kernel accepts."""
    if len(path) <= _NAME_MAX:
        return
    if len(path) >= _PATH_MAX:
        raise UnsafePathError(f"its path of {len(path)} bytes is longer than the kernel accepts ({_PATH_MAX - 1})")
    longest = max(map(len, path.split(b"/")))
    if longest > _NAME_MAX:
        raise UnsafePathError(f"a name of {longest} bytes in its path is longer than the kernel accepts ({_NAME_MAX})")


class Parents:
    """Opens the directories of entries, and keeps the last ones open, because consecutive entries share directories.

    It borrows root_fd; close() closes the kept descriptors.
    """

    def __init__(self, root_fd: int) -> None:
        self._root_fd = root_fd
        self._kept: dict[bytes, int] = {}  # in the order of their last use
        self._last: bytes | None = None
        self._forgotten: list[int] = []

    def close(self) -> None:
        self.forget()
        self._close_forgotten()

    def forget(self) -> None:
        """Discard cached directories: call it when a symlink or a directory was removed."""
        self._forgotten += self._kept.values()
        self._kept.clear()
        self._last = None

    def spot(self, path: bytes, *, make: bool = True) -> Spot | None:
        """Return the place for an entry of this path; None for the root itself. Errors as for open()."""
        directory, _, name = path.rpartition(b"/")
        if directory == self._last and name not in _NO_NAMES:  # the most frequent case
            return Spot(self._kept[directory], name)
        if name in _NO_NAMES:
            parts = components(path)
            if not parts:
                return None
            directory, name = b"/".join(parts[:-1]), parts[-1]
        return Spot(self.open(directory, make=make), name)

    def open(self, path: bytes, *, make: bool = True) -> int:
        """Return an O_PATH descriptor of the directory of this path; it is valid until the next two calls, and not the
        caller's.

        Missing directories are made, mode 0755, unless make is false. Raises UnsafePathError and OSError.
        """
        fd = self._kept.pop(path, -1)
        if fd < 0:
            self._close_forgotten()
            fd = self._open(path, make=make)
            if len(self._kept) >= _KEPT:
                os.close(self._kept.pop(next(iter(self._kept))))
        self._kept[path] = fd
        self._last = path
        return fd

    def device(self, path: bytes) -> int:
        """Return the st_dev of the directory for an entry, or of its deepest existing parent. Raises OSError."""
        fd = self._deepest(components(path)[:-1])[1]
        try:
            return os.fstat(fd).st_dev
        finally:
            os.close(fd)

    def _close_forgotten(self) -> None:
        while self._forgotten:
            os.close(self._forgotten.pop())

    def _open(self, path: bytes, *, make: bool) -> int:
        above, _, name = path.rpartition(b"/")
        if above in self._kept and name not in _NO_NAMES:  # a single name costs less to resolve than a path
            with suppress(OSError):  # a symlink, or missing
                return os.open(name, _O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=self._kept[above])
        parts = components(path)
        try:
            return self._resolve(b"/".join(parts) or b".")
        except FileNotFoundError:
            if not make:
                raise
            return self._make(parts)

    def _resolve(self, path: bytes) -> int:
        if len(path) >= _PATH_MAX:
            return self._walk(path)
        try:
            return openat2(self._root_fd, path, _O_PATH, resolve=RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS)
        except OSError as error:
            if error.errno == errno.ENOTDIR:
                raise UnsafePathError("a parent in its path is not a directory") from error
            if error.errno in (errno.ELOOP, errno.EXDEV):
                raise UnsafePathError("its path has a loop of symlinks") from error
            raise

    def _walk(self, path: bytes) -> int:
        """Open a directory whose path is too long for one system call, step by step; symlinks are not followed."""
        fd = os.dup(self._root_fd)
        while path:
            end = len(path) if len(path) < _PATH_MAX else path.rindex(b"/", 0, _PATH_MAX)
            resolve = RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS | RESOLVE_NO_MAGICLINKS
            try:
                deeper = openat2(fd, path[:end], _O_PATH, resolve=resolve)
            finally:
                os.close(fd)
            fd, path = deeper, path[end + 1 :]
        return fd

    def _make(self, parts: list[bytes]) -> int:
        known, fd = self._deepest(parts)
        for count in range(known, len(parts)):
            try:
                self._make_one(fd, parts[count])
            finally:
                os.close(fd)
            fd = self._resolve(b"/".join(parts[: count + 1]))
        return fd

    def _deepest(self, parts: list[bytes]) -> tuple[int, int]:
        """Return how many of parts exist, and a descriptor of the directory at the last existing one."""
        for known in range(len(parts), 0, -1):
            try:
                return known, self._resolve(b"/".join(parts[:known]))
            except FileNotFoundError:
                continue
        return 0, self._resolve(b".")

    @staticmethod
    def _make_one(fd: int, name: bytes) -> None:
        try:
            os.mkdir(name, 0o700, dir_fd=fd)
        except FileExistsError as error:  # openat2 did not find it
            raise UnsafePathError("a parent in its path is a symlink that leads nowhere inside the tree") from error
        os.chmod(name, _MISSING_MODE, dir_fd=fd)  # independent of the umask


_Identity = tuple[int, int]


class Twins:
    """Records the copies of each file that were made because hard links cannot cross (docs/adr/0090).

    With the names /usr/a, /boot/b, /boot/c and /usr/d, and a mount at /boot, a file becomes two of two names each.
    root_fd is borrowed.
    """

    def __init__(self, root_fd: int) -> None:
        self._root_fd = root_fd
        # For each file and each of its copies the same group: path and identity by device.
        self._groups: dict[_Identity, dict[int, tuple[bytes, _Identity]]] = {}

    def add(self, path: bytes, status: os.stat_result, copy_path: bytes, copy: os.stat_result) -> None:
        """Note that the file at path was copied to copy_path as copy."""
        first, made = _identity(status), _identity(copy)
        group = self._groups.setdefault(first, {first[0]: (path, first)})
        group[made[0]] = copy_path, made
        self._groups[made] = group

    def forget(self, status: os.stat_result) -> None:
        """Forget a file that loses a name: its inode number or path may soon be another file's."""
        identity = _identity(status)
        group = self._groups.pop(identity, None)
        if group is not None and group.get(identity[0], (b"", ()))[1] == identity:
            del group[identity[0]]

    @contextmanager
    def opened(self, status: os.stat_result, device: int) -> Iterator[Spot | None]:
        """Give the copy of a file, or its original, on the file system device; None if there is none."""
        path, identity = self._groups.get(_identity(status), {}).get(device, (b"", None))
        parents = Parents(self._root_fd)
        spot = None
        try:
            if identity is not None:
                with suppress(FileNotFoundError, UnsafePathError):
                    found = parents.spot(path, make=False)
                    spot = found if found and _identity(found.lstat()) == identity else None
            yield spot
        finally:
            parents.close()


def _identity(status: os.stat_result) -> _Identity:
    return status.st_dev, status.st_ino
