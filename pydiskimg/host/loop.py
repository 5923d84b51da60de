# SPDX-License-Identifier: MIT
"""Loop devices that the kernel removes by itself when this process ends."""

from __future__ import annotations

import errno
import os
import stat
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

from pydiskimg.errors import InUseError, StorageError, storage_error
from pydiskimg.host.teardown import patience, teardown
from pydiskimg.linux import blockdev, loopctl
from pydiskimg.linux.fileio import system_text
from pydiskimg.linux.procfs import require_proc
from pydiskimg.units import format_bytes

CONTROL = "/dev/loop-control"

# Other processes may take the number that the kernel offered; each attempt that loses means that another succeeded.
_ATTACH_SECONDS = 20.0
# udev and its helpers open every new block device for a moment and close it again on their own.
_DETACH_SECONDS = 20.0


@dataclass(frozen=True, slots=True)
class LoopDevice:
    """A block device that shows a range of a file or of another block device; size is in bytes.

    path is /dev/loopN. fd is open for reading and fsync() and belongs to loop_device(). It is not open for writing,
    because a kernel without CONFIG_BLK_DEV_WRITE_MOUNTED does not mount a device that a process can write to.
    """

    path: str
    fd: int
    size: int


@dataclass(frozen=True, slots=True)
class _Range:
    """The range to be shown: length bytes from offset of the open file fd, called name in messages."""

    fd: int
    name: str
    offset: int
    length: int
    sector_size: int
    read_only: bool


@contextmanager
def loop_device(
    backing: str | os.PathLike[str] | int,
    *,
    offset: int = 0,
    length: int | None = None,
    sector_size: int = 512,
    read_only: bool = False,
) -> Iterator[LoopDevice]:
    """Show [offset, offset + length) of backing as a block device while the context lasts.

    backing is the path of a regular file or block device, or a descriptor of one (which stays open, and must be open
    for writing unless read_only). A process may hold a backing block device open with O_EXCL. offset and length are
    bytes and multiples of sector_size; length None means to the end.

    The device is auto-clearing: it is removed with the last descriptor and the last mount of it, so a killed process
    leaves nothing. Leaving the context writes everything out, waits until the device is really detached, and syncs the
    backing file; it never hides an error of the body. Needs root, Linux 5.8 and /sys.

    Raises StorageError (InUseError when a process still holds the device on leaving), ValueError for a negative offset
    or length.
    """
    with ExitStack() as stack:
        fd = stack.enter_context(_opened(backing, read_only=read_only))
        name = _path_of(fd) if isinstance(backing, int) else os.fspath(backing)
        shown = _Range(fd, name, offset, _length(fd, name, offset, length, sector_size), sector_size, read_only)
        device = _attach(shown)
        patience.renew()
        identity = _identity(device.path)
        with teardown(
            # Detaching alone flushes nothing to stable storage: the last close only writes the device's page cache into
            # the backing file's. fsync() on the device does that too and then syncs the backing file's data.
            lambda: _sync(device.fd, device.path, shown),
            lambda: os.close(device.fd),
            lambda: _wait_until_detached(device.path, shown, identity),
            lambda: _sync(fd, name, shown),
        ):
            yield device


def _path_of(fd: int) -> str:
    require_proc()
    return os.readlink(f"/proc/self/fd/{fd}")


@contextmanager
def _opened(backing: str | os.PathLike[str] | int, *, read_only: bool) -> Iterator[int]:
    if isinstance(backing, int):
        yield backing
        return
    path = os.fspath(backing)
    try:
        # O_NONBLOCK: opening a FIFO in place of a file must not wait for another process to open its other end.
        fd = os.open(path, (os.O_RDONLY if read_only else os.O_RDWR) | os.O_NONBLOCK)
    except OSError as error:
        raise storage_error(error, path, "cannot be opened to make a loop device") from error
    try:
        yield fd
    finally:
        os.close(fd)


def _length(fd: int, name: str, offset: int, length: int | None, sector_size: int) -> int:
    """Return the range to show; refuse a range that the kernel would cut short silently."""
    if offset < 0 or (length is not None and length < 0):
        raise ValueError(f"{name}: offset {offset} and length {length} must not be negative")
    size = _backing_size(fd, name)
    wanted = size - offset if length is None else length
    if wanted <= 0 or offset + wanted > size:
        where = f"bytes {offset} to {offset + wanted}"
        raise _refusal(name, f"no loop device can show {where}; the file or device has {format_bytes(size)}")
    if offset % sector_size or wanted % sector_size:
        what = f"no loop device can show {wanted} bytes at offset {offset}"
        raise _refusal(name, f"{what}; both must be multiples of the sector size, {sector_size} bytes")
    return wanted


def _backing_size(fd: int, name: str) -> int:
    status = os.fstat(fd)
    if stat.S_ISREG(status.st_mode):
        return status.st_size
    if stat.S_ISBLK(status.st_mode):
        return blockdev.device_size(fd)
    raise _refusal(name, "no loop device can show it; it is neither a regular file nor a block device")


def _refusal(name: str, text: str, number: int = errno.EINVAL) -> StorageError:
    return StorageError(f"{name}: {text}", errno=number, filename=name)


def _attach(shown: _Range) -> LoopDevice:
    """Bind a free device; if another process takes it first, try the next one."""
    control = _open_control(shown.name)
    try:
        deadline = time.monotonic() + _ATTACH_SECONDS
        while time.monotonic() < deadline:
            device = _try_attach(control, shown)
            if device is not None:
                return device
            time.sleep(0.001)
    finally:
        os.close(control)
    text = f"no loop device was free within {_ATTACH_SECONDS:.0f} seconds; other processes took each one first"
    raise InUseError(f"{shown.name}: {text}", errno=errno.EBUSY, filename=shown.name)


def _open_control(name: str) -> int:
    try:
        return os.open(CONTROL, os.O_RDWR)
    except PermissionError as error:
        raise _refusal(name, "making a loop device over it needs root", errno.EPERM) from error
    except OSError as error:
        hint = "is the kernel's module 'loop' loaded?"
        raise storage_error(error, CONTROL, f"cannot be opened to make a loop device over {name} ({hint})") from error


def _try_attach(control: int, shown: _Range) -> LoopDevice | None:
    """Return a device bound to the range, or None when another process took it first."""
    with ExitStack() as stack:
        path = CONTROL
        try:
            path = f"/dev/loop{loopctl.get_free(control)}"
            binder = os.open(path, os.O_RDONLY if shown.read_only else os.O_RDWR)
            stack.callback(os.close, binder)
            _configure(binder, shown)
            fd = os.open(path, os.O_RDONLY)
        except OSError as error:
            if error.errno in (errno.EBUSY, errno.ENXIO):  # ENXIO: it is being detached or removed
                return None
            raise _attach_error(error, path, shown) from error
        with ExitStack() as on_failure:
            on_failure.callback(os.close, fd)
            _check(fd, path, shown)
            on_failure.pop_all()
        return LoopDevice(path, fd, shown.length)


def _configure(binder: int, shown: _Range) -> None:
    flags = loopctl.LO_FLAGS_AUTOCLEAR | (loopctl.LO_FLAGS_READ_ONLY if shown.read_only else 0)
    loopctl.configure(
        binder,
        shown.fd,
        offset=shown.offset,
        size_limit=shown.length,
        block_size=shown.sector_size,
        flags=flags,
        file_name=os.fsencode(shown.name),
    )


def _attach_error(error: OSError, path: str, shown: _Range) -> StorageError:
    if error.errno == errno.ENOENT:
        text = f"the kernel offers {path} but that node does not exist; /dev is not a devtmpfs"
        return _refusal(shown.name, f"cannot make a loop device: {text}", errno.ENOENT)
    if error.errno in (errno.EINVAL, errno.ENOTTY):
        text = f"sectors of {shown.sector_size} bytes may be impossible, and Linux 5.8 is needed"
        return _refusal(shown.name, f"the kernel refused to show it as {path}; {text}", error.errno)
    return storage_error(error, shown.name, f"cannot be shown as {path}")


def _check(fd: int, path: str, shown: _Range) -> None:
    """Refuse a range that the kernel cut at the file's end, and its silent fallback to read-only."""
    size = blockdev.device_size(fd)
    if size != shown.length:
        raise _refusal(shown.name, f"{path} shows {size} of {shown.length} bytes; the file has changed its size")
    if not shown.read_only and loopctl.get_status(fd).flags & loopctl.LO_FLAGS_READ_ONLY:
        raise _refusal(shown.name, f"{path} became read-only, because the file is not open for writing", errno.EROFS)


def _identity(path: str) -> tuple[str, ...]:
    """Return what distinguishes this use of /dev/loopN from the next one (by another process); empty if unbound."""
    base = f"/sys/block/{os.path.basename(path)}"
    try:
        bound = tuple(system_text(f"{base}/loop/{name}") for name in ("backing_file", "offset", "sizelimit"))
        # Counts every attached medium; since Linux 5.15.
        sequence = f"{base}/diskseq"
        return (*bound, system_text(sequence)) if os.path.exists(sequence) else bound
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.ENODEV, errno.ENXIO):  # removed before or while it was read
            return ()
        raise


def _sync(fd: int, name: str, shown: _Range) -> None:
    if shown.read_only:
        return
    try:
        os.fsync(fd)
    except OSError as error:
        doing = f"cannot bring what was written through the loop device over {shown.name} to stable storage"
        raise storage_error(error, name, doing) from error


def _wait_until_detached(path: str, shown: _Range, identity: tuple[str, ...]) -> None:
    seconds = patience.seconds(_DETACH_SECONDS)
    deadline = time.monotonic() + seconds
    pause = 0.0005
    while identity and _identity(path) == identity:
        if time.monotonic() > deadline:
            patience.lose()
            text = f"is still in use {seconds:.0f} seconds after it was closed here"
            hint = "a process has it open, or it is mounted; it is removed when that ends"
            raise InUseError(f"{path} over {shown.name}: {text}; {hint}", errno=errno.EBUSY, filename=path)
        time.sleep(pause)
        pause = min(pause * 2, 0.05)
