# SPDX-License-Identifier: MIT
"""A file copied where a hard link to it cannot be: onto another file system (docs/adr/0090).

Its further names there are linked to that copy: with the names /usr/a, /boot/b, /boot/c and /usr/d, and a mount at
/boot, it becomes two files of two names each. Only descriptors of directories are used, and names that are never
followed, so that the copy is of the file that the link would have led to, and of no other.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass

from pydiskimg.files.attributes import ACLS, AttributesLeftOut, get_attributes, set_attributes
from pydiskimg.files.resolve import Parents, UnsafePathError
from pydiskimg.linux.fileio import pread_into, pwrite_all
from pydiskimg.linux.memfd import data_ranges
from pydiskimg.units import MIB

_CHUNK = MIB
_CREATE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC


@dataclass(frozen=True, slots=True)
class Spot:
    """A name in a directory that the caller holds open."""

    directory: int
    name: bytes

    @property
    def path(self) -> bytes:
        """A path for what has no variant with dir_fd; it is as safe, as name is one component."""
        return b"/proc/self/fd/%d/%s" % (self.directory, self.name)

    def lstat(self) -> os.stat_result:
        return os.stat(self.name, dir_fd=self.directory, follow_symlinks=False)


def copy_file(source: Spot, target: Spot, *, path: bytes, name: str, left_out: AttributesLeftOut) -> None:
    """Make target, which must not exist, as source is: anything but a directory. Nothing special is ever opened.

    Contents with their holes, owner, mode, times, extended attributes and ACLs come out as they are; left_out gets
    the attributes that target's file system cannot hold, and path with them. name is for messages. Raises OSError.
    """
    fd = os.open(source.name, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=source.directory)
    try:
        status = os.fstat(fd)
        if stat.S_ISREG(status.st_mode):
            _copy_regular(fd, status, target, name, _Setting(status, path, left_out))
        else:
            _copy_other(source, status, target, _Setting(status, path, left_out))
    finally:
        os.close(fd)


def _copy_regular(held: int, status: os.stat_result, target: Spot, name: str, setting: _Setting) -> None:
    # Opened by the descriptor that was found to be a regular file; O_NOATIME, as its times are set already.
    source = os.open(b"/proc/self/fd/%d" % held, os.O_RDONLY | os.O_NOATIME | os.O_CLOEXEC)
    try:
        made = os.open(target.name, _CREATE, 0o600, dir_fd=target.directory)
        try:
            _copy_contents(source, made, status.st_size, name)
            os.fchown(made, status.st_uid, status.st_gid)
            setting.attributes(get_attributes(source), made, lambda: os.fchmod(made, stat.S_IMODE(status.st_mode)))
            os.utime(made, ns=(status.st_atime_ns, status.st_mtime_ns))
        finally:
            os.close(made)
    finally:
        os.close(source)


def _copy_contents(source: int, made: int, size: int, name: str) -> None:
    buffer = memoryview(bytearray(min(_CHUNK, size)))
    for start, end in data_ranges(source):
        for position in range(start, end, _CHUNK):
            chunk = buffer[: min(_CHUNK, end - position)]
            pread_into(source, position, chunk, name=name)
            pwrite_all(made, position, chunk, name=name)
    os.ftruncate(made, size)


def _copy_other(source: Spot, status: os.stat_result, target: Spot, setting: _Setting) -> None:
    is_link = stat.S_ISLNK(status.st_mode)
    if is_link:
        os.symlink(os.readlink(source.name, dir_fd=source.directory), target.name, dir_fd=target.directory)
    else:
        kind = stat.S_IFMT(status.st_mode)
        os.mknod(target.name, kind | 0o600, status.st_rdev, dir_fd=target.directory)

    def set_mode() -> None:
        if not is_link:
            os.chmod(target.name, stat.S_IMODE(status.st_mode), dir_fd=target.directory)

    os.chown(target.name, status.st_uid, status.st_gid, dir_fd=target.directory, follow_symlinks=False)
    setting.attributes(get_attributes(source.path), target.path, set_mode)
    times = status.st_atime_ns, status.st_mtime_ns
    os.utime(target.name, ns=times, dir_fd=target.directory, follow_symlinks=False)


@dataclass(frozen=True, slots=True)
class _Setting:
    status: os.stat_result
    path: bytes
    left_out: AttributesLeftOut

    def attributes(self, found: dict[bytes, bytes], file: int | bytes, set_mode: Callable[[], None]) -> None:
        """Set attributes before a mode that may forbid it, and ACLs after the mode, which changes them."""
        acls = {name: found.pop(name) for name in ACLS if name in found}
        kind = stat.S_IFMT(self.status.st_mode)
        set_attributes(file, found, kind=kind, path=self.path, left_out=self.left_out)
        set_mode()
        set_attributes(file, acls, kind=kind, path=self.path, left_out=self.left_out)


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
