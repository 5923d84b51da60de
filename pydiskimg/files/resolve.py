# SPDX-License-Identifier: MIT
"""Where an entry goes: a directory's descriptor and one name in it, never outside the tree.

An entry's parents may be symlinks (lib -> usr/lib, followed by lib/x); they resolve as if the tree were "/", by
openat2(RESOLVE_IN_ROOT). The last component is never followed.
"""

from __future__ import annotations

import errno
import os

from pydiskimg.linux.openat2 import RESOLVE_IN_ROOT, RESOLVE_NO_MAGICLINKS, openat2

_PATH_MAX = 4096
_MISSING_MODE = 0o755


class UnsafePathError(ValueError):
    """An entry's path cannot be resolved inside the tree; the text is a clause for the message about the entry."""


def components(path: bytes) -> list[bytes]:
    """Return the components of an entry's path below the tree's root; none for the root itself.

    A leading "/" and components "." are dropped. Raises UnsafePathError for "..", and for a path longer than the kernel
    takes.
    """
    parts = [part for part in path.split(b"/") if part not in (b"", b".")]
    if b".." in parts:
        raise UnsafePathError('its path has ".." in it')
    if len(path) >= _PATH_MAX or any(len(part) > 255 for part in parts):
        raise UnsafePathError(f"its path of {len(path)} bytes is longer than the kernel takes")
    return parts


class Parents:
    """Opens the directories that entries go into, and remembers the last one.

    It borrows root_fd; close() closes the remembered descriptor.
    """

    def __init__(self, root_fd: int) -> None:
        self._root_fd = root_fd
        self._path: bytes | None = None
        self._fd = -1

    def close(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
        self._path, self._fd = None, -1

    def forget(self) -> None:
        """Resolve anew next time: call it when a symlink came, or a symlink or directory went away."""
        self._path = None

    def open(self, parts: list[bytes], *, make: bool = True) -> int:
        """Return an O_PATH descriptor of the directory that parts name; it stays ours, and valid until the next call.

        Directories that are missing are made, mode 0755, unless make is false. Raises UnsafePathError and OSError.
        """
        path = b"/".join(parts) or b"."
        if self._path == path:
            return self._fd
        try:
            fd = self._resolve(path)
        except FileNotFoundError:
            if not make:
                raise
            fd = self._make(parts)
        self.close()
        self._path, self._fd = path, fd
        return fd

    def device(self, parts: list[bytes]) -> int:
        """Return the st_dev of the directory that parts name, or of the deepest one above it. Raises OSError."""
        fd = self._deepest(parts)[1]
        try:
            return os.fstat(fd).st_dev
        finally:
            os.close(fd)

    def _resolve(self, path: bytes) -> int:
        flags = os.O_PATH | os.O_DIRECTORY
        try:
            return openat2(self._root_fd, path, flags, resolve=RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS)
        except OSError as error:
            if error.errno == errno.ENOTDIR:
                raise UnsafePathError("a parent in its path is no directory") from error
            if error.errno in (errno.ELOOP, errno.EXDEV):
                raise UnsafePathError("its path runs in a circle of symlinks") from error
            raise

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
        """Return how many of parts exist, and a descriptor of the directory that they name."""
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
        os.chmod(name, _MISSING_MODE, dir_fd=fd)  # the umask does not count
