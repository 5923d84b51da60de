# SPDX-License-Identifier: MIT
"""How much of its device a file system covers, as its superblock says, and how much it ever could."""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from pydiskimg.errors import FileSystemError
from pydiskimg.fs.ext4.features import Compat, Incompat
from pydiskimg.fs.ext4.layout import ERROR_FS, SUPERBLOCK, SUPERBLOCK_OFFSET, VALID_FS
from pydiskimg.fs.probe import btrfs, xfs
from pydiskimg.protocols import Source, read_bytes

BTRFS_SIZES = struct.Struct(
    "<"
    "112x"  #  0
    "Q"  #   112  total_bytes       of all devices
    "16x"  # 120  bytes_used, root_dir_objectid
    "Q"  #   136  num_devices
    "I"  #   144  sectorsize        bytes
    "61x"  # 148
    "Q"  #   209  dev_item.total_bytes
)
assert BTRFS_SIZES.size == 217


@dataclass(frozen=True, slots=True)
class Coverage:
    """size is what the file system covers, limit what it can cover at most, block_size its unit: all bytes."""

    size: int
    block_size: int
    limit: int = 1 << 63


def coverage(source: Source, fs_type: str) -> Coverage:
    """Return what the file system of a type that probe() found covers: ext2, ext3, ext4, xfs or btrfs.

    Raises FileSystemError when it must not be grown as it is: errors are recorded in it, it was not unmounted and has
    no journal, it is spread over several devices, or its numbers make no sense. ValueError for another type.
    """
    if fs_type not in _READERS:
        raise ValueError(f"{source.name}: a {fs_type!r} has no coverage")
    found = _READERS[fs_type](source)
    if not 512 <= found.block_size <= 1 << 16 or found.size <= 0:
        raise FileSystemError(
            f"{source.name}: its {fs_type} file system states {found.size} bytes in blocks of {found.block_size}"
        )
    return found


def _ext(source: Source) -> Coverage:
    fields = SUPERBLOCK.unpack(read_bytes(source, SUPERBLOCK_OFFSET, SUPERBLOCK.size))
    state, compat, incompat = _numbers(fields, "s_state", "s_feature_compat", "s_feature_incompat")
    low, high, log_size = _numbers(fields, "s_blocks_count_lo", "s_blocks_count_hi", "s_log_block_size")
    if state & ERROR_FS:
        raise FileSystemError(
            f"{source.name}: errors are recorded in its ext file system, which then does not grow; check it (e2fsck -f)"
        )
    if not (compat & Compat.HAS_JOURNAL or state & VALID_FS):
        raise FileSystemError(
            f"{source.name}: its ext file system has no journal and was not unmounted; check it (e2fsck -f) first"
        )
    is_64bit = bool(incompat & Incompat.BIT64)
    block_size = 1024 << min(log_size, 10)
    blocks = low | (high << 32 if is_64bit else 0)
    return Coverage(blocks * block_size, block_size, ((1 << 48 if is_64bit else 1 << 32) - 1) * block_size)


def _numbers(fields: Mapping[str, int | bytes], *names: str) -> list[int]:
    return [int(fields[name]) for name in names]


def _xfs(source: Source) -> Coverage:
    _, block_size, blocks, *_ = xfs.SUPERBLOCK.unpack(read_bytes(source, 0, xfs.SUPERBLOCK.size))
    return Coverage(block_size * blocks, block_size)


def _btrfs(source: Source) -> Coverage:
    _, devices, sector_size, size = BTRFS_SIZES.unpack(read_bytes(source, btrfs.OFFSET, BTRFS_SIZES.size))
    if devices != 1:
        raise FileSystemError(f"{source.name}: its btrfs is spread over {devices} devices; none of them is grown")
    return Coverage(size, sector_size)


_READERS: dict[str, Callable[[Source], Coverage]] = {
    "ext2": _ext,
    "ext3": _ext,
    "ext4": _ext,
    "xfs": _xfs,
    "btrfs": _btrfs,
}
