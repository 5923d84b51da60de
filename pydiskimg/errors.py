# SPDX-License-Identifier: MIT
"""Everything pydiskimg raises for a cause outside the program.

The text of each error is one sentence: where (path, byte offset), what, found and expected, what to do.
A subclass exists where a caller acts on it, and stores what the caller needs for that.
"""

from __future__ import annotations

import errno as numbers  # errno is also the name of a field
import os


class DiskImageError(Exception):
    """Root of every error that bad input, a full disk or a refused system call can cause.

    Its text is one line that may go to a terminal or a log, whatever names of files, images and guests are in it: see
    text.printable(). tells_what_is_left is True where the text ends with what was written: nothing, or not all of it.
    """

    tells_what_is_left = False

    def __init__(self, message: str) -> None:
        super().__init__(_one_line(message))

    def add_what_is_left(self, text: str) -> None:
        """Put a clause that says what was written at the end of the text, which has none yet."""
        if not self.tells_what_is_left:
            self.args = (_one_line(f"{self}; {text}"), *self.args[1:])
            self.tells_what_is_left = True


class InvalidImageError(DiskImageError):
    """The bytes of an image contradict the format's specification: truncated, corrupt or hostile."""


class UnsupportedImageError(DiskImageError):
    """A valid image that uses a feature which is not read here, or that is marked unsafe to read."""


class ReferenceDeniedError(UnsupportedImageError):
    """An image names a file, and the caller allows none; reference is the beginning of the text, which says which."""

    def __init__(self, message: str, *, reference: str) -> None:
        super().__init__(message)
        self.reference = reference


class DoesNotFitError(DiskImageError):
    """What is to be written is larger than the place for it; nothing was written.

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
    """An entry that is not a directory would take the place of a mount point, which has to be unmounted for it."""


class PartitionError(DiskImageError):
    """A partition table cannot be made as asked, or cannot be read."""


class FileSystemError(DiskImageError):
    """A file system cannot be made as asked, or its metadata cannot be read."""


class BootLoaderError(DiskImageError):
    """A guest's boot loader cannot be written as bytes: its files are not known, or the disk has no place for it."""


class VerificationError(DiskImageError):
    """Reading back gave other bytes than were written, the first of them at offset (bytes)."""

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
    """A file system is full; device is the st_dev of what is on it."""

    def __init__(self, message: str, *, errno: int | None, filename: str | None, device: int) -> None:
        super().__init__(message, errno=errno, filename=filename)
        self.device = device


class InUseError(StorageError):
    """The device or file is held by somebody else: mounted, in a running guest, or in another process."""


def _one_line(text: str) -> str:
    if text.isprintable():
        return text
    from pydiskimg.text import LINE, printable  # only here: nearly all texts are

    return printable(text, limit=LINE)


def storage_error(cause: OSError, where: str, doing: str) -> StorageError:
    """Return a StorageError that says where and at what the system call failed; raise it `from` the cause.

    where is the path (with the byte offset when there is one); doing is a phrase such as "cannot write
    1048576 bytes at offset 0".
    """
    reason = os.strerror(cause.errno) if cause.errno else str(cause)
    if cause.errno == numbers.EUCLEAN:  # "Structure needs cleaning", says the kernel
        reason = "the file system is damaged; check it (fsck) and see dmesg"
    if "://" in where:
        from pydiskimg.text import is_address, shown_name

        if is_address(where):
            where, reason = shown_name(where), "a file at an address is only read; download it, and name the copy"
    return StorageError(f"{where}: {doing}: {reason}", errno=cause.errno, filename=where)


def closed_error(where: str) -> StorageError:
    """Return a StorageError for the use of something after its close."""
    return StorageError(f"{where}: is closed", errno=numbers.EBADF, filename=where)


def read_only_error(where: str) -> StorageError:
    """Return a StorageError for writing to what was opened without asking for that."""
    return StorageError(f"{where}: was opened for reading only", errno=numbers.EBADF, filename=where)
