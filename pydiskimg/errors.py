# SPDX-License-Identifier: MIT
"""The errors that pydiskimg raises for causes outside the program.

The text of each error is one sentence: where (path, byte offset), what, found and expected, what to do.
A subclass exists where callers handle an error specially; it stores the values that they need.
"""

from __future__ import annotations

import errno as numbers  # errno is also the name of a field
import os


class DiskImageError(Exception):
    """Base class of every error that bad input, a full disk or a refused system call can cause.

    Its text is one line that is safe for a terminal or a log, even with hostile names of files, images and guests.
    tells_what_is_left is True where the text ends with what was written: nothing, or part of it. The class itself is
    raised where callers have no reason to tell causes apart.

    >>> from pydiskimg import DiskImageError, open_image
    >>> try:
    ...     open_image("missing.raw")
    ... except DiskImageError as error:
    ...     print(type(error).__name__)
    StorageError
    """

    tells_what_is_left = False

    def __init__(self, message: str) -> None:
        super().__init__(_one_line(message))

    def __reduce__(self) -> tuple[object, ...]:
        """Let the error pass between processes, whatever its constructor takes."""
        fields = dict(self.__dict__)
        if isinstance(self, OSError):
            fields |= {"errno": self.errno, "strerror": self.strerror, "filename": self.filename}
        return _restored, (type(self), self.args, fields)

    def add_what_is_left(self, text: str) -> None:
        """Append a clause that says what was written, unless the text has one."""
        if not self.tells_what_is_left:
            self.args = (_one_line(f"{self}; {text}"), *self.args[1:])
            self.tells_what_is_left = True


def _restored(kind: type[DiskImageError], args: tuple[object, ...], fields: dict[str, object]) -> DiskImageError:
    error = kind.__new__(kind)
    error.args = args
    for name, value in fields.items():
        setattr(error, name, value)
    return error


class InvalidImageError(DiskImageError):
    """An image contradicts the specification of its format: it is truncated, damaged or hostile.

    >>> from pydiskimg import InvalidImageError, open_image
    >>> with open("damaged.qcow2", "wb") as file:
    ...     _ = file.write(b"QFI" + bytes.fromhex("fb00000003"))
    >>> try:
    ...     open_image("damaged.qcow2")
    ... except InvalidImageError as error:
    ...     print(str(error).partition(":")[0])
    damaged.qcow2
    """


class UnsupportedImageError(DiskImageError):
    """A valid image has a format or feature that cannot be read or written, or is marked as unsafe to read.

    >>> from pydiskimg import UnsupportedImageError, open_image
    >>> with open("disk.vmdk", "wb") as file:
    ...     _ = file.write(b"KDMV" + bytes(508))
    >>> try:
    ...     open_image("disk.vmdk")
    ... except UnsupportedImageError as error:
    ...     "VMDK" in str(error)
    True
    """


class ReferenceDeniedError(UnsupportedImageError):
    """An image names a file, and the caller allows none; reference says which file it is.

    >>> from pydiskimg import ReferenceDeniedError, new_overlay, open_image
    >>> new_overlay("child.qcow2", 64 << 20, backing_file=b"disk.raw", backing_format=b"raw")
    >>> try:
    ...     open_image("child.qcow2")
    ... except ReferenceDeniedError as error:
    ...     "disk.raw" in error.reference
    True
    """

    def __init__(self, message: str, *, reference: str) -> None:
        super().__init__(message)
        self.reference = reference


class DoesNotFitError(DiskImageError):
    """The data are larger than the disk or partition for them; nothing was written. needed and available are bytes.

    >>> from pydiskimg import DoesNotFitError, MemoryDisk, copy
    >>> try:
    ...     copy(MemoryDisk(2 << 20), MemoryDisk(1 << 20))
    ... except DoesNotFitError as error:
    ...     error.needed, error.available
    (2097152, 1048576)
    """

    tells_what_is_left = True

    def __init__(self, message: str, *, needed: int, available: int) -> None:
        super().__init__(message)
        self.needed = needed
        self.available = available


class ArchiveError(DiskImageError):
    """An archive is truncated or damaged, is not an archive, or has an entry that cannot be restored.

    entry is the path of the entry in the archive, or None when the archive itself is at fault.

    >>> from pydiskimg import ArchiveError, open_tar
    >>> try:
    ...     with open_tar("disk.raw") as entries:
    ...         list(entries)
    ... except ArchiveError as error:
    ...     print(error.entry)
    None
    """

    def __init__(self, message: str, *, entry: str | None = None) -> None:
        super().__init__(message)
        self.entry = entry


class MountPointError(ArchiveError):
    """An entry that is not a directory would replace a mount point.

    >>> import tarfile
    >>> from pydiskimg import MemoryDisk, MountPointError, NewExt, open_tar, populate_joined
    >>> with tarfile.open("odd.tar", "w") as tar:
    ...     tar.addfile(tarfile.TarInfo("boot"))
    >>> try:
    ...     with open_tar("odd.tar") as entries:
    ...         populate_joined(NewExt(disk=MemoryDisk(16 << 20)), NewExt(disk=MemoryDisk(16 << 20)), entries)
    ... except MountPointError as error:
    ...     print(error.entry)
    boot
    """


class PartitionError(DiskImageError):
    """A partition table cannot be made as requested, or cannot be read; or there is no such partition.

    >>> from pydiskimg import PartitionError, open_tree
    >>> try:
    ...     open_tree("disk.raw", partition=9)
    ... except PartitionError as error:
    ...     "partition 9" in str(error)
    True
    """


class FileSystemError(DiskImageError):
    """A file system cannot be made as requested, or its metadata cannot be read.

    >>> from pydiskimg import FileSystemError, MemoryDisk, make_ext
    >>> try:
    ...     make_ext(MemoryDisk(16 << 20), label="longer than 16 bytes")
    ... except FileSystemError as error:
    ...     "longer than 16 bytes" in str(error)
    True
    """


class BootLoaderError(DiskImageError):
    """A guest's boot loader cannot be written: its files are not known, or the disk has no room for it.

    >>> from pydiskimg import BootLoaderError, MemoryDisk, SystemOptions, build_system, open_tar
    >>> options = SystemOptions()
    >>> try:
    ...     with open_tar("strange-grub.tar") as entries:
    ...         made = build_system(MemoryDisk(64 << 20), entries, options)
    ... except BootLoaderError as error:
    ...     print("install it by hand")
    install it by hand
    """


class VerificationError(DiskImageError):
    """A disk returned other bytes than were written to it; offset is the first byte that differs.

    >>> from pydiskimg import MemoryDisk, VerificationError, copy
    >>> class Forgetful(MemoryDisk):
    ...     def write(self, offset, data):
    ...         super().write(offset, bytes(len(data)))
    >>> source = MemoryDisk(1 << 20)
    >>> source.write(70000, b"data")
    >>> try:
    ...     copy(source, Forgetful(1 << 20), verify=True)
    ... except VerificationError as error:
    ...     error.offset
    70000
    """

    def __init__(self, message: str, *, offset: int) -> None:
        super().__init__(message)
        self.offset = offset


class StorageError(DiskImageError, OSError):
    """A system call on a file or device failed. It is also an OSError, with errno and filename.

    >>> import errno
    >>> from pydiskimg import StorageError, open_image
    >>> try:
    ...     open_image("missing.raw")
    ... except StorageError as error:
    ...     error.errno == errno.ENOENT, error.filename
    (True, 'missing.raw')
    """

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
    """A file system is full; device is the st_dev of the file system, 0 for one that pydiskimg writes itself.

    >>> from pydiskimg import MemoryDisk, NoSpaceError, make_ext, open_tree
    >>> disk = MemoryDisk(8 << 20)
    >>> made = make_ext(disk)
    >>> try:
    ...     with open_tree(disk, writable=True) as tree:
    ...         tree.write("/large", b"x" * (16 << 20))
    ... except NoSpaceError as error:
    ...     error.device
    0
    """

    def __init__(self, message: str, *, errno: int | None, filename: str | None, device: int) -> None:
        super().__init__(message, errno=errno, filename=filename)
        self.device = device


class InUseError(StorageError):
    """A device or file is used by another program: it is mounted, in a running guest, or locked.

    >>> from pydiskimg import InUseError, open_disk
    >>> with open_disk("disk.raw", writable=True):
    ...     try:
    ...         open_disk("disk.raw", writable=True)
    ...     except InUseError as error:
    ...         print(error.filename)
    disk.raw
    """


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
