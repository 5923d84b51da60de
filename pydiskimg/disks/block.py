# SPDX-License-Identifier: MIT
"""A block device as a Disk: an LV, a DRBD or RBD device, a loop device, a whole drive."""

from __future__ import annotations

import errno
from contextlib import suppress
from functools import partial

from pydiskimg.disks.descriptor import DescriptorDisk
from pydiskimg.disks.zeroing import Rung
from pydiskimg.errors import StorageError
from pydiskimg.linux import blockdev
from pydiskimg.linux.fallocate import punch_hole, zero_range
from pydiskimg.linux.fileio import pread_into, pwrite_all
from pydiskimg.protocols import check_buffer, check_range
from pydiskimg.startup import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pydiskimg.protocols import Buffer, WritableBuffer

# The page cache works in pages: writing whole pages never touches a neighbour's partly dirty page.
PAGE_SIZE = 4096


class BlockDisk(DescriptorDisk):
    """A Disk over the descriptor of a block device, which the caller owns (opened O_EXCL for writing).

    direct_fd, also the caller's, is the same device opened with O_DIRECT: whole pages from page-aligned buffers bypass
    the page cache, which is better used for other data than a copy of an image. After drop_cache() reads bypass it,
    too. The kernel keeps both ways coherent. If the device refuses direct writes, everything goes through fd.

    Size and sector size come from the device. The ways to zero: punch hole unmaps and guarantees zeros (Linux 4.9),
    zero range keeps the blocks, BLKZEROOUT lets the kernel write if the device cannot; the last resort is writing
    zeros. A drive that cannot discard may accept the first command and write the zeros itself, at disk speed.
    """

    is_block_device = True
    zero_alignment = PAGE_SIZE

    def __init__(self, fd: int, name: str, *, direct_fd: int | None = None) -> None:
        super().__init__(
            fd,
            name,
            size=blockdev.device_size(fd),
            sector_size=blockdev.logical_sector_size(fd),
        )
        self._direct_fd = direct_fd
        self._reads_directly = False

    def rungs(self) -> Sequence[Rung]:
        fd = self.fd
        return (
            Rung("punch hole", partial(punch_hole, fd), frees=blockdev.can_discard(fd)),
            Rung("zero range", partial(zero_range, fd)),
            Rung("BLKZEROOUT", partial(blockdev.zero_out, fd)),
        )

    def read_into(self, offset: int, buffer: WritableBuffer) -> None:
        direct_fd = self._direct_fd
        if direct_fd is None or not self._reads_directly or not _is_aligned(offset, buffer):
            super().read_into(offset, buffer)
            return
        check_buffer(self, offset, buffer)
        try:
            pread_into(direct_fd, offset, buffer, name=self.name)
        except StorageError as error:
            if error.errno not in (errno.EINVAL, errno.EBADF):  # refused, or opened for writing only
                raise
            self._reads_directly = False
            super().read_into(offset, buffer)

    def write(self, offset: int, data: Buffer) -> None:
        direct_fd = self._direct_fd
        if direct_fd is None or not _is_aligned(offset, data):
            super().write(offset, data)
            return
        check_buffer(self, offset, data)
        try:
            pwrite_all(direct_fd, offset, data, name=self.name)
        except StorageError as error:
            if error.errno != errno.EINVAL:
                raise
            self._direct_fd = None
            self._log_refusal()
            super().write(offset, data)

    def file_location(self, offset: int, length: int) -> tuple[int, int] | None:
        """Return the location for direct writes from files, for whole pages and a device that accepts direct writes."""
        direct_fd = self._direct_fd
        if direct_fd is None or offset % PAGE_SIZE or length % PAGE_SIZE:
            return None
        check_range(self, offset, length)
        return direct_fd, offset

    def release(self) -> None:
        self._direct_fd = None
        super().release()

    def drop_cache(self) -> None:
        # A loop device is read ten times as fast this way as through two page caches.
        self._reads_directly = True
        # Needs CAP_SYS_ADMIN; without it posix_fadvise alone still drops clean pages.
        with suppress(OSError):
            blockdev.flush_buffers(self.fd)
        super().drop_cache()

    def _log_refusal(self) -> None:
        from logging import getLogger  # takes longer to import than a small disk to write, and is rarely needed

        getLogger(__name__).info("%s: does not accept direct writes; they go through the page cache", self.name)


def _is_aligned(offset: int, data: Buffer) -> bool:
    """True when offset, length and the address in memory are multiples of a page."""
    if offset % PAGE_SIZE or len(data) % PAGE_SIZE or not len(data):
        return False
    import ctypes  # needed only when the first piece has been read; other workers read theirs meanwhile

    with memoryview(data) as view:
        return not view.readonly and ctypes.addressof(ctypes.c_char.from_buffer(view)) % PAGE_SIZE == 0
