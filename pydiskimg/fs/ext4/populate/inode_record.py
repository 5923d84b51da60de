# SPDX-License-Identifier: MIT
"""An inode's bytes from what belongs to a file (inodes.rst)."""

from __future__ import annotations

from dataclasses import dataclass

from pydiskimg.fs.ext4 import layout
from pydiskimg.fs.ext4.inode_fields import owner_fields, size_fields, time_fields
from pydiskimg.fs.ext4.xattr_writer import EncodedAttributes
from pydiskimg.records import Value

_SECOND = 1_000_000_000
_SECTOR = 512


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
        return {
            "i_mode": self.mode,
            **owner_fields(self.uid, self.gid),
            **time_fields(self.atime_ns, "i_atime"),
            **time_fields(self.mtime_ns, "i_mtime"),
            **time_fields(now * _SECOND, "i_ctime", "i_crtime"),
        }


@dataclass(slots=True)
class Stored:
    """Where a file's contents are: i_block, the size in bytes, the blocks with those of the map, flags of the map."""

    i_block: bytes = b""
    size: int = 0
    blocks: int = 0
    flags: int = 0


def inode_record(
    owned: Owned, stored: Stored, links: int, attributes: EncodedAttributes, xattr_block: int, now: int, block_size: int
) -> bytes:
    """Return the inode, without checksum; xattr_block is where the block of attributes is, or 0."""
    sectors = (stored.blocks + bool(xattr_block)) * block_size // _SECTOR
    return layout.INODE.pack(
        **owned.fields(now),
        **stored_fields(stored.size, sectors),
        i_links_count=links,
        i_flags=owned.flags | stored.flags,
        i_block=stored.i_block,
        i_file_acl_lo=xattr_block & 0xFFFFFFFF,
        i_file_acl_high=xattr_block >> 32,
        i_extra_isize=layout.INODE_EXTRA_SIZE,
        i_xattrs=attributes.in_inode,
    )


def stored_fields(size: int, sectors: int) -> dict[str, Value]:
    return {**size_fields(size), "i_blocks_lo": sectors & 0xFFFFFFFF, "i_blocks_high": sectors >> 32}
