# SPDX-License-Identifier: MIT
"""An inode's bytes from what belongs to a file (inodes.rst)."""

from __future__ import annotations

import stat
from dataclasses import dataclass
from functools import lru_cache

from pydiskimg.fs.ext4 import layout
from pydiskimg.fs.ext4.features import Features, Incompat, RoCompat
from pydiskimg.fs.ext4.xattr_writer import EncodedAttributes
from pydiskimg.records import Value

_FIRST_SECOND, _LAST_SECOND = -(1 << 31), (1 << 34) - (1 << 31) - 1
_SECOND = 1_000_000_000
_OLD_DEVICE = 1 << 8  # numbers from this on need the new form
_SECTOR = 512
_FLAGS_OF_FILES = 0x0C0FB  # those of chattr(1) that a regular file can be given
_FLAGS_OF_DIRECTORIES = _FLAGS_OF_FILES | 0x30000  # synchronous updates, top of a hierarchy


@dataclass(slots=True)
class Owned:
    """What an entry says of its file: the type and mode, owner, times in nanoseconds since 1970, flags of chattr(1)."""

    mode: int
    uid: int
    gid: int
    atime_ns: int
    mtime_ns: int
    flags: int = 0

    def fields(self, now: int) -> dict[str, Value]:
        """Return the inode's fields; the times of change and creation are now, in seconds."""
        atime, atime_extra = _time(self.atime_ns)
        mtime, mtime_extra = _time(self.mtime_ns)
        present, present_extra = _time(now * _SECOND)
        return {
            "i_mode": self.mode,
            "i_uid": self.uid & 0xFFFF,
            "i_uid_high": self.uid >> 16,
            "i_gid": self.gid & 0xFFFF,
            "i_gid_high": self.gid >> 16,
            "i_atime": atime,
            "i_atime_extra": atime_extra,
            "i_mtime": mtime,
            "i_mtime_extra": mtime_extra,
            "i_ctime": present,
            "i_ctime_extra": present_extra,
            "i_crtime": present,
            "i_crtime_extra": present_extra,
        }


@dataclass(slots=True)
class Stored:
    """Where a file's contents are: i_block, the size in bytes, the blocks with those of the map, flags of the map."""

    i_block: bytes = b""
    size: int = 0
    blocks: int = 0
    flags: int = 0


def possible_flags(kind: int, flags: int) -> int:
    """Return those of chattr(1)'s flags that a file of a kind, one of the S_IF constants, can have."""
    if kind == stat.S_IFDIR:
        return flags & _FLAGS_OF_DIRECTORIES
    return flags & _FLAGS_OF_FILES if kind == stat.S_IFREG else 0


def inode_record(
    owned: Owned, stored: Stored, links: int, attributes: EncodedAttributes, xattr_block: int, now: int, block_size: int
) -> bytes:
    """Return the inode, without checksum; xattr_block is where the block of attributes is, or 0."""
    sectors = (stored.blocks + bool(xattr_block)) * block_size // _SECTOR
    return layout.INODE.pack(
        **owned.fields(now),
        **size_fields(stored.size, sectors),
        i_links_count=links,
        i_flags=owned.flags | stored.flags,
        i_block=stored.i_block,
        i_file_acl_lo=xattr_block & 0xFFFFFFFF,
        i_file_acl_high=xattr_block >> 32,
        i_extra_isize=layout.INODE_EXTRA_SIZE,
        i_xattrs=attributes.in_inode,
    )


def size_fields(size: int, sectors: int) -> dict[str, Value]:
    return {
        "i_size_lo": size & 0xFFFFFFFF,
        "i_size_high": size >> 32,
        "i_blocks_lo": sectors & 0xFFFFFFFF,
        "i_blocks_high": sectors >> 32,
    }


def device_pointer(major: int, minor: int) -> bytes:
    """Return i_block of a device."""
    if major < _OLD_DEVICE and minor < _OLD_DEVICE:
        return (major << 8 | minor).to_bytes(4, "little")
    return bytes(4) + (minor & 0xFF | major << 8 | (minor & ~0xFF) << 12).to_bytes(4, "little")


def largest_file(features: Features, block_size: int) -> int:
    """Return the size, in bytes, above which Linux does not let a file grow."""
    if Incompat.EXTENTS in features:
        return ((1 << 32) - 1) * block_size
    pointers = block_size // 4
    mapped = layout.DIRECT_BLOCKS + pointers + pointers**2 + pointers**3
    if RoCompat.HUGE_FILE in features:
        return mapped * block_size
    counted = ((1 << 32) - 1) * _SECTOR // block_size
    maps = 3 + 2 * pointers + pointers**2
    return min(mapped, counted - maps) * block_size


@lru_cache(1024)  # most files of an archive share their times with others
def _time(nanoseconds: int) -> tuple[int, int]:
    """Return the two fields of a time, the nearest one that Linux can set."""
    seconds, rest = divmod(nanoseconds, _SECOND)
    if not _FIRST_SECOND <= seconds < _LAST_SECOND:
        seconds, rest = min(max(seconds, _FIRST_SECOND), _LAST_SECOND), 0
    return seconds & 0xFFFFFFFF, rest << 2 | seconds + (1 << 31) >> 32
