# SPDX-License-Identifier: MIT
"""Make an inode's bytes from the attributes of a file (inodes.rst)."""

from __future__ import annotations

from dataclasses import dataclass
from struct import error as struct_error

from pydiskimg.fs.ext4 import layout
from pydiskimg.fs.ext4.inode_fields import encoded_time, size_fields
from pydiskimg.fs.ext4.xattr_writer import EncodedAttributes
from pydiskimg.records import Value

_SECOND = 1_000_000_000
_SECTOR = 512
_FIRST_32, _FIRST_16 = 0xFFFFFFFF, 0xFFFF
_pack = layout.INODE.packer(
    *("i_mode", "i_uid", "i_size_lo", "i_atime", "i_ctime", "i_mtime", "i_gid", "i_links_count", "i_blocks_lo"),
    *("i_flags", "i_block", "i_file_acl_lo", "i_size_high", "i_blocks_high", "i_file_acl_high", "i_uid_high"),
    *("i_gid_high", "i_extra_isize", "i_ctime_extra", "i_mtime_extra", "i_atime_extra", "i_crtime", "i_crtime_extra"),
    "i_xattrs",
)


@dataclass(slots=True)
class Owned:
    """The attributes of an entry's file: type and mode, owner, times in nanoseconds since 1970, flags of chattr(1)."""

    mode: int
    uid: int
    gid: int
    atime_ns: int
    mtime_ns: int
    flags: int = 0


@dataclass(slots=True)
class Stored:
    """The location of a file's contents: i_block, the size in bytes, the blocks with the map's, flags of the map."""

    i_block: bytes = b""
    size: int = 0
    blocks: int = 0
    flags: int = 0


def inode_record(
    owned: Owned, stored: Stored, links: int, attributes: EncodedAttributes, xattr_block: int, now: int, block_size: int
) -> bytes:
    """Return the inode, without checksum; xattr_block is the block of attributes, or 0.

    The times of change and creation are now, in seconds.
    """
    size, uid, gid = stored.size, owned.uid, owned.gid
    sectors = (stored.blocks + bool(xattr_block)) * block_size // _SECTOR
    atime, atime_extra = encoded_time(owned.atime_ns)
    mtime, mtime_extra = encoded_time(owned.mtime_ns)
    made, made_extra = encoded_time(now * _SECOND)
    try:
        return _pack(
            *(owned.mode, uid & _FIRST_16, size & _FIRST_32, atime, made, mtime, gid & _FIRST_16, links),
            *(sectors & _FIRST_32, owned.flags | stored.flags, stored.i_block, xattr_block & _FIRST_32, size >> 32),
            *(sectors >> 32, xattr_block >> 32, uid >> 16, gid >> 16, layout.INODE_EXTRA_SIZE),
            *(made_extra, mtime_extra, atime_extra, made, made_extra, attributes.in_inode),
        )
    except struct_error as error:
        raise ValueError(f"its mode, owner, size or flags cannot be stored: {error}") from error


def stored_fields(size: int, sectors: int) -> dict[str, Value]:
    return {**size_fields(size), "i_blocks_lo": sectors & 0xFFFFFFFF, "i_blocks_high": sectors >> 32}
