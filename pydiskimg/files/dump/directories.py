# SPDX-License-Identifier: MIT
"""The directories that are restored into, made and opened without a path ever leaving the tree.

Every one is opened from its parent's descriptor, or by a path from an ancestor's that the kernel walks without
following a symlink (openat2). The last ones used are kept open: the inodes of one directory lie together.
"""

from __future__ import annotations

import os
import stat
from contextlib import suppress

from pydiskimg.files.dump.names import Directory
from pydiskimg.linux.openat2 import RESOLVE_BENEATH, RESOLVE_NO_MAGICLINKS, RESOLVE_NO_SYMLINKS, openat2

_KEPT = 64
_PATH_ROOM = 3800  # bytes of a path that one system call takes, with one more name of 255
_O_PATH = os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_RESOLVE = RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS | RESOLVE_NO_MAGICLINKS


class Directories:
    """Opens directories of the dump below root_fd, which it borrows. Close it."""

    def __init__(self, root_fd: int) -> None:
        self._root_fd = root_fd
        self._kept: dict[Directory, int] = {}
        self._there_before = set(map(os.fsencode, os.listdir(root_fd)))

    def close(self) -> None:
        for fd in self._kept.values():
            os.close(fd)
        self._kept.clear()

    def new_files_are_roots(self) -> bool:
        """True when whatever is made here belongs to root and its group, so that nobody has to say so.

        A directory hands its group on by its set-group-id bit or by a mount option; ours get theirs at the end.
        """
        return os.geteuid() == os.getegid() == 0 == os.fstat(self._root_fd).st_gid

    def make(self, directory: Directory) -> None:
        """Make a directory, whose parent is made already. Raises OSError; FileExistsError when its name comes twice.

        One that lies in the root since before the restoring is taken for it (lost+found, a mount point).
        """
        assert directory.parent is not None
        parent = self.open(directory.parent)
        try:
            os.mkdir(directory.name, 0o700, dir_fd=parent)
        except FileExistsError:
            if directory.parent.parent is not None or directory.name not in self._there_before:
                raise
            self._there_before.discard(directory.name)
            status = os.stat(directory.name, dir_fd=parent, follow_symlinks=False)
            if not stat.S_ISDIR(status.st_mode):
                raise
            fd = self.open_to_set(directory)
            try:
                drop_acls(fd)
            finally:
                os.close(fd)

    def open(self, directory: Directory) -> int:
        """Return an O_PATH descriptor of a directory that is made; ours, and valid until the next two calls."""
        if directory.parent is None:
            return self._root_fd
        fd = self._kept.pop(directory, -1)
        if fd < 0:
            fd = self._open(directory)
            if len(self._kept) >= _KEPT:
                os.close(self._kept.pop(next(iter(self._kept))))
        self._kept[directory] = fd  # the last of the dictionary is the last one used
        return fd

    def open_to_set(self, directory: Directory) -> int:
        """Return a descriptor of a directory by which its attributes can be set; the caller closes it."""
        flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
        if directory.parent is None:
            return os.open(".", flags, dir_fd=self._root_fd)
        return os.open(directory.name, flags, dir_fd=self.open(directory.parent))

    def _open(self, directory: Directory) -> int:
        """Walk down from the deepest ancestor that is open."""
        names: list[bytes] = []
        at = directory
        while at.parent is not None and at not in self._kept:
            names.append(at.name)
            at = at.parent
        start = fd = self._kept.get(at, self._root_fd)
        try:
            while names:
                path = names.pop()
                while names and len(path) < _PATH_ROOM:
                    path += b"/" + names.pop()
                deeper = _walk(fd, path)
                if fd != start:
                    os.close(fd)
                fd = deeper
        except BaseException:
            if fd != start:
                os.close(fd)
            raise
        return fd


def _walk(fd: int, path: bytes) -> int:
    if b"/" not in path:
        return os.open(path, _O_PATH, dir_fd=fd)
    return openat2(fd, path, _O_PATH, resolve=_RESOLVE)


def drop_acls(fd: int) -> None:
    """Take away what a directory has or inherited: what is made in it would inherit it too."""
    for attribute in ("system.posix_acl_access", "system.posix_acl_default"):
        with suppress(OSError):
            os.removexattr(fd, attribute)
