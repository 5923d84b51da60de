# SPDX-License-Identifier: MIT
"""Inodes as they are read, and the inodes of every new file system (inodes.rst)."""

from __future__ import annotations

from pydiskimg.fs.ext4 import layout
from pydiskimg.fs.ext4.checksums import Checksums
from pydiskimg.fs.ext4.descriptors import location_problem, read_descriptor
from pydiskimg.fs.ext4.file_system import FileSystem
from pydiskimg.fs.ext4.geometry import Geometry
from pydiskimg.protocols import read_bytes
from pydiskimg.records import Value
from pydiskimg.startup import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

    from pydiskimg.fs.ext4.file_map import FileMap

_NAMES = {layout.ROOT_INODE: "root directory", layout.RESIZE_INODE: "resize inode", layout.JOURNAL_INODE: "journal"}

_DEVICES = (layout.CHARACTER_DEVICE, layout.BLOCK_DEVICE)
_GENERATION = layout.INODE.slice_of("i_generation")
_FIELD_ENDS: dict[str, int] = {name: layout.INODE.slice_of(name).stop for name in layout.INODE.names}
_INDEX = {name: index for index, name in enumerate(layout.INODE.names)}
_MODE, _LINKS, _FLAGS, _BLOCK = (_INDEX[name] for name in ("i_mode", "i_links_count", "i_flags", "i_block"))
_SIZE_LOW, _SIZE_HIGH, _EXTRA_SIZE = (_INDEX[name] for name in ("i_size_lo", "i_size_high", "i_extra_isize"))
_UID_LOW, _UID_HIGH, _GID_LOW, _GID_HIGH = (_INDEX[name] for name in ("i_uid", "i_uid_high", "i_gid", "i_gid_high"))
_ACL_LOW, _ACL_HIGH = (_INDEX[name] for name in ("i_file_acl_lo", "i_file_acl_high"))
_TIMES = {
    name: (_INDEX[name], _FIELD_ENDS[name], _INDEX[f"{name}_extra"], _FIELD_ENDS[f"{name}_extra"])
    for name in ("i_atime", "i_ctime", "i_mtime", "i_crtime")
}


class StoredInode:
    """An inode as stored at offset of block; seed starts the checksums of its blocks.

    It is immutable. The fields that every reader needs are attributes, and the rest is computed on demand, because
    there is an object for each file.
    """

    __slots__ = (
        "_fields",
        "_values",
        "block",
        "flags",
        "i_block",
        "links",
        "mode",
        "number",
        "offset",
        "raw",
        "seed",
        "size",
    )

    def __init__(self, number: int, block: int, offset: int, raw: bytes, seed: int) -> None:
        values = layout.INODE.values(raw if len(raw) >= layout.INODE.size else raw.ljust(layout.INODE.size, b"\0"))
        self._values = values
        self._fields: dict[str, Any] | None = None
        self.number = number
        self.block = block
        self.offset = offset
        self.raw = raw
        self.seed = seed
        self.mode: int = values[_MODE]
        self.flags: int = values[_FLAGS]
        self.links: int = values[_LINKS]
        self.i_block: bytes = values[_BLOCK]
        # In bytes. The high half is for files; in directories the field had another meaning before they became so
        # large.
        self.size: int = values[_SIZE_LOW] | values[_SIZE_HIGH] << 32

    def with_raw(self, raw: bytes) -> StoredInode:
        """Return the inode with other bytes, of the same generation."""
        return StoredInode(self.number, self.block, self.offset, raw, self.seed)

    @property
    def fields(self) -> dict[str, Any]:
        """Every field by its name, as Record.unpack() returns them."""
        if self._fields is None:
            self._fields = dict(zip(layout.INODE.names, self._values, strict=True))
        return self._fields

    @property
    def kind(self) -> int:
        """The type in its mode: one of the S_IF constants."""
        return self.mode & layout.FILE_TYPE_MASK

    @property
    def uid(self) -> int:
        return int(self._values[_UID_LOW] | self._values[_UID_HIGH] << 16)

    @property
    def gid(self) -> int:
        return int(self._values[_GID_LOW] | self._values[_GID_HIGH] << 16)

    @property
    def xattr_block(self) -> int:
        """The block with its extended attributes; 0 if it has none."""
        return int(self._values[_ACL_LOW] | self._values[_ACL_HIGH] << 32)

    @property
    def extra_size(self) -> int:
        """Bytes in use beyond the first 128; 0 if the inodes are not longer."""
        return int(self._values[_EXTRA_SIZE])

    @property
    def project(self) -> int:
        return int(self._values[_INDEX["i_projid"]]) if self._has("i_projid") else 0

    @property
    def device(self) -> tuple[int, int]:
        """Major and minor of a device; 0, 0 for other files."""
        return device_number(self.i_block) if self.kind in _DEVICES else (0, 0)

    @property
    def counted(self) -> int:
        """i_blocks, in its own unit, with the high half, which is used with huge_file only."""
        return int(self._values[_INDEX["i_blocks_lo"]] | self._values[_INDEX["i_blocks_high"]] << 32)

    def time_ns(self, name: str) -> int:
        """Return i_atime, i_ctime, i_mtime or i_crtime in nanoseconds since 1970; 0 if the inode has no room for it."""
        values = self._values
        index, end, more, end_of_more = _TIMES[name]
        in_use = layout.GOOD_OLD_INODE_SIZE + values[_EXTRA_SIZE]
        if end > in_use:
            return 0
        return time_ns(values[index], values[more] if end_of_more <= in_use else 0)

    def _has(self, field: str) -> bool:
        """True if the inode has room for the field and uses it."""
        end = _FIELD_ENDS[field]
        return end <= layout.GOOD_OLD_INODE_SIZE or end <= layout.GOOD_OLD_INODE_SIZE + self.extra_size


def time_ns(seconds: int, extra: int) -> int:
    """Return nanoseconds since 1970 from the two fields of a time.

    The first one is a signed number. The low two bits of the other say how often 2^32 seconds are added to it, which is
    enough until 2446; its other bits are nanoseconds.
    """
    signed = seconds - (1 << 32 if seconds >> 31 else 0)
    return (signed + ((extra & 3) << 32)) * 1_000_000_000 + (extra >> 2)


def device_number(i_block: bytes) -> tuple[int, int]:
    """Return major and minor of a device: the old form has 8 bits for each, the new one 12 and 20."""
    old, new = (int.from_bytes(i_block[at : at + 4], "little") for at in (0, 4))
    if old:
        return old >> 8 & 0xFF, old & 0xFF
    return new >> 8 & 0xFFF, new & 0xFF | new >> 12 & 0xFFF00


def read_inode(fs: FileSystem, number: int) -> StoredInode:
    """Return an inode.

    Raises NotBelievedError for a number that does not exist, a wrong location of the inode table and a wrong checksum;
    and as reading does.
    """
    geometry = fs.geometry
    group, index = group_of_inode(fs, number)
    block, offset = divmod(index * geometry.inode_size, geometry.block_size)
    block += inode_table(fs, group)
    raw = read_bytes(fs.source, block * geometry.block_size + offset, geometry.inode_size)
    return intact_inode(fs, number, (block, offset), raw)


def group_of_inode(fs: FileSystem, number: int) -> tuple[int, int]:
    """Return the group of an inode and its index there. Raises NotBelievedError for a number that does not exist."""
    if not 0 < number <= fs.geometry.inodes:
        raise fs.not_believed(f"there is no inode {number}; the last one is {fs.geometry.inodes}")
    return divmod(number - 1, fs.geometry.inodes_per_group)


def inode_table(fs: FileSystem, group: int) -> int:
    """Return the first block of a group's inode table. Raises NotBelievedError if that is impossible."""
    descriptor = read_descriptor(fs, group)
    problem = location_problem(fs.geometry, descriptor)
    if problem is not None:
        raise fs.not_believed(f"group {group}: {problem}")
    return descriptor.inode_table


def intact_inode(fs: FileSystem, number: int, where: tuple[int, int], raw: bytes) -> StoredInode:
    """Return the inode in raw, which was read at an offset of a block. Raises NotBelievedError unless it is intact."""
    inode = stored_inode(fs, number, where, raw)
    if not fs.checksums.inode_holds(inode.seed, raw):
        raise fs.not_believed(f"the checksum of {inode_name(number)} is wrong")
    return inode


def stored_inode(fs: FileSystem, number: int, where: tuple[int, int], raw: bytes) -> StoredInode:
    """Return the inode in raw, of a block and an offset there, whose checksum may not be set yet."""
    return StoredInode(number, *where, raw, fs.checksums.for_inode(number, raw[_GENERATION]))


def inode_name(number: int) -> str:
    """Return an inode's name for messages."""
    return f"inode {number} (the {_NAMES[number]})" if number in _NAMES else f"inode {number}"


class NewInodes:
    """The inodes 1 to 11 of a new file system; all their times are now (seconds since 1970)."""

    def __init__(self, geometry: Geometry, checksums: Checksums, now: int) -> None:
        self._geometry = geometry
        self._checksums = checksums
        self._now = now
        self._table = {number: bytearray(geometry.inode_size) for number in range(1, layout.FIRST_INODE + 1)}
        times = dict.fromkeys(("i_atime", "i_ctime", "i_mtime"), now & 0xFFFFFFFF)
        layout.INODE.put(self._table[layout.BAD_BLOCKS_INODE], times)

    def set(self, number: int, mode: int, links: int, size: int, blocks: int, i_block: bytes, flags: int = 0) -> None:
        """Define one inode; size is in bytes, blocks in file system blocks."""
        sectors = blocks * self._geometry.block_size // 512
        # The low half is read as a signed number; the epoch bits say how often 2^32 seconds are added to it.
        seconds, epoch = self._now & 0xFFFFFFFF, (self._now + (1 << 31)) >> 32
        values: dict[str, Value] = {
            "i_mode": mode,
            "i_links_count": links,
            "i_size_lo": size & 0xFFFFFFFF,
            "i_size_high": size >> 32,
            "i_blocks_lo": sectors & 0xFFFFFFFF,
            "i_blocks_high": sectors >> 32,
            "i_flags": flags,
            "i_block": i_block,
            "i_extra_isize": layout.INODE_EXTRA_SIZE,
        }
        values |= dict.fromkeys(("i_atime", "i_ctime", "i_mtime", "i_crtime"), seconds)
        values |= dict.fromkeys(("i_atime_extra", "i_ctime_extra", "i_mtime_extra", "i_crtime_extra"), epoch)
        self._table[number] = bytearray(layout.INODE.pack(**values))

    def __iter__(self) -> Iterator[tuple[int, bytearray]]:
        """Yield numbers and inodes, without checksums."""
        return iter(self._table.items())

    def set_mapped(self, number: int, mode: int, links: int, size: int, mapping: FileMap) -> None:
        """Define an inode whose blocks are mapped as the file system maps files."""
        flags = layout.EXTENTS_FLAG if mapping.is_extents else 0
        self.set(number, mode, links, size, mapping.blocks, mapping.i_block, flags)

    def first_blocks(self) -> bytes:
        """Return the blocks of the inode table that contain them, with checksums and padded with zeros."""
        for number, inode in self._table.items():
            self._checksums.inode(self._checksums.for_inode(number), inode)
        data = b"".join(self._table.values())
        return data.ljust(-(-len(data) // self._geometry.block_size) * self._geometry.block_size, b"\0")
