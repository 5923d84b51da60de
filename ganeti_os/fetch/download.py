# SPDX-License-Identifier: MIT
"""Fetch one file from a site into the part in the cache, continuing where an earlier attempt or process ended."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from ganeti_os.fetch.cache import CachedFile, Origin, open_regular
from ganeti_os.fetch.site import Site
from pydiskimg.errors import DoesNotFitError, StorageError, storage_error
from pydiskimg.linux.fileio import pwrite_all
from pydiskimg.protocols import Progress
from pydiskimg.units import MIB, format_bytes, format_size
from pydiskimg.web.client import Answer
from pydiskimg.web.errors import FetchError, UnreachableError
from pydiskimg.web.retries import retried
from pydiskimg.web.versions import content_range, validator

_CHUNK = MIB
_FULL = (errno.ENOSPC, errno.EDQUOT)


class NotNeeded(FetchError):  # noqa: N818 - not an error: the answer to a question
    """The server says that it has no newer version than the one in the request."""


@contextmanager
def open_part(file: CachedFile) -> Iterator[int]:
    """Give a descriptor of the part, which is made if missing, and removed if it is empty in the end."""
    try:
        fd = open_regular(file.part, os.O_RDWR | os.O_CREAT)
    except OSError as error:
        raise storage_error(error, file.part, "cannot make a file in the cache directory (CACHE_DIR)") from error
    try:
        yield fd
    finally:
        if not os.fstat(fd).st_size:
            file.discard_part()
        os.close(fd)


@dataclass(slots=True)
class Download:
    """Fetches a file into the part open at fd; origin is the part's, None to begin anew.

    current is the version that is already there: if the server has no other, run() raises NotNeeded. checked means that
    a checksum will reveal errors. started is called with the size, once that is known.
    """

    site: Site
    file: CachedFile
    fd: int
    progress: Progress
    check: Callable[[], None]
    started: Callable[[int], None]
    checked: bool
    origin: Origin | None = None
    current: Origin | None = None

    def run(self) -> Origin:
        """Return the origin of the complete part. Raises FetchError, DoesNotFitError and StorageError."""
        retried(self._attempt, self.check, brought=self._size)
        assert self.origin is not None
        return self.origin

    def _size(self) -> int:
        return os.fstat(self.fd).st_size

    def _attempt(self) -> None:
        position = self._size()
        headers = _condition(self.current)
        if position and self.origin and self.origin.validator and self.origin.url == self.site.url(self.file.name):
            headers = {"Range": f"bytes={position}-", "If-Range": self.origin.validator}
        else:
            self._restart()
        with self.site.open(self.file.name, headers) as answer:
            if answer.status == 304 and self.current is not None:
                raise NotNeeded(f"{answer.url}: has not changed")
            if answer.status == 416 and self._is_complete(answer):
                return
            if answer.status == 200:
                self._restart()
                self._begin(answer)
            elif not self._goes_on(answer):
                self._restart()
                raise UnreachableError(f"{answer.url}: the server does not continue at byte {position}")
            self._receive(answer)

    def _restart(self) -> None:
        os.ftruncate(self.fd, 0)
        self.origin = None

    def _begin(self, answer: Answer) -> None:
        if not self.checked and not answer.marks_its_end:
            raise FetchError(
                f"{answer.url}: the server does not send the size, so without a checksum (IMAGE_VERIFY=no) a truncated "
                "image would not be noticed; put a checksum there"
            )
        self.origin = Origin(self.site.url(self.file.name), validator(answer), answer.length)
        self.file.write_origin(self.origin)

    def _is_complete(self, answer: Answer) -> bool:
        return self.origin is not None and content_range(answer) == (None, None, self._size())

    def _goes_on(self, answer: Answer) -> bool:
        """True if the answer begins at the end of the part, and is of the same file."""
        start, _, total = content_range(answer)
        if self.origin is None or answer.status != 206 or start != self._size():
            return False
        if not self._has_validator(answer, self.origin.validator):
            return False
        return None in (total, self.origin.total) or total == self.origin.total

    def _has_validator(self, answer: Answer, validator: str) -> bool:
        """True if the answer is of the version of the part; an answer without a version is believed if there is a
        checksum.
        """
        found = answer.headers.get("ETag" if validator.startswith('"') else "Last-Modified")
        return self.checked if found is None else found == validator

    def _receive(self, answer: Answer) -> None:
        assert self.origin is not None
        position, total = self._size(), self.origin.total
        if total is not None:
            self.started(total)
            self._check_space(total - position, total)
        elif answer.length is not None:
            total = position + answer.length
        expected = None if total is None else total - position
        while data := answer.read(_CHUNK if expected is None else min(_CHUNK, expected)):
            self._write(position, data)
            position += len(data)
            expected = None if expected is None else expected - len(data)
            self.progress(position, total or 0)
        if expected:
            raise UnreachableError(
                f"{answer.url}: the connection ended after {position} of {format_bytes(position + expected)}"
            )

    def _check_space(self, needed: int, total: int) -> None:
        status = os.fstatvfs(self.fd)
        free = status.f_bavail * status.f_frsize
        if needed > free:
            raise DoesNotFitError(
                f"{self.file.directory}: {self.file.name} has {format_bytes(total)}, of which {format_size(needed)} "
                f"are missing, and {format_bytes(free)} are free; free some space or set CACHE_DIR",
                needed=needed,
                available=free,
            )

    def _write(self, position: int, data: bytes) -> None:
        try:
            pwrite_all(self.fd, position, data, name=self.file.part)
        except StorageError as error:
            if error.errno not in _FULL:
                raise
            total = self.origin.total if self.origin else None
            self._restart()  # a full /var would do more harm than fetching again
            raise DoesNotFitError(
                f"{self.file.directory}: became full when {format_bytes(position)} of {self.file.name} "
                f"({format_bytes(total) if total else 'of a size that the server does not state'}) had arrived; "
                "free some space or set CACHE_DIR",
                needed=total or position + len(data),
                available=position,
            ) from error


def _condition(current: Origin | None) -> dict[str, str]:
    if current is None or not current.validator:
        return {}
    return {"If-None-Match" if current.validator.startswith('"') else "If-Modified-Since": current.validator}
