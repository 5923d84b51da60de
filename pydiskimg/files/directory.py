# SPDX-License-Identifier: MIT
"""The files below a directory as entries. Symlinks are not followed, and only files and directories are opened."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from itertools import chain
from typing import TypeAlias

from pydiskimg.errors import StorageError, storage_error
from pydiskimg.files.acl import decode, is_minimal
from pydiskimg.files.attributes import ACLS, get_attributes
from pydiskimg.files.entry import Contents, Entry
from pydiskimg.files.entry_progress import stored_bytes, with_progress
from pydiskimg.files.resolve import Spot
from pydiskimg.linux.fileio import pread_into
from pydiskimg.linux.memfd import data_ranges
from pydiskimg.protocols import Progress
from pydiskimg.units import MIB

Identity: TypeAlias = "tuple[int, int]"
"""st_dev and st_ino of a file."""
MoreAttributes: TypeAlias = "Callable[[bytes, int], Mapping[bytes, bytes]]"

_CHUNK = MIB
_COPIED = (b"user.", b"trusted.", b"security.", *ACLS)  # the other flags depend on the file system
_HARD_LINK = 0


@contextmanager
def opened_entry(
    spot: Spot, path: bytes, *, name: str, flags: int = 0, beginnings: tuple[bytes, ...] = (b"",)
) -> Iterator[Entry]:
    """Give the file at spot as an entry of this path, whose contents can be read until the context is left.

    flags are additional flags for opening it. It gets the extended attributes with these prefixes. name is the file's
    in messages about its contents. Raises OSError.
    """
    held = os.open(spot.name, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=spot.directory)
    try:
        status = os.fstat(held)
        entry = _bare_entry(path, status)
        if not stat.S_ISREG(status.st_mode):
            entry.link = os.readlink(b"", dir_fd=held) if stat.S_ISLNK(status.st_mode) else b""
            _add_attributes(entry, spot.path, beginnings)
            yield entry
            return
        # Opened through the descriptor that was found to be a regular file.
        fd = os.open(b"/proc/self/fd/%d" % held, os.O_RDONLY | os.O_CLOEXEC | flags)
        try:
            entry.contents = _contents(fd, status.st_size, name)
            _add_attributes(entry, fd, beginnings)
            yield entry
        finally:
            os.close(fd)
    finally:
        os.close(held)


@dataclass(slots=True)
class DirectoryReader:
    """Entries of all files below the directory top, sorted by bytes, each directory before its files.

    entries() yields them for populate(), build_system() or ChangedTree.put(). top is bytes. prefix is the path of an
    entry for top itself and begins all other paths; b"" means that there is no such entry. attributes returns
    additional extended attributes for an entry's path and its S_IF constant; the file's own take precedence. progress
    is called with the bytes of files that were read and an estimate of all, without holes. refused has files that must
    not be copied, by (st_dev, st_ino), with the reason.

    Raises StorageError for one of these and if the system refuses an operation, InvalidImageError for a file that
    shrinks meanwhile.

    >>> import os
    >>> from pydiskimg import DirectoryReader, MemoryDisk, populate
    >>> os.mkdir("site"); open("site/index.html", "w").close()
    >>> populate(MemoryDisk(16 << 20), DirectoryReader(b"site").entries()).entries
    1
    """

    top: bytes
    progress: Progress | None = None
    attributes: MoreAttributes | None = None
    prefix: bytes = b""
    refused: Mapping[Identity, str] = field(default_factory=dict)
    _first: dict[tuple[int, int], bytes] = field(default_factory=dict)

    def entries(self) -> Iterator[Entry]:
        if b"\0" in self.top:
            name = os.fsdecode(self.top)
            raise StorageError(f"{name}: a path cannot have a NUL byte in it", errno=errno.EINVAL, filename=name)
        try:
            status = os.lstat(self.top)
        except OSError as error:
            raise storage_error(error, os.fsdecode(self.top), "cannot be read to be copied") from error
        if not self.prefix and not stat.S_ISDIR(status.st_mode):  # without an entry of its own nothing would be left
            name = os.fsdecode(self.top)
            hint = "; end its name with a slash to follow it" if stat.S_ISLNK(status.st_mode) else ""
            raise StorageError(f"{name}: is not a directory{hint}", errno=errno.ENOTDIR, filename=name)
        if self.progress is None:
            return self._entries()
        return with_progress(self._entries(), self.progress, _total(self.top))

    def _entries(self) -> Iterator[Entry]:
        for spot, path, status in chain(self._top(), _walk(self.top)):
            check_not_refused(self.refused, status, os.path.join(self.top, path) if path else self.top)
            below = path if not self.prefix else self.prefix + b"/" + path if path else self.prefix
            if not stat.S_ISDIR(status.st_mode) and status.st_nlink > 1:
                first = self._first.setdefault((status.st_dev, status.st_ino), below)
                if first != below:
                    yield replace(_bare_entry(below, status), kind=_HARD_LINK, link=first, size=0)
                    continue
            yield from self._entry(spot, below, os.path.join(self.top, path) if path else self.top)
            if not path and not stat.S_ISDIR(status.st_mode):
                break

    def _top(self) -> Iterator[tuple[Spot, bytes, os.stat_result]]:
        """Yield what _walk() would yield for top itself."""
        if not self.prefix:
            return
        above, name = os.path.split(self.top)
        try:
            fd = os.open(above or b".", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
            try:
                spot = Spot(fd, name)
                yield spot, b"", spot.lstat()
            finally:
                os.close(fd)
        except StorageError:
            raise
        except OSError as error:
            raise storage_error(error, os.fsdecode(self.top), "cannot be read to be copied") from error

    def _entry(self, spot: Spot, path: bytes, source: bytes) -> Iterator[Entry]:
        name = os.fsdecode(source)
        try:
            with opened_entry(spot, path, name=name, flags=os.O_NONBLOCK, beginnings=_COPIED) as found:
                if self.attributes:
                    found.xattrs = {**self.attributes(path, found.kind), **found.xattrs}
                yield found
        except StorageError:
            raise
        except OSError as error:
            raise storage_error(error, name, "cannot be read to be copied") from error


def _contents(fd: int, size: int, name: str) -> Contents:
    buffer = memoryview(bytearray(min(_CHUNK, size)))
    for start, end in data_ranges(fd):
        for position in range(start, min(end, size), _CHUNK):
            chunk = buffer[: min(_CHUNK, min(end, size) - position)]
            pread_into(fd, position, chunk, name=name)
            yield position, chunk


def _walk(top: bytes) -> Iterator[tuple[Spot, bytes, os.stat_result]]:
    """Yield the location of everything below top, its path below top and its lstat."""

    def fail(error: OSError) -> None:
        where = error.filename if isinstance(error.filename, str | bytes) else top
        raise storage_error(error, os.fsdecode(where), "cannot be listed") from error

    for directory, directories, files, fd in os.fwalk(top, onerror=fail):
        below = directory[len(top) :].lstrip(b"/")
        directories.sort()
        for name in sorted([*directories, *files]):
            spot = Spot(fd, name)
            yield spot, os.path.join(below, name), spot.lstat()


def check_not_refused(refused: Mapping[Identity, str], status: os.stat_result, path: bytes) -> None:
    """Raise StorageError for a file in refused."""
    reason = refused.get((status.st_dev, status.st_ino))
    if reason is not None:
        name = os.fsdecode(path)
        raise StorageError(f"{name}: {reason}", errno=errno.EINVAL, filename=name)


def _total(top: bytes) -> int:
    """Bytes that the files store, each counted once, however many names it has."""
    with suppress(OSError):  # reading the file will report the error
        status = os.lstat(top)
        if not stat.S_ISDIR(status.st_mode):
            return stored_bytes(status)
    return sum({(status.st_dev, status.st_ino): stored_bytes(status) for _, _, status in _walk(top)}.values())


def _bare_entry(path: bytes, status: os.stat_result) -> Entry:
    return Entry(
        path,
        stat.S_IFMT(status.st_mode),
        stat.S_IMODE(status.st_mode),
        status.st_uid,
        status.st_gid,
        status.st_mtime_ns,
        status.st_atime_ns,
        size=status.st_size if stat.S_ISREG(status.st_mode) else 0,
        device=(os.major(status.st_rdev), os.minor(status.st_rdev)),
    )


def _add_attributes(entry: Entry, file: int | bytes, beginnings: tuple[bytes, ...]) -> None:
    """Add the extended attributes of an open file or of a path that is not followed; ACLs go separately."""
    entry.xattrs = xattrs = get_attributes(file, beginnings=beginnings)
    acls = {name: decode(xattrs.pop(name)) for name in ACLS if name in xattrs}
    entry.acls = {name: found for name, found in acls.items() if not is_minimal(name, found)}
