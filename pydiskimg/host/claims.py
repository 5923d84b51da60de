# SPDX-License-Identifier: MIT
"""Hold a disk against other writers, and refuse one that is in use."""

from __future__ import annotations

import errno
import fcntl
import os
import stat
import time

from pydiskimg.errors import InUseError, storage_error
from pydiskimg.linux.fileio import system_names, system_text
from pydiskimg.linux.locks import is_read, lock_as_backing_reader, lock_as_reader, lock_as_writer, lock_holder
from pydiskimg.startup import TYPE_CHECKING

# Seconds for the kernel to finish a mount that a killed process had begun, and to unmount it.
_MOMENT_SECONDS = 2.0

if TYPE_CHECKING:
    from contextlib import ExitStack


def loop_over_file(fd: int) -> str | None:
    """Return the loop device that is attached to the regular file open on fd, if there is one."""
    attached = [name for name in system_names("/sys/block") if os.path.exists(f"/sys/block/{name}/loop")]
    if not attached:
        return None
    from pydiskimg.host.same_bytes import loop_backing

    status = os.fstat(fd)
    ours = (status.st_dev, status.st_ino)
    return next((f"/dev/{name}" for name in attached if loop_backing(name, by_name=True) == ours), None)


def is_same_file(path: str, fd: int) -> bool:
    """True when path names the bytes of fd: the same file or block device, also through loop devices."""
    from pydiskimg.host.same_bytes import overlap

    return overlap(os.stat(path), os.fstat(fd))


def claim_file(fd: int, name: str) -> None:
    """Lock the regular file open on fd, until that is closed, against all other writers.

    Raises InUseError when a process has locked it (flock), a loop device is attached to it or a virtual machine uses
    it.
    """
    loop = _lasting_loop(fd)
    if loop is not None:
        raise _in_use(name, f"attached to {loop}")
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        raise _in_use(name, "another process has locked it") from error
    except OSError as error:
        raise storage_error(error, name, "cannot lock") from error
    claim_from_machines(fd, name)


def claim_device(fd: int, name: str) -> list[int]:
    """Keep other writers, exports and QEMU from the block device open on fd, whichever node they open.

    This lasts until the caller closes fd and the returned descriptors. Raises InUseError when the device is already in
    use.
    """
    from pydiskimg.linux.blockdev import open_kernel_node

    claim_from_machines(fd, name)
    node = open_kernel_node(fd)
    if node is None:
        return []
    try:
        claim_from_machines(node, name)
    except BaseException:
        os.close(node)
        raise
    return [node]


def claim_for_reading(stack: ExitStack, fd: int, name: str) -> None:
    """Keep pydiskimg's own writers from the file or block device open on fd, until fd and stack are closed.

    Several readers may do this at once, and a virtual machine may continue. Raises InUseError when such a writer has
    it.
    """
    from pydiskimg.linux.blockdev import open_kernel_node

    node = open_kernel_node(fd) if stat.S_ISBLK(os.fstat(fd).st_mode) else None
    if node is not None:
        stack.callback(os.close, node)
    for held in (fd, node):
        try:
            if held is None or lock_as_reader(held):
                continue
            process = lock_holder(held)
        except OSError as error:
            raise storage_error(error, name, "cannot lock") from error
        raise _in_use(name, f"{_process(process)} is writing to it", outcome="read")


def claim_backing_file(fd: int, name: str) -> None:
    """Keep all writers from a backing file of an image that is being written, until fd is closed.

    Raises InUseError when another program writes it.
    """
    try:
        if lock_as_backing_reader(fd):
            return
        process = lock_holder(fd)
    except OSError as error:
        raise storage_error(error, name, "cannot lock") from error
    raise _in_use(name, f"{_process(process)} is writing to it, and it is a backing file of the image to write")


def claim_from_machines(fd: int, name: str) -> None:
    """Keep QEMU from using the file or device open on fd, until that is closed, except to look at it.

    Raises InUseError when it is already in use, or is being exported.
    """
    try:
        if lock_as_writer(fd):
            return
        process, exported = lock_holder(fd), is_read(fd)
    except OSError as error:
        raise storage_error(error, name, "cannot lock") from error
    doing = "is exporting it" if exported else "has locked it as QEMU does"
    raise _in_use(name, f"{_process(process)} {doing}")


def _lasting_loop(fd: int) -> str | None:
    """Return the loop device over the file; that of a killed process is given a moment to detach itself."""
    end = time.monotonic() + _MOMENT_SECONDS
    while (loop := loop_over_file(fd)) is not None and _clears_itself(loop) and time.monotonic() < end:
        time.sleep(0.02)
    return loop


def _clears_itself(loop: str) -> bool:
    try:
        return system_text(f"/sys/block/{os.path.basename(loop)}/loop/autoclear").strip() == "1"
    except OSError:  # it is detached
        return True


def _process(process: int | None) -> str:
    return "a virtual machine or another program" if process is None else f"process {process}, {_command(process)},"


def _in_use(name: str, why: str, *, outcome: str = "written") -> InUseError:
    return InUseError(f"{name}: is in use ({why}); nothing was {outcome}", errno=errno.EBUSY, filename=name)


def _command(process: int) -> str:
    try:
        return system_text(f"/proc/{process}/comm").strip()
    except OSError:
        return "which has ended"
