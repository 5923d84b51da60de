# SPDX-License-Identifier: MIT
"""open_disk(): a block device or a regular file, opened so that nobody else writes it meanwhile."""

from __future__ import annotations

import errno
import os
import stat
from contextlib import ExitStack

from pydiskimg.errors import InUseError, StorageError, UnsupportedImageError, storage_error
from pydiskimg.holders import claim_device, claim_file, device_holder
from pydiskimg.linux.blockdev import is_read_only
from pydiskimg.targets.block import BlockDisk
from pydiskimg.targets.descriptor import DescriptorDisk
from pydiskimg.targets.file import FileDisk

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import TracebackType
    from typing import Generic, Literal, TypeVar, overload

    from pydiskimg.formats.qcow2.write.disk import Qcow2Disk
    from pydiskimg.protocols import Disk
    from pydiskimg.references import AllowedDirectory

    AnyDisk = TypeVar("AnyDisk", bound=Disk)
else:
    Generic, AnyDisk = (object,), 0


class OpenDisk(Generic[AnyDisk]):
    """Owns a Disk's descriptor: a context manager that gives the Disk and closes its descriptor.

        with open_disk("/dev/drbd3", writable=True) as disk:
            disk.write(0, data)

    close() may be called again; using the Disk afterwards raises StorageError. Leaving the block does not flush a raw
    disk: call Disk.flush() before success is reported. A qcow2 image is flushed when the block is left without an
    error: what was written since the last flush() would not be in it otherwise.
    """

    def __init__(self, disk: AnyDisk, stack: ExitStack, *, flush: bool = False) -> None:
        self.disk = disk
        self._stack = stack
        self._flush = flush

    def close(self) -> None:
        """Close the descriptor; raises StorageError when the system reports a late write error."""
        try:
            self._stack.close()
        except OSError as error:
            raise storage_error(error, self.disk.name, "cannot close") from error

    def __enter__(self) -> AnyDisk:
        return self.disk

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            try:
                if self._flush and error is None:
                    self.disk.flush()
            finally:
                self.close()
        except StorageError as late:
            if error is None:
                raise
            from logging import getLogger  # takes longer to import than this module, and is rarely needed

            getLogger(__name__).warning("%s (after another error, which is the one reported)", late)


# Only the checker needs these, and typing takes longer to import than what opens a disk.
if TYPE_CHECKING:

    @overload
    def open_disk(
        path: str | os.PathLike[str], *, writable: bool = False, is_zero: bool = False, format: Literal["raw"] = "raw"
    ) -> OpenDisk[DescriptorDisk]: ...

    @overload
    def open_disk(
        path: str | os.PathLike[str],
        *,
        writable: bool = False,
        is_zero: bool = False,
        format: Literal["qcow2"],
        references: AllowedDirectory | None = None,
        compress: bool = False,
    ) -> OpenDisk[Qcow2Disk]: ...


def open_disk(
    path: str | os.PathLike[str],
    *,
    writable: bool = False,
    is_zero: bool = False,
    format: str = "raw",  # noqa: A002  qemu-img's word
    references: AllowedDirectory | None = None,
    compress: bool = False,
) -> OpenDisk[DescriptorDisk] | OpenDisk[Qcow2Disk]:
    """Open a block device or an existing regular file as a Disk.

    For writing, a block device is opened O_EXCL, so that a mounted or otherwise claimed device is refused; a
    file is locked (flock) and refused while it is attached to a loop device. Both are refused while a virtual machine
    or qemu-img uses them or an export reads them, and are locked as QEMU does, so that these do not begin to; looking
    at them with `qemu-img -U` goes on. A file system without such locks keeps no other program out. Files are never
    made, truncated or grown.

    format "qcow2" gives the virtual disk of the qcow2 image that the file or device holds; the file grows as the
    disk is filled. references are the files it may name, as for open_image(); compress compresses what is written
    in whole clusters where nothing was yet. is_zero is the caller's word that all of the disk reads as zero: then
    reads_as_zero is True, and nobody zeroes what a copy leaves out.

    Raises InUseError when somebody holds it, StorageError for what does not exist, may not be opened, or is neither
    a device nor a file; for qcow2 also what open_image() and open_qcow2_disk() raise.
    """
    name = os.fspath(path)
    if format not in ("raw", "qcow2"):
        raise UnsupportedImageError(f"{name}: the format {format!r} is not known; expected raw or qcow2")
    with ExitStack() as stack:
        disk = _open_raw(stack, name, writable=writable)
        if format == "raw":
            disk.reads_as_zero = is_zero
            return OpenDisk(disk, stack.pop_all())
        image = _open_qcow2(stack, disk, references=references, compress=compress, writable=writable)
        image.reads_as_zero = image.reads_as_zero or is_zero
        return OpenDisk(image, stack.pop_all(), flush=writable)


def _open_raw(stack: ExitStack, name: str, *, writable: bool) -> DescriptorDisk:
    """Open a device or file as it is; stack closes it."""
    fd = _open(name, writable=writable)
    stack.callback(os.close, fd)
    is_block = stat.S_ISBLK(os.fstat(fd).st_mode)
    try:
        if writable and not is_block:
            claim_file(fd, name)
        if is_block and writable:
            if is_read_only(fd):
                raise StorageError(f"{name}: the device is read-only", errno=errno.EROFS, filename=name)
            claim_device(stack, fd, name)
        disk: DescriptorDisk
        if is_block:
            disk = BlockDisk(fd, name, direct_fd=_open_direct(stack, fd) if writable else None)
        else:
            disk = FileDisk(fd, name)
        stack.callback(disk.release)  # first of all
        return disk
    except StorageError:
        raise
    except OSError as error:
        raise storage_error(error, name, "cannot find out the size") from error


def _open_qcow2(
    stack: ExitStack, disk: DescriptorDisk, *, references: AllowedDirectory | None, compress: bool, writable: bool
) -> Qcow2Disk:
    from pydiskimg.chain import open_chain
    from pydiskimg.formats.qcow2.write.disk import open_qcow2_disk
    from pydiskimg.formats.raw import describe
    from pydiskimg.targets.growing import FixedStore, GrowingFile

    # The image as a reader sees it finds its backing files by the policy, and keeps them open.
    opened = stack.enter_context(ExitStack())
    chain = open_chain(describe(disk.fd, name=disk.name), opened, references=references, snapshot=None)
    store = FixedStore(disk) if isinstance(disk, BlockDisk) else GrowingFile(disk.fd, disk.name)
    image = open_qcow2_disk(store, backing=chain.backing, compress=compress)
    if not writable:
        image.forbid_writing()
    stack.callback(image.close)
    return image


def _open(name: str, *, writable: bool) -> int:
    """Open name after looking at what it is: opening a FIFO would block, and a character device may act."""
    try:
        mode = os.stat(name).st_mode
        if not (stat.S_ISBLK(mode) or stat.S_ISREG(mode)):
            raise StorageError(
                f"{name}: is {_what(mode)}; expected a block device or a regular file",
                errno=errno.EINVAL,
                filename=name,
            )
        flags = os.O_CLOEXEC | os.O_NONBLOCK | (os.O_RDWR if writable else os.O_RDONLY)
        if writable and stat.S_ISBLK(mode):
            flags |= os.O_EXCL
        return os.open(name, flags)
    except StorageError:
        raise
    except OSError as error:
        if error.errno == errno.EBUSY:
            raise InUseError(
                f"{name}: is in use ({device_holder(name)}); nothing was written", errno=errno.EBUSY, filename=name
            ) from error
        raise storage_error(error, name, "cannot open for writing" if writable else "cannot open") from error
    except ValueError as error:  # a NUL byte
        raise StorageError(f"{name!r}: is not a path ({error})", errno=errno.EINVAL, filename=name) from error


def _open_direct(stack: ExitStack, fd: int) -> int | None:
    """Open the device behind fd once more, past the page cache; None where that is not to be had."""
    try:
        direct_fd = os.open(f"/proc/self/fd/{fd}", os.O_RDWR | os.O_DIRECT | os.O_CLOEXEC)
    except OSError:
        return None
    stack.callback(os.close, direct_fd)
    return direct_fd


def _what(mode: int) -> str:
    for test, words in (
        (stat.S_ISDIR, "a directory"),
        (stat.S_ISFIFO, "a named pipe"),
        (stat.S_ISSOCK, "a socket"),
        (stat.S_ISCHR, "a character device"),
    ):
        if test(mode):
            return words
    return "neither a file nor a device"
