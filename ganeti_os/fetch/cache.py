# SPDX-License-Identifier: MIT
"""CACHE_DIR: the fetched images, and a hidden record of each.

FILE          the image, complete
.FILE.part    the part fetched so far, until it is complete and checked
.FILE.from    JSON: what the part is a part of
.FILE.json    JSON: what the image was checked with
.FILE.lock    lock.py
"""

from __future__ import annotations

import json
import logging
import os
import stat
import time
from contextlib import suppress
from dataclasses import asdict, dataclass
from typing import Any

from ganeti_os.fetch.checksums import Checksum
from pydiskimg.errors import storage_error
from pydiskimg.web.errors import FetchError

log = logging.getLogger(__name__)

FORGOTTEN_SECONDS = 7 * 24 * 3600

_RECORD_LIMIT = 1 << 16
_DIRECTORY_MODE = 0o755
_NEW = ".new"


@dataclass(frozen=True, slots=True)
class Origin:
    """The version of a file: the validator is its strong ETag or its Last-Modified, empty without either.

    total is its size in bytes, None if the server does not state it.
    """

    url: str
    validator: str = ""
    total: int | None = None


@dataclass(frozen=True, slots=True)
class Record:
    """The image in the cache: its origin, its checksum (None: not checked), and which file exactly.

    signer is the fingerprint of the certificate that signed the checksum, empty if no signature was verified.
    """

    origin: Origin
    checksum: Checksum | None
    size: int
    mtime_ns: int
    inode: int
    signer: str = ""

    @classmethod
    def of(cls, status: os.stat_result, origin: Origin, checksum: Checksum | None, signer: str = "") -> Record:
        return cls(origin, checksum, status.st_size, status.st_mtime_ns, status.st_ino, signer)

    def is_of(self, status: os.stat_result) -> bool:
        """True if the file is the recorded one and has not been written to since."""
        return (self.size, self.mtime_ns, self.inode) == (status.st_size, status.st_mtime_ns, status.st_ino)


class CachedFile:
    """The paths of one image in the cache, and its record; hold the lock for fetching to write them."""

    def __init__(self, directory: str, name: str) -> None:
        self.directory = directory
        self.name = name
        self.path = os.path.join(directory, name)
        self.part = os.path.join(directory, f".{name}.part")
        self.lock = os.path.join(directory, f".{name}.lock")
        self._origin = os.path.join(directory, f".{name}.from")
        self._record = os.path.join(directory, f".{name}.json")

    def status(self) -> os.stat_result | None:
        """Return the result of os.stat() for the image, None if there is none."""
        try:
            status = os.stat(self.path)
        except FileNotFoundError:
            return None
        except OSError as error:
            raise storage_error(error, self.path, "cannot examine the image in the cache") from error
        if not stat.S_ISREG(status.st_mode):
            raise FetchError(f"{self.path}: found a directory or special file where the fetched image would be")
        return status

    def record(self) -> Record | None:
        """Return the record of the image; None if there is none, or it is about another file than the present one."""
        status = self.status()
        found = _read_json(self._record)
        try:
            origin, checksum = Origin(**found.pop("origin")), found.pop("checksum")
            record = Record(origin=origin, checksum=Checksum(**checksum) if checksum else None, **found)
        except (AttributeError, KeyError, TypeError):  # none, or not in the right form
            return None
        return record if status is not None and record.is_of(status) else None

    def write_record(self, record: Record) -> None:
        _write_json(self._record, asdict(record))

    def origin(self) -> Origin | None:
        """Return the origin of the part; None if that is not known."""
        try:
            return Origin(**_read_json(self._origin))
        except TypeError:
            return None

    def write_origin(self, origin: Origin) -> None:
        _write_json(self._origin, asdict(origin))

    def publish(self, fd: int, origin: Origin, checksum: Checksum | None, signer: str = "") -> None:
        """Make the part, open at fd, the image: durable, then under its name in one step, then recorded."""
        try:
            os.fchmod(fd, 0o644)  # independent of the umask
            os.fsync(fd)
            os.replace(self.part, self.path)
            _sync(self.directory)
        except OSError as error:
            raise storage_error(error, self.path, "cannot put the fetched image into the cache") from error
        self.write_record(Record.of(os.fstat(fd), origin, checksum, signer))
        _remove(self._origin)

    def delete(self) -> None:
        """Delete the image and its record. Raises OSError."""
        for path in (self.path, self._record):
            _remove(path)

    def tidy(self) -> None:
        """Remove the file that a process left that was killed while it wrote a record."""
        for path in (self._origin, self._record):
            _remove(path + _NEW)

    def discard_part(self) -> None:
        for path in (self.part, self._origin):
            _remove(path)


def open_regular(path: str, flags: int, *, follow: bool = False) -> int:
    """Return a descriptor of a file, which the caller closes. Raises OSError, also for a special file.

    follow means that it may be a symlink. Opening a FIFO would wait for its other end, perhaps forever.
    """
    fd = os.open(path, flags | os.O_NONBLOCK | (0 if follow else os.O_NOFOLLOW) | os.O_CLOEXEC, 0o644)
    if stat.S_ISREG(os.fstat(fd).st_mode):
        return fd
    os.close(fd)
    raise OSError("it is not a regular file")


def forgotten(directory: str) -> list[CachedFile]:
    """Return the images whose parts in the cache have not grown for FORGOTTEN_SECONDS."""
    found = []
    with os.scandir(directory) as entries:
        for entry in entries:
            if not (entry.name.startswith(".") and entry.name.endswith(".part")):
                continue
            with suppress(FileNotFoundError):
                if entry.stat(follow_symlinks=False).st_mtime < time.time() - FORGOTTEN_SECONDS:
                    found.append(CachedFile(directory, entry.name[1 : -len(".part")]))
    return found


def open_cache(directory: str) -> None:
    """Ensure that there is a cache directory that only root can write to; make it if it is missing.

    Raises FetchError if others can write to it, StorageError when it cannot be made.
    """
    try:
        _make(directory)
        status = os.stat(directory)
    except OSError as error:
        raise storage_error(error, directory, "cannot make the cache directory (CACHE_DIR)") from error
    if not stat.S_ISDIR(status.st_mode):
        raise FetchError(f"{directory}: CACHE_DIR is not a directory")
    if status.st_uid not in (0, os.geteuid()):
        raise FetchError(f"{directory}: CACHE_DIR belongs to user {status.st_uid}; expected root as its owner")
    if status.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        raise FetchError(
            f"{directory}: others than its owner can write to CACHE_DIR (mode {stat.S_IMODE(status.st_mode):04o}) and "
            "so change the images; take the write permission away from group and others"
        )


def _make(directory: str) -> None:
    if os.path.isdir(directory):
        return
    parent = os.path.dirname(directory)
    if parent != directory:
        _make(parent)
    with suppress(FileExistsError):  # another create was faster
        os.mkdir(directory, 0o700)
        os.chmod(directory, _DIRECTORY_MODE)  # independent of the umask


def _read_json(path: str) -> dict[str, Any]:
    """Return the object in a file; empty if there is none that can be read."""
    try:
        with open(open_regular(path, os.O_RDONLY), "rb") as file:
            found = json.loads(file.read(_RECORD_LIMIT))
    except (OSError, ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def _write_json(path: str, value: dict[str, Any]) -> None:
    """Record something; if there is no space, the image will be checked or fetched again."""
    temporary = path + _NEW
    try:
        with open(open_regular(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), "w", encoding="ascii") as file:
            json.dump(value, file)
            file.flush()
            os.fchmod(file.fileno(), 0o644)
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError as error:
        log.info("%s", storage_error(error, path, "cannot record what is fetched"))
        for name in (temporary, path):  # the previous record is not true any more
            with suppress(OSError):
                os.unlink(name)


def _sync(directory: str) -> None:
    fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def _remove(path: str) -> None:
    with suppress(FileNotFoundError):
        os.unlink(path)
