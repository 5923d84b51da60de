# SPDX-License-Identifier: MIT
"""A directory's files copied over those of a guest, as cp -a would, and never out of the guest's root.

The entries are made by the writer of archives (docs/adr/0030), so what resolves where is decided there.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from typing import TypeAlias

from pydiskimg.errors import StorageError, storage_error
from pydiskimg.files.acl import AclEntry, decode, is_minimal
from pydiskimg.files.attributes import ACLS, AttributesLeftOut, get_attributes
from pydiskimg.files.entry import Entry
from pydiskimg.files.target import target_directory
from pydiskimg.files.writer import Writer
from pydiskimg.linux.fileio import pread_into
from pydiskimg.linux.memfd import data_ranges
from pydiskimg.protocols import Progress
from pydiskimg.units import MIB

MoreAttributes: TypeAlias = "Callable[[bytes, int], Mapping[bytes, bytes]]"

_CHUNK = MIB
_COPIED = (b"user.", b"trusted.", b"security.", *ACLS)  # the others belong to the file system that they are on
_HARD_LINK = 0


@dataclass(frozen=True, slots=True)
class CopiedTree:
    """What was copied: entries, and the bytes of the regular files among them, holes included.

    left_out is the extended attributes that target's file system cannot hold.
    """

    entries: int
    bytes: int
    left_out: AttributesLeftOut


def copy_directory(
    source: str, target: str, *, progress: Progress | None = None, attributes: MoreAttributes | None = None
) -> CopiedTree:
    """Copy everything below source over what is below target; target's own owner, mode and times stay.

    Owner, mode, times, POSIX ACLs, extended attributes, hard links, symlinks, devices and holes come out as they are
    in source; a hard link that would lead from one file system to another becomes a copy. What is in an entry's place
    is replaced, a symlink too; a directory in a directory's place is kept and becomes like source's, and a symlink to a
    directory is kept as it is (/lib -> usr/lib). Symlinks of target resolve inside target only; those of source are
    copied and never followed. Nothing is flushed.

    progress gets the bytes of files. attributes returns, for an entry's path below target and its S_IF constant, the
    extended attributes that it gets besides; those of source count before these. Raises ArchiveError, which names
    source and the entry, for an entry that cannot be copied safely, InvalidImageError for a file that shrinks
    meanwhile, StorageError when the system refuses.
    """
    with ExitStack() as stack:
        top = os.fsencode(os.path.realpath(source))
        root_fd = stack.enter_context(target_directory(target, doing="copy"))
        writer = Writer(root_fd, archive=source, done="copied", keep_links=True)
        stack.callback(writer.close)
        copying = _Copying(writer, top, _total(top) if progress else 0, progress, attributes)
        for item in _walk(top):
            copying.copy(item)
        writer.finish()
        return CopiedTree(copying.entries, copying.done, writer.left_out)


@dataclass(frozen=True, slots=True)
class _Item:
    """A name in a directory that is open, its path below the top, and its lstat."""

    directory: int
    name: bytes
    path: bytes
    status: os.stat_result

    @property
    def where(self) -> bytes:
        """A path for what has no variant with dir_fd: name is one component of a directory that is held open."""
        return b"/proc/self/fd/%d/%s" % (self.directory, self.name)


@dataclass(slots=True)
class _Copying:
    writer: Writer
    top: bytes
    total: int
    progress: Progress | None
    attributes: MoreAttributes | None
    entries: int = 0
    done: int = 0
    _first: dict[tuple[int, int], bytes] = field(default_factory=dict)

    def copy(self, item: _Item) -> None:
        status = item.status
        self.entries += 1
        if not stat.S_ISDIR(status.st_mode) and status.st_nlink > 1:
            first = self._first.setdefault((status.st_dev, status.st_ino), item.path)
            if first != item.path:
                self.writer.make(replace(_bare_entry(item.path, status), kind=_HARD_LINK, link=first), ())
                return
        try:
            if stat.S_ISREG(status.st_mode):
                self._file(item)
            elif stat.S_ISDIR(status.st_mode):
                with _opened(item, os.O_DIRECTORY) as fd:
                    self.writer.make(self._entry(item, os.fstat(fd), fd), ())
            else:
                self._other(item)
        except StorageError:
            raise
        except OSError as error:
            raise self._unreadable(error, item) from error

    def _file(self, item: _Item) -> None:
        with _opened(item, os.O_NONBLOCK) as fd:
            status = os.fstat(fd)
            if not stat.S_ISREG(status.st_mode):
                raise OSError(errno.EINVAL, "it was replaced while it was looked at")
            self.writer.make(self._entry(item, status, fd), self._contents(fd, item, status.st_size))
            self.done += status.st_size

    def _other(self, item: _Item) -> None:
        entry = self._entry(item, item.status, item.where)
        if entry.kind == stat.S_IFLNK:
            entry = replace(entry, link=os.readlink(item.name, dir_fd=item.directory))
        self.writer.make(entry, ())

    def _entry(self, item: _Item, status: os.stat_result, file: int | bytes) -> Entry:
        xattrs, acls = _attributes(file)
        entry = _bare_entry(item.path, status)
        if self.attributes is not None:
            xattrs = {**self.attributes(item.path, entry.kind), **xattrs}
        return replace(entry, xattrs=xattrs, acls=acls)

    def _contents(self, fd: int, item: _Item, size: int) -> Iterator[tuple[int, memoryview]]:
        buffer = memoryview(bytearray(min(_CHUNK, size)))
        for start, end in data_ranges(fd):
            for position in range(start, min(end, size), _CHUNK):
                chunk = buffer[: min(_CHUNK, min(end, size) - position)]
                pread_into(fd, position, chunk, name=self._path(item))
                yield position, chunk
                if self.progress:
                    done = self.done + position + len(chunk)
                    self.progress(done, max(done, self.total))

    def _path(self, item: _Item) -> str:
        return os.fsdecode(os.path.join(self.top, item.path))

    def _unreadable(self, error: OSError, item: _Item) -> StorageError:
        return storage_error(error, self._path(item), "cannot be read to be copied")


def _walk(top: bytes) -> Iterator[_Item]:
    """Yield everything below top, sorted by bytes, a directory before what is in it; no symlink is followed."""

    def fail(error: OSError) -> None:
        where = error.filename if isinstance(error.filename, str | bytes) else top
        raise storage_error(error, os.fsdecode(where), "cannot be listed") from error

    for directory, directories, files, fd in os.fwalk(top, onerror=fail):
        below = directory[len(top) :].lstrip(b"/")
        directories.sort()
        for name in sorted([*directories, *files]):
            path = os.path.join(below, name)
            yield _Item(fd, name, path, os.stat(name, dir_fd=fd, follow_symlinks=False))


def _total(top: bytes) -> int:
    """Bytes of the regular files, each counted once whatever names it has."""
    found = (item.status for item in _walk(top) if stat.S_ISREG(item.status.st_mode))
    return sum({(status.st_dev, status.st_ino): status.st_size for status in found}.values())


@contextmanager
def _opened(item: _Item, flags: int) -> Iterator[int]:
    fd = os.open(item.name, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | flags, dir_fd=item.directory)
    try:
        yield fd
    finally:
        os.close(fd)


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


def _attributes(file: int | bytes) -> tuple[dict[bytes, bytes], dict[bytes, list[AclEntry]]]:
    """Return the extended attributes of an open file or of a path that is not followed, ACLs apart."""
    xattrs = get_attributes(file, beginnings=_COPIED)
    packed = {name: decode(xattrs.pop(name)) for name in ACLS if name in xattrs}
    return xattrs, {name: entries for name, entries in packed.items() if not is_minimal(name, entries)}
