# SPDX-License-Identifier: MIT
"""How much of its device a file system covers, by its superblock, and how much it could cover at most."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from pydiskimg.errors import FileSystemError
from pydiskimg.fs.ext4.features import Compat, Incompat
from pydiskimg.fs.ext4.layout import ERROR_FS, SUPERBLOCK, SUPERBLOCK_MAGIC, SUPERBLOCK_OFFSET, VALID_FS
from pydiskimg.fs.ext4.superblock import Superblock
from pydiskimg.fs.probe import btrfs, xfs
from pydiskimg.protocols import Source, read_bytes
from pydiskimg.records import Record


@dataclass(frozen=True, slots=True)
class Coverage:
    """size is what the file system covers, limit what it can cover at most, block_size its unit: all in bytes."""

    size: int
    block_size: int
    limit: int = 1 << 63

    @property
    def is_plausible(self) -> bool:
        return 512 <= self.block_size <= 1 << 16 and self.size > 0


def coverage(source: Source, fs_type: str) -> Coverage:
    """Return what a file system of a type that probe() found covers: ext2, ext3, ext4, xfs or btrfs.

    Raises FileSystemError when it must not be grown in its present state: errors are recorded in it, it was not
    unmounted and has no journal, it spans several devices, or its numbers are not plausible. ValueError for another
    type.
    """
    if fs_type not in _TYPES:
        raise ValueError(f"{source.name}: a {fs_type!r} has no coverage")
    superblock = _TYPES[fs_type]
    fields = superblock.record.unpack(read_bytes(source, superblock.offset, superblock.record.size))
    refusal = superblock.refusal(fields)
    if refusal is not None:
        raise FileSystemError(f"{source.name}: {refusal}")
    found = superblock.covered(fields)
    if not found.is_plausible:
        raise FileSystemError(
            f"{source.name}: its {fs_type} file system states {found.size} bytes in blocks of {found.block_size}"
        )
    return found


def stated_size(head: bytes) -> int:
    """Return how many bytes of its device a file system covers; head is the first bytes of the device.

    Return 0 if it is not ext2, ext3, ext4, xfs or btrfs, or has a block size that no kernel mounts (libblkid does not
    report such an xfs either). The number is unchecked: use it for comparisons only.
    """
    for superblock in (_EXT, _XFS, _BTRFS):
        record, offset, (field, magic) = superblock.record, superblock.offset, superblock.magic
        if head.startswith(magic, offset + record.offsets[field]) and len(head) >= offset + record.size:
            found = superblock.covered(record.unpack(head, offset))
            if found.is_plausible:
                return found.size
    return 0


@dataclass(frozen=True, slots=True)
class _Superblock:
    """The offset of a superblock, how to recognise it and read its fields; refusal says why not to grow."""

    record: Record
    offset: int
    magic: tuple[str, bytes]
    covered: Callable[[dict[str, Any]], Coverage]
    refusal: Callable[[dict[str, Any]], str | None] = lambda _: None


def _ext_covered(fields: dict[str, Any]) -> Coverage:
    superblock = Superblock(fields)
    block_size = 1024 << min(fields["s_log_block_size"], 10)
    most = (1 << 48 if Incompat.BIT64 in superblock.features else 1 << 32) - 1
    return Coverage(superblock.blocks * block_size, block_size, most * block_size)


def _ext_refusal(fields: dict[str, Any]) -> str | None:
    if fields["s_state"] & ERROR_FS:
        return "errors are recorded in its ext file system, so it is not grown; check it (e2fsck -f)"
    if not (Compat.HAS_JOURNAL in Superblock(fields).features or fields["s_state"] & VALID_FS):
        return "its ext file system has no journal and was not unmounted; check it (e2fsck -f) first"
    return None


def _xfs_covered(fields: dict[str, Any]) -> Coverage:
    return Coverage(fields["sb_blocksize"] * fields["sb_dblocks"], fields["sb_blocksize"])


def _btrfs_covered(fields: dict[str, Any]) -> Coverage:
    return Coverage(btrfs.DEV_ITEM.unpack(fields["dev_item"])["total_bytes"], fields["sectorsize"])


def _btrfs_refusal(fields: dict[str, Any]) -> str | None:
    count = fields["num_devices"]
    return None if count == 1 else f"its btrfs spans {count} devices; none of them is grown"


_EXT = _Superblock(
    SUPERBLOCK, SUPERBLOCK_OFFSET, ("s_magic", SUPERBLOCK_MAGIC.to_bytes(2, "little")), _ext_covered, _ext_refusal
)
_XFS = _Superblock(xfs.SUPERBLOCK, 0, ("sb_magicnum", xfs.MAGIC), _xfs_covered)
_BTRFS = _Superblock(btrfs.SUPERBLOCK, btrfs.OFFSET, ("magic", btrfs.MAGIC), _btrfs_covered, _btrfs_refusal)
_TYPES = {"ext2": _EXT, "ext3": _EXT, "ext4": _EXT, "xfs": _XFS, "btrfs": _BTRFS}
