# SPDX-License-Identifier: MIT
"""A file's attributes as the fields of its inode: times, owners, sizes, device numbers, flags (inodes.rst)."""

from __future__ import annotations

import stat
from functools import lru_cache

from pydiskimg.fs.ext4 import layout
from pydiskimg.fs.ext4.features import Features, Incompat, RoCompat
from pydiskimg.records import Value

_FIRST_SECOND, _LAST_SECOND = -(1 << 31), (1 << 34) - (1 << 31) - 1
_SECOND = 1_000_000_000
_OLD_DEVICE = 1 << 8  # larger numbers need the new form
_SECTOR = 512
_FLAGS_OF_FILES = 0x0C0FB  # those of chattr(1) that a regular file can have
_FLAGS_OF_DIRECTORIES = _FLAGS_OF_FILES | 0x30000  # synchronous updates, top of a hierarchy


def time_fields(nanoseconds: int, *names: str) -> dict[str, Value]:
    """Return the fields of times (i_mtime, ...), the nearest ones that Linux can set; nanoseconds since 1970."""
    seconds, extra = encoded_time(nanoseconds)
    fields: dict[str, Value] = {}
    for name in names:
        fields[name] = seconds
        fields[f"{name}_extra"] = extra
    return fields


@lru_cache(1024)  # most files of an archive share their times with others
def encoded_time(nanoseconds: int) -> tuple[int, int]:
    """Return the two fields of a time (i_mtime and i_mtime_extra, ...), the nearest one that Linux can set."""
    seconds, rest = divmod(nanoseconds, _SECOND)
    if not _FIRST_SECOND <= seconds < _LAST_SECOND:
        seconds, rest = min(max(seconds, _FIRST_SECOND), _LAST_SECOND), 0
    # The low half is read as a signed number; the epoch bits say how often 2^32 seconds are added to it.
    return seconds & 0xFFFFFFFF, rest << 2 | seconds + (1 << 31) >> 32


def owner_fields(uid: int, gid: int) -> dict[str, Value]:
    """Return the fields of owner and group. Raises ValueError for a number that is not from 0 to 4294967295."""
    for number in (uid, gid):
        if not 0 <= number < 1 << 32:
            raise ValueError(f"the owner {number} is not possible; expected a number from 0 to {(1 << 32) - 1}")
    return {"i_uid": uid & 0xFFFF, "i_uid_high": uid >> 16, "i_gid": gid & 0xFFFF, "i_gid_high": gid >> 16}


def size_fields(size: int) -> dict[str, Value]:
    """Return the fields of a size in bytes. Raises ValueError for a size below zero."""
    if size < 0:
        raise ValueError(f"a size of {size} bytes is not possible; expected 0 or more")
    return {"i_size_lo": size & 0xFFFFFFFF, "i_size_high": size >> 32}


def possible_flags(kind: int, flags: int) -> int:
    """Return those of chattr(1)'s flags that a file of a kind (one of the S_IF constants) can have."""
    if kind == stat.S_IFDIR:
        return flags & _FLAGS_OF_DIRECTORIES
    return flags & _FLAGS_OF_FILES if kind == stat.S_IFREG else 0


def device_pointer(major: int, minor: int) -> bytes:
    """Return i_block of a device. Raises ValueError for a number that Linux does not support."""
    if not (0 <= major < 1 << 12 and 0 <= minor < 1 << 20):
        raise ValueError(f"Linux does not support its device number {major}:{minor}")
    if major < _OLD_DEVICE and minor < _OLD_DEVICE:
        return (major << 8 | minor).to_bytes(4, "little")
    return bytes(4) + (minor & 0xFF | major << 8 | (minor & ~0xFF) << 12).to_bytes(4, "little")


def largest_file(features: Features, block_size: int) -> int:
    """Return the size, in bytes, above which Linux does not let a file grow."""
    if Incompat.EXTENTS in features:
        return ((1 << 32) - 1) * block_size
    pointers = block_size // 4
    mapped = layout.DIRECT_BLOCKS + pointers + pointers**2 + pointers**3
    counted = ((1 << 32) - 1) * _SECTOR // block_size
    if RoCompat.HUGE_FILE in features or mapped + _map_blocks(mapped, pointers) <= counted:
        return mapped * block_size
    return (counted - _map_blocks(counted, pointers)) * block_size


def _map_blocks(blocks: int, pointers: int) -> int:
    """Return how many blocks the map of a file has that needs more than direct and indirect pointers."""
    rest = blocks - layout.DIRECT_BLOCKS - pointers
    twice = min(rest, pointers**2)
    thrice = rest - twice
    found = 2 + -(-twice // pointers)
    return found + 1 + -(-thrice // pointers**2) + -(-thrice // pointers) if thrice else found
