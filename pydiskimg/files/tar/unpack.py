# SPDX-License-Identifier: MIT
"""Unpacking an archive into a directory, as a whole."""

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
from pydiskimg.protocols import Progress

_WAIT = 0.2  # seconds


@dataclass(frozen=True, slots=True)
class Extracted:
    """What an extraction made: entries, and the bytes of the regular files among them, holes included.

    left_out is the extended attributes that the file system cannot hold.
    """

    entries: int
    bytes: int
    left_out: AttributesLeftOut


def extract(
    archive_path: str | os.PathLike[str], directory: str | int, *, progress: Progress | None = None
) -> Extracted:
    """Unpack a tar archive, compressed or not, into a directory.

    directory is a path, or a descriptor of a directory, which stays open. Numeric owners, modes, times, links, devices,
    POSIX ACLs, extended attributes and holes come out as they were packed; what cannot be restored is an error, apart
    from attributes of other systems, which are counted, and hard links from one file system to another, which become
    copies. Names are the archive's bytes. What is in an entry's place is replaced, except for a directory, which is
    kept when the entry is one too. Nothing outside the directory is touched, whatever the archive says: symlinks in an
    entry's path are followed inside the directory only, as if it were "/". Nothing is flushed: sync the file system
    afterwards.

    progress gets bytes of the archive file.

    Raises ArchiveError, which names the archive and the entry, when the archive is truncated, corrupt or none, or has
    an entry that cannot be restored faithfully and safely; MountPointError, an ArchiveError, for an entry other than
    a directory in a mount point's place; StorageError when the system refuses a read or write, NoSpaceError when that
    is because a file system is full. The directory then holds a part of the archive.
    """
    name = os.fspath(archive_path)
    with ExitStack() as stack:
        reader, size = _open_reader(stack, name, progress)
        extracted = _extract(reader, stack.enter_context(open_writer(directory, Wording(name))))
        if progress:
            progress(size, size)
        return extracted


def check_archive(archive_path: str | os.PathLike[str]) -> None:
    """Raise what extract() would raise for the beginning of the archive, up to its first entry; write nothing.

    For callers that must refuse anything but an archive before they take away what is in its place.
    """
    with ExitStack() as stack:
        reader, _ = _open_reader(stack, os.fspath(archive_path), None)
        next(reader.entries())


@contextmanager
def open_tar(
    archive_path: str | os.PathLike[str], *, progress: Progress | None = None, fd: int | None = None
) -> Iterator[Iterator[Entry]]:
    """Give the entries of a tar archive, compressed or not, for populate().

    Each entry's contents are read before the next one is asked for, or not at all. progress gets bytes of the archive
    file. fd is a file or pipe that is read from where it stands, in place of the path, and stays open; archive_path is
    what messages call it, and there is no progress. Raises ArchiveError, also while entries are read, which names the
    archive and the entry, when it is truncated, corrupt or none, and StorageError when the system refuses.
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
    """Return a reader of the archive and the file's size in bytes; the stack closes all that it stands on."""
    fd, size = _open_archive(name)
    stack.callback(os.close, fd)

    def tell(consumed: int) -> None:
        if progress:
            progress(min(consumed, size), size)

    return _input_reader(stack, ArchiveInput(fd, name), tell), size


def _input_reader(
    stack: ExitStack, file: ArchiveInput, tell: Callable[[int], None], wait: float | None = None
) -> Reader:
    """Return a reader of an archive, which tells how many bytes of it were read; wait is as for Ahead."""
    if not file.peek(1):
        raise ArchiveError(f"{file.name}: is empty; an archive was expected")
    ahead = Ahead(inflate_input(file), wait=wait)
    stack.callback(ahead.close)
    return Reader(ahead, file.name, tell)


def _no_progress(_: int) -> None:
    """A pipe does not say how much there is to read."""


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
    """Return a descriptor and the size in bytes; O_NONBLOCK so that a FIFO is refused and not waited for."""
    try:
        fd = os.open(name, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError as error:
        raise storage_error(error, name, "cannot open the archive") from error
    status = os.fstat(fd)
    if stat.S_ISREG(status.st_mode):
        return fd, status.st_size
    os.close(fd)
    raise ArchiveError(f"{name}: is not a regular file; an archive was expected")
