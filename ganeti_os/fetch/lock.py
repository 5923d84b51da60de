# SPDX-License-Identifier: MIT
"""Locks that show who fetches an image and who uses it, of all processes on the node: on two bytes of a file.

    byte 0   use      shared: waits for the image or uses it; exclusive: deletes it
    byte 1   fetch    exclusive: looks whether the image is good, and fetches it

They are "open file description" locks of fcntl(2), which end with the process in any case. The file's text tells the
others who fetches, and how large the image is.
"""

from __future__ import annotations

import errno
import fcntl
import logging
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from ganeti_os.fetch.cache import open_regular
from pydiskimg.errors import storage_error
from pydiskimg.linux.locks import set_lock

log = logging.getLogger(__name__)

_USE, _FETCH = 0, 1
_POLL_SECONDS = 0.1
_TEXT_LIMIT = 512


@dataclass(frozen=True, slots=True)
class Fetcher:
    """The process that fetches: its id, its instance, and the image's size in bytes, 0 while that is not known."""

    pid: int
    instance: str
    total: int = 0

    def __str__(self) -> str:
        return f"process {self.pid} (instance {self.instance or 'not known'})"


class ImageLock:
    """Made by using(); its descriptor is that function's."""

    def __init__(self, fd: int, path: str) -> None:
        self._fd = fd
        self._path = path

    @contextmanager
    def fetching(self, me: Fetcher, wait: Callable[[Fetcher | None], None]) -> Iterator[None]:
        """Become the only process that fetches. wait is called several times per second while another one does."""
        while not _lock(self._fd, _FETCH, fcntl.F_WRLCK):
            wait(self._fetcher())
            time.sleep(_POLL_SECONDS)
        try:
            self.tell(me)
            yield
        finally:
            _lock(self._fd, _FETCH, fcntl.F_UNLCK)

    def tell(self, me: Fetcher) -> None:
        """Record this for processes that wait; failure on a full file system is harmless. Only while fetching."""
        text = f"{me.pid} {me.total} {me.instance}\n".encode("utf-8", "replace")
        try:
            os.ftruncate(self._fd, 0)
            os.pwrite(self._fd, text[:_TEXT_LIMIT], 0)
        except OSError as error:
            log.debug("%s", storage_error(error, self._path, "cannot tell who fetches"))

    def alone(self) -> bool:
        """End the use, and return whether it was the last one; no new use begins until the file is closed."""
        _lock(self._fd, _USE, fcntl.F_UNLCK)
        return _lock(self._fd, _USE, fcntl.F_WRLCK) and _is(self._fd, self._path)

    def _fetcher(self) -> Fetcher | None:
        fields = os.pread(self._fd, _TEXT_LIMIT, 0).decode("utf-8", "replace").split()
        if len(fields) < 2 or not all(field.isdecimal() for field in fields[:2]):  # it is just being written
            return None
        return Fetcher(int(fields[0]), " ".join(fields[2:]), int(fields[1]))


@contextmanager
def using(path: str, check: Callable[[], None], last: Callable[[], None]) -> Iterator[ImageLock]:
    """Count as a user of the image whose lock file is at path, while the context lasts.

    check is called while another process deletes the image, last when the last user leaves, before another can start.
    The lock file is made if missing, and the last user removes it. Raises StorageError; leaving the context raises
    nothing.
    """
    fd = _open(path, check)
    lock = ImageLock(fd, path)
    try:
        yield lock
    finally:
        try:
            if lock.alone():
                last()
                os.unlink(path)
        except OSError as error:  # the next user that leaves will do it
            log.warning("%s", storage_error(error, path, "cannot clean up"))
        finally:
            os.close(fd)


def _open(path: str, check: Callable[[], None]) -> int:
    while True:
        try:
            fd = open_regular(path, os.O_RDWR | os.O_CREAT)
        except OSError as error:
            raise storage_error(error, path, "cannot make a lock file in the cache directory (CACHE_DIR)") from error
        try:
            while not _lock(fd, _USE, fcntl.F_RDLCK):
                check()
                time.sleep(_POLL_SECONDS)
            if _is(fd, path):  # not removed between the two calls
                return fd
        except OSError as error:
            os.close(fd)
            raise storage_error(error, path, "cannot lock") from error
        except BaseException:
            os.close(fd)
            raise
        os.close(fd)


def _lock(fd: int, byte: int, kind: int) -> bool:
    """Take (F_RDLCK, F_WRLCK) or release (F_UNLCK) the lock on one byte; False if others have it."""
    try:
        set_lock(fd, kind, byte, 1)
    except OSError as error:
        if error.errno in (errno.EAGAIN, errno.EACCES):
            return False
        raise
    return True


def _is(fd: int, path: str) -> bool:
    try:
        return os.path.samestat(os.fstat(fd), os.lstat(path))
    except FileNotFoundError:
        return False
