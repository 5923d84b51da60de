# SPDX-License-Identifier: MIT
"""A new disk file that gets its name only when it is complete."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress

from pydiskimg.disks.file import FileDisk
from pydiskimg.errors import DoesNotFitError, InUseError, StorageError, storage_error
from pydiskimg.host.claims import claim_file
from pydiskimg.linux.tmpfile import unnamed_file
from pydiskimg.units import format_bytes


@contextmanager
def new_disk_file(path: str | os.PathLike[str], size: int) -> Iterator[FileDisk]:
    """Give an empty sparse file of size bytes as a Disk; leaving the context makes it durable under path.

    An existing regular file is then replaced in one step, and keeps its mode, and its owner if this process may set
    that; until then, and after an error or a kill, it is unchanged. It is locked meanwhile, as open_disk() locks a file
    for writing. Raises DoesNotFitError when the file system cannot hold such a size, InUseError when a process has
    locked the old file, a loop device is attached to it or a virtual machine uses it, StorageError when path is not a
    regular file or the directory cannot be written.
    """
    with new_file(path) as (fd, name):
        _set_size(fd, name, size)
        disk = FileDisk(fd, name, reads_as_zero=True)
        try:
            yield disk
        finally:
            disk.release()


@contextmanager
def new_file(path: str | os.PathLike[str]) -> Iterator[tuple[int, str]]:
    """Give (descriptor, path) of an empty file that appears under path, durable, when the context is left.

    The context closes the descriptor. Replacing and errors are as for new_disk_file().
    """
    name = os.fspath(path)
    target = resolved_new_name(name)  # name is the one in messages
    with ExitStack() as stack:
        try:
            old = stack.enter_context(_replaceable(target, name))
            directory = stack.enter_context(_directory(os.path.dirname(target)))
            refuse_among_devices(directory, target)
            file = stack.enter_context(unnamed_file(directory, mode=0o666))
        except OSError as error:
            raise _named(error, name) from error
        yield file.fd, name
        try:
            if old is not None:
                for owner in ((old.st_uid, -1), (-1, old.st_gid)):
                    with suppress(OSError):
                        os.fchown(file.fd, *owner)
                os.fchmod(file.fd, stat.S_IMODE(old.st_mode))
            _flush(file.fd, name)
            file.publish(os.path.basename(target))
        except StorageError:
            raise
        except OSError as error:
            raise storage_error(error, name, "cannot give the finished file its name") from error


def _flush(fd: int, name: str) -> None:
    try:
        os.fsync(fd)
    except OSError as error:
        raise storage_error(error, name, "cannot flush written data to stable storage") from error


@contextmanager
def _replaceable(path: str, name: str) -> Iterator[os.stat_result | None]:
    """Give the status of the file to be replaced, None if there is none; no process uses it meanwhile.

    name is shown in messages.
    """
    try:
        status = os.stat(path)
    except FileNotFoundError:
        yield None
        return
    if not stat.S_ISREG(status.st_mode):
        raise StorageError(
            f"{name}: exists and is not a regular file; expected a file, or a block device",
            errno=errno.EEXIST,
            filename=name,
        )
    fd = _opened_to_lock(path)
    try:
        if fd is not None:
            _claim(fd, name)
        yield status
    finally:
        if fd is not None:
            os.close(fd)


def _opened_to_lock(path: str) -> int | None:
    """Open the old file, for writing if possible: NFS requires that for locks; None if it may not even be read."""
    for access in (os.O_RDWR, os.O_RDONLY):
        with suppress(OSError):
            return os.open(path, access | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
    return None


def _claim(fd: int, name: str) -> None:
    try:
        claim_file(fd, name)
    except InUseError:
        raise
    except StorageError as error:  # a file system without locks; the file can still be replaced
        from logging import getLogger  # importing it takes longer than writing a small file, and it is rarely needed

        getLogger(__name__).info("%s; it is replaced without a lock", error)


@contextmanager
def _directory(path: str) -> Iterator[int]:
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield fd
    finally:
        os.close(fd)


def _set_size(fd: int, name: str, size: int) -> None:
    try:
        os.ftruncate(fd, size)
    except (OSError, OverflowError) as error:
        if isinstance(error, OverflowError) or error.errno == errno.EFBIG:
            raise DoesNotFitError(
                f"{name}: the file system does not support files of {format_bytes(size)}; nothing was written",
                needed=size,
                available=0,
            ) from error
        raise storage_error(error, name, f"cannot set the size to {format_bytes(size)}") from error


def _named(error: OSError, name: str) -> StorageError:
    return error if isinstance(error, StorageError) else storage_error(error, name, "cannot create")


_DEVICES = "/dev"
_SHARED_MEMORY = "/dev/shm"  # noqa: S108 - a name to compare with


def resolved_new_name(path: str) -> str:
    """Return the absolute path of the file that path names; symlinks are followed, even one without a target.

    Raises StorageError for an empty path, a path that can only name a directory ("x/", "x/."), and one whose directory
    does not exist.
    """
    if not path:
        raise StorageError("'' is not a path for a new file", errno=errno.ENOENT, filename="")
    if os.path.basename(path) in ("", ".", ".."):
        raise StorageError(f"{path}: names a directory; expected the name of a file", errno=errno.EISDIR, filename=path)
    try:
        # realpath() drops "x/.." without checking that x exists.
        os.stat(os.path.dirname(path) or ".")
        return os.path.realpath(path)
    except OSError as error:
        raise storage_error(error, path, "cannot create") from error


def refuse_among_devices(directory: int, name: str) -> None:
    """Raise StorageError if a file in the open directory would be among devices; name is its absolute path.

    A misspelt device name would otherwise become a file in memory. devtmpfs reports itself as tmpfs, so it is
    recognised as the file system of /dev, wherever it is mounted; /dev/shm is for files.
    """
    parent = os.path.dirname(name)
    if _is_below(parent, _SHARED_MEMORY):
        return
    try:
        devices = os.stat(_DEVICES).st_dev
    except OSError:  # a chroot without /dev
        return
    own_file_system = devices != os.stat("/").st_dev
    if os.fstat(directory).st_dev == devices and (own_file_system or _is_below(parent, _DEVICES)):
        raise StorageError(
            f"{name}: is not a device, and no file is made among the devices of {parent}; check the name",
            errno=errno.ENODEV,
            filename=name,
        )


def _is_below(path: str, directory: str) -> bool:
    return path == directory or path.startswith(f"{directory}/")
