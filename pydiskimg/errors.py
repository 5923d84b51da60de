# SPDX-License-Identifier: MIT
"""The errors that pydiskimg raises for causes outside the program.

The text of each error is one sentence: where (path, byte offset), what, found and expected, what to do.
A subclass exists where callers handle an error specially; it stores the values that they need.
"""

from __future__ import annotations

import errno as numbers  # errno is also the name of a field
import os


class DiskImageError(Exception):
    """Root of every error that bad input, a full disk or a refused system call can cause.

    Its text is one line that is safe for a terminal or a log, even with hostile names of files, images and guests in
    it: see text.printable(). tells_what_is_left is True if the text ends by saying what was written: nothing, or not
    all of it.
    """

    tells_what_is_left = False

    def __init__(self, message: str) -> None:
        super().__init__(_one_line(message))

    def add_what_is_left(self, text: str) -> None:
        """Append a clause that says what was written, unless the text has one."""
        if not self.tells_what_is_left:
            self.args = (_one_line(f"{self}; {text}"), *self.args[1:])
            self.tells_what_is_left = True


class InvalidImageError(DiskImageError):
    """The bytes of an image contradict the format's specification: truncated, corrupt or hostile."""


class UnsupportedImageError(DiskImageError):
    """A valid image that uses a feature that is not supported here, or that is marked as unsafe to read."""


class ReferenceDeniedError(UnsupportedImageError):
    """An image refers to a file, and the caller allows none; reference is the part of the text that names it."""

    def __init__(self, message: str, *, reference: str) -> None:
        super().__init__(message)
        self.reference = reference


class DoesNotFitError(DiskImageError):
    """The data is larger than the space for it; nothing was written.

    needed and available are bytes.
    """

    tells_what_is_left = True

    def __init__(self, message: str, *, needed: int, available: int) -> None:
        super().__init__(message)
        self.needed = needed
        self.available = available


class ArchiveError(DiskImageError):
    """An archive is truncated, corrupt, not an archive, or holds an entry that cannot be restored faithfully.

    entry is the entry's path inside the archive, or None when the archive itself is at fault.
    """

    def __init__(self, message: str, *, entry: str | None = None) -> None:
        super().__init__(message)
        self.entry = entry


class MountPointError(ArchiveError):
    """An archive's entry that is not a directory would replace a mount point; unmount that first."""


class PartitionError(DiskImageError):
    """A partition table cannot be read, or cannot hold what was requested."""


class FileSystemError(DiskImageError):
    """A file system cannot be made as requested, or its metadata cannot be read."""


class BootLoaderError(DiskImageError):
    """A guest's boot loader cannot be installed: its files are not known, or the disk has no room for it."""


class VerificationError(DiskImageError):
    """The bytes read back differ from those written; offset (bytes) is the first difference."""

    def __init__(self, message: str, *, offset: int) -> None:
        super().__init__(message)
        self.offset = offset


class StorageError(DiskImageError, OSError):
    """A system call on a file or device failed; also an OSError, with errno and filename."""

    def __init__(
        self, message: str, *, errno: int | None, filename: str | None, tells_what_is_left: bool = False
    ) -> None:
        super().__init__(message)
        self.errno = errno
        self.filename = filename
        self.tells_what_is_left = tells_what_is_left

    def __str__(self) -> str:
        return str(self.args[0])


class NoSpaceError(StorageError):
    """A file system is full; device is the st_dev of its files."""

    def __init__(self, message: str, *, errno: int | None, filename: str | None, device: int) -> None:
        super().__init__(message, errno=errno, filename=filename)
        self.device = device


class InUseError(StorageError):
    """The device or file is in use: it is mounted, or a running guest or another process holds it."""


def _one_line(text: str) -> str:
    if text.isprintable():
        return text
    from pydiskimg.text import LINE, printable  # imported here: most texts do not need it

    return printable(text, limit=LINE)


def storage_error(cause: OSError, where: str, doing: str) -> StorageError:
    """Return a StorageError that says where and in which operation a system call failed; raise it `from` the cause.

    where is the path (with the byte offset when there is one); doing is a phrase such as "cannot write
    1048576 bytes at offset 0".
    """
    reason = os.strerror(cause.errno) if cause.errno else str(cause)
    if cause.errno == numbers.EUCLEAN:  # the kernel's text is "Structure needs cleaning"
        reason = "the file system is damaged; check it (fsck) and see dmesg"
    if "://" in where:
        from pydiskimg.text import is_address, shown_name

        if is_address(where):
            where, reason = shown_name(where), "an http:// or https:// file is read-only; download it and name the copy"
    return StorageError(f"{where}: {doing}: {reason}", errno=cause.errno, filename=where)


def closed_error(where: str) -> StorageError:
    """Return the StorageError for the use of an object after it was closed."""
    return StorageError(f"{where}: is closed", errno=numbers.EBADF, filename=where)


def read_only_error(where: str) -> StorageError:
    """Return the StorageError for a write to an object that was opened for reading only."""
    return StorageError(f"{where}: was opened for reading only", errno=numbers.EBADF, filename=where)
