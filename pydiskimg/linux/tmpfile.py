# SPDX-License-Identifier: MIT
"""A file that gets its name when it is complete: O_TMPFILE, linkat(2), and rename(2) over an existing file."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from pydiskimg.errors import StorageError
from pydiskimg.linux.procfs import require_proc

# The errors of file systems without O_TMPFILE; the last two from those that take it for O_DIRECTORY.
_NO_TMPFILE = (errno.EOPNOTSUPP, errno.EISDIR, errno.EINVAL)


class UnnamedFile:
    """A new file in an open directory; fd is its descriptor, for reading and writing."""

    def __init__(self, fd: int, directory: int, temporary: bytes | None) -> None:
        self.fd = fd
        self._directory = directory
        self._temporary = temporary

    def publish(self, name: str | bytes) -> None:
        """Give the (synced) file its name, replacing an existing file, and sync the directory. Raises OSError."""
        if self._temporary is None:
            self._temporary = _temporary_name()
            source = f"/proc/self/fd/{self.fd}"
            os.link(source, self._temporary, dst_dir_fd=self._directory, follow_symlinks=True)
        os.rename(self._temporary, name, src_dir_fd=self._directory, dst_dir_fd=self._directory)
        self._temporary = None
        sync_directory(self._directory)

    def close(self) -> None:
        """Close the file; unless it was published, it is gone."""
        os.close(self.fd)
        if self._temporary is not None:
            with suppress(OSError):
                os.unlink(self._temporary, dir_fd=self._directory)


@contextmanager
def unnamed_file(directory: int, *, mode: int) -> Iterator[UnnamedFile]:
    """Give a new file in the directory; the caller keeps its descriptor (O_PATH will do); the umask masks mode.

    If the file system does not support O_TMPFILE (NFS), or /proc, through which the file gets its name, is not mounted,
    the file is called .pydiskimg-* until it is published. Otherwise a process that is killed leaves such a name only
    between link and rename. Raises OSError.
    """
    fd, temporary = _opened(directory, mode)
    file = UnnamedFile(fd, directory, temporary)
    try:
        yield file
    finally:
        file.close()


def sync_directory(directory: int) -> None:
    """Sync an open directory, even one that is open with O_PATH. Raises OSError."""
    fd = os.open(".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=directory)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def _opened(directory: int, mode: int) -> tuple[int, bytes | None]:
    with suppress(StorageError):
        require_proc()
        try:
            return os.open(".", os.O_TMPFILE | os.O_RDWR | os.O_CLOEXEC, mode, dir_fd=directory), None
        except OSError as error:
            if error.errno not in _NO_TMPFILE:
                raise
    temporary = _temporary_name()
    flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    return os.open(temporary, flags, mode, dir_fd=directory), temporary


def _temporary_name() -> bytes:
    return b".pydiskimg-" + os.urandom(8).hex().encode()
