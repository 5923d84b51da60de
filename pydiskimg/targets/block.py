# SPDX-License-Identifier: MIT
"""A block device as a Disk: an LV, a DRBD or RBD device, a loop device, a whole drive."""

from __future__ import annotations

import contextlib
from functools import partial

from pydiskimg.linux import blockdev
from pydiskimg.linux.fallocate import punch_hole, zero_range
from pydiskimg.targets.descriptor import DescriptorDisk
from pydiskimg.targets.zeroing import Rung

# The page cache works in pages: a range of whole pages never touches a neighbour's dirty half page.
PAGE_SIZE = 4096


class BlockDisk(DescriptorDisk):
    """A Disk over the descriptor of a block device, which the caller owns (opened O_EXCL for writing).

    Size and sector size come from the device. Zeroing: punch hole unmaps and guarantees zeros (Linux 4.9),
    zero range keeps the blocks, BLKZEROOUT lets the kernel write where the device cannot; then we write.
    """

    def __init__(self, fd: int, name: str) -> None:
        super().__init__(
            fd,
            name,
            size=blockdev.device_size(fd),
            sector_size=blockdev.logical_sector_size(fd),
            rungs=(
                Rung("punch hole", partial(punch_hole, fd)),
                Rung("zero range", partial(zero_range, fd)),
                Rung("BLKZEROOUT", partial(blockdev.zero_out, fd)),
            ),
            zero_alignment=PAGE_SIZE,
        )

    def drop_cache(self) -> None:
        # Needs CAP_SYS_ADMIN; without it the advice alone still drops clean pages.
        with contextlib.suppress(OSError):
            blockdev.flush_buffers(self.fd)
        super().drop_cache()
