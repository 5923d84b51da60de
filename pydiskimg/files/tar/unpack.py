# SPDX-License-Identifier: MIT
"""Unpack a whole archive into a directory."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

from pydiskimg.errors import ArchiveError, storage_error
from pydiskimg.files.attributes import AttributesLeftOut
from pydiskimg.files.entry import Entry
from pydiskimg.files.tar.inflate import Ahead, ArchiveInput, inflate_input
from pydiskimg.files.tar.reader import Reader
from pydiskimg.files.writer import Wording, Writer, open_writer
from pydiskimg.linux.fileio import open_path
from pydiskimg.protocols import Progress

_WAIT = 0.2  # seconds


@dataclass(frozen=True, slots=True)
class Extracted:
    """What extract() did: the number of entries, and the bytes of the regular files among them, holes included.

    left_out describes the extended attributes that the file system cannot hold.

    >>> from pydiskimg import extract
    >>> import os; os.mkdir("unpacked")
    >>> done = extract("files.tar.gz", "unpacked")
    >>> done.entries, done.bytes
    (2, 6)
    """

    entries: int
    bytes: int
    left_out: AttributesLeftOut


def extract(
    archive_path: str | os.PathLike[str], directory: str | int, *, progress: Progress | None = None
) -> Extracted:
    """Unpack a tar archive, compressed or not, into a directory, faithfully and safely.

    directory is a path, or a descriptor that stays the caller's. Numeric owners, modes, times, links, devices, POSIX
    ACLs, extended attributes and holes are those of the archive (pax, GNU, star and v7 headers). An entry replaces a
    file of its name; a directory stays where the entry is one. Nothing outside of the directory is touched: symbolic
    links in the path of an entry are followed as if the directory were "/". Attributes of other systems are left out
    and counted, and a hard link to another file system becomes a copy. Call os.sync() afterwards; nothing is flushed.
    progress is called with the bytes of the archive that are done and its size.

    Needs libarchive-c, except for archives that are not compressed or compressed with gzip.

    Raises ArchiveError, which names the archive and the entry, for an archive that is truncated or damaged, is not an
    archive, or has an entry that cannot be restored; MountPointError (an ArchiveError) for an entry in the place of a
    mount point; NoSpaceError and StorageError where the system refuses. The directory then holds part of the archive.

    >>> import os
    >>> from pydiskimg import extract
    >>> os.mkdir("target")
    >>> done = extract("files.tar.gz", "target")
    >>> os.listdir("target/etc")
    ['motd']
    """
    name = os.fspath(archive_path)
    with ExitStack() as stack:
        reader, size = _open_reader(stack, name, progress)
        extracted = _extract(reader, stack.enter_context(open_writer(directory, Wording(name))))
        if progress:
            progress(size, size)
        return extracted


def check_archive(archive_path: str | os.PathLike[str]) -> None:
    """Raise as extract() would for the beginning of the archive, up to its first entry; write nothing.

    For callers that must refuse files that are not archives before they remove old data.
    """
    with ExitStack() as stack:
        reader, _ = _open_reader(stack, os.fspath(archive_path), None)
        next(reader.entries())


@contextmanager
def open_tar(
    archive_path: str | os.PathLike[str], *, progress: Progress | None = None, fd: int | None = None
) -> Iterator[Iterator[Entry]]:
    """Give the entries of a tar archive, compressed or not, for populate(), build_system() or ChangedTree.put().

    Each entry's contents must be read before the next entry is requested, or not at all. progress is called with the
    bytes of the archive that are done and its size. fd is a file or pipe that is read from its present offset in place
    of the path; it stays the caller's, archive_path is then only the name in messages, and there is no progress.

    Needs libarchive-c, except for archives that are not compressed or compressed with gzip.

    Raises ArchiveError, also while entries are read, for an archive that is truncated or damaged or is not an archive,
    and StorageError where the system refuses.

    >>> from pydiskimg import open_tar
    >>> with open_tar("files.tar.gz") as entries:
    ...     for entry in entries:
    ...         print(entry.path, entry.size)
    b'etc/' 0
    b'etc/motd' 6
    """
    with ExitStack() as stack:
        if fd is not None:
            yield _input_reader(stack, ArchiveInput(fd, os.fspath(archive_path)), _no_progress, _WAIT).entries()
            return
        reader, size = _open_reader(stack, os.fspath(archive_path), progress)
        yield reader.entries()
        if progress:
            progress(size, size)


def _open_reader(stack: ExitStack, name: str, progress: Progress | None) -> tuple[Reader, int]:
    """Return a reader of the archive and the file's size in bytes; the stack closes all that it uses."""
    fd, size = _open_archive(name)
    stack.callback(os.close, fd)

    def tell(consumed: int) -> None:
        if progress:
            progress(min(consumed, size), size)

    return _input_reader(stack, ArchiveInput(fd, name), tell), size


def _input_reader(
    stack: ExitStack, file: ArchiveInput, tell: Callable[[int], None], wait: float | None = None
) -> Reader:
    """Return a reader of an archive, which reports how many bytes were read; wait is as for Ahead."""
    if not file.peek(1):
        raise ArchiveError(f"{file.name}: is empty; an archive was expected")
    ahead = Ahead(inflate_input(file), wait=wait)
    stack.callback(ahead.close)
    return Reader(ahead, file.name, tell)


def _no_progress(_: int) -> None:
    """A pipe has no known size."""


def _extract(reader: Reader, writer: Writer) -> Extracted:
    entries = total = 0
    for entry in reader.entries():
        writer.make(entry)
        if entry.kind == stat.S_IFREG:
            total += entry.size
        entries += 1
    writer.finish()
    return Extracted(entries, total, writer.left_out)


def _open_archive(name: str) -> tuple[int, int]:
    """Return a descriptor and the size in bytes; O_NONBLOCK so that a FIFO is refused instead of waited for."""
    try:
        fd = open_path(name, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError as error:
        raise storage_error(error, name, "cannot open the archive") from error
    status = os.fstat(fd)
    if stat.S_ISREG(status.st_mode):
        return fd, status.st_size
    os.close(fd)
    raise ArchiveError(f"{name}: is not a regular file; an archive was expected")
