# SPDX-License-Identifier: MIT
"""The extended attributes of an inode: in the inode, in a block that inodes may share, in inodes of their own
(attributes.rst)."""

from __future__ import annotations

from pydiskimg.fs.ext4 import layout
from pydiskimg.fs.ext4.file_system import FileSystem, NotBelievedError
from pydiskimg.fs.ext4.inodes import StoredInode, inode_name
from pydiskimg.startup import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import TypeAlias

MAX_VALUE = 1 << 16  # bytes; Linux accepts no longer ones
_KEPT_BLOCKS = 256

StoredName = tuple[int, bytes]
"""The index of the beginning of an attribute's name (layout.XATTR_PREFIXES), and the rest of the name."""

ReadValue: TypeAlias = "Callable[[int, int], bytes]"
"""Called with the number of an inode and a size in bytes; returns the value, which is the contents of that inode."""


class Xattrs:
    """Reads the extended attributes of the inodes of a file system that does not change.

    read_value reads a value that has its own inode.
    """

    def __init__(self, fs: FileSystem, read_value: ReadValue) -> None:
        self._fs = fs
        self._read_value = read_value
        self._blocks: dict[int, dict[StoredName, bytes | tuple[int, int]]] = {}

    def of(self, inode: StoredInode) -> dict[StoredName, bytes]:
        """Return the attributes, values in their stored form; for a duplicate name, the one in the inode.

        Raises NotBelievedError if they are damaged, and as reading does.
        """
        found = self._in_inode(inode)
        if inode.xattr_block:
            found = {**self._in_block(inode), **found}
        elif not found:
            return {}
        values: dict[StoredName, bytes] = {}
        left = self._fs.geometry.block_size * 2 + MAX_VALUE * 16
        for name, value in found.items():
            values[name] = value if isinstance(value, bytes) else self._read_value(*value)
            left -= len(values[name])
            if left < 0:
                raise self._damaged(inode, "its extended attributes are larger than Linux allows")
        return values

    def references(self, inode: StoredInode) -> list[tuple[StoredName, int, int, bool]]:
        """Return (name, inode of the value, size, whether the attribute is in the block) of attributes with value
        inodes.

        Raises as of() does.
        """
        areas = [(self._in_inode(inode), False)]
        if inode.xattr_block:
            areas.append((self._in_block(inode), True))
        return [
            (name, value[0], value[1], is_in_block)
            for found, is_in_block in areas
            for name, value in found.items()
            if not isinstance(value, bytes)
        ]

    def inline_data(self, inode: StoredInode) -> bytes:
        """Return the inode's inline contents after i_block. Errors as for of()."""
        value = self._in_inode(inode).get(layout.XATTR_INLINE_DATA, b"")
        if not isinstance(value, bytes):
            raise self._damaged(inode, "its inline data are in another inode")
        return value

    def has_inline_data(self, inode: StoredInode) -> bool:
        """True if the inode has the attribute for inline contents. Errors as for of()."""
        return layout.XATTR_INLINE_DATA in self._in_inode(inode)

    def _in_inode(self, inode: StoredInode) -> dict[StoredName, bytes | tuple[int, int]]:
        try:
            first = first_entry(inode)
        except ValueError as error:
            raise self._damaged(inode, str(error)) from error
        return dict(self._entries(inode, inode.raw[first:], 0)) if first else {}

    def _in_block(self, inode: StoredInode) -> dict[StoredName, bytes | tuple[int, int]]:
        number, fs = inode.xattr_block, self._fs
        if number in self._blocks:
            return self._blocks[number]
        if not fs.geometry.first_data_block <= number < fs.geometry.blocks:
            raise self._damaged(inode, f"its extended attributes are at block {number} of {fs.geometry.blocks}")
        block = fs.read(number)
        header = layout.XATTR_HEADER.unpack(block)
        if header["h_magic"] != _MAGIC or header["h_blocks"] != 1:
            raise self._damaged(inode, f"block {number} does not hold extended attributes")
        if fs.checksums.active and header["h_checksum"] != fs.checksums.xattr_block(number, block):
            raise self._damaged(inode, f"the checksum of block {number} of its extended attributes is wrong")
        if len(self._blocks) >= _KEPT_BLOCKS:
            self._blocks.clear()
        found = self._blocks[number] = dict(self._entries(inode, block, layout.XATTR_HEADER.size))
        return found

    def _entries(
        self, inode: StoredInode, area: bytes, position: int
    ) -> Iterator[tuple[StoredName, bytes | tuple[int, int]]]:
        """Yield names, and values or their locations, of the entries from position on; offsets count in area."""
        left = len(area)
        try:
            for at, _, entry in stored_entries(area, position):
                size, offset, number = entry["e_value_size"], entry["e_value_offs"], entry["e_value_inum"]
                name = area[at + layout.XATTR_ENTRY.size :][: entry["e_name_len"]]
                if b"\0" in name:
                    raise ValueError(_NAME)
                if number:
                    if size > MAX_VALUE:
                        raise ValueError(f"it has an extended attribute of {size} bytes")
                    yield (entry["e_name_index"], name), (number, size)
                    continue
                left -= size
                if offset + size > len(area) or left < 0:
                    raise ValueError(f"it has an extended attribute of {size} bytes at byte {offset}")
                yield (entry["e_name_index"], name), area[offset : offset + size]
        except ValueError as error:
            raise self._damaged(inode, str(error)) from error

    def _damaged(self, inode: StoredInode, what: str) -> NotBelievedError:
        return self._fs.not_believed(f"{inode_name(inode.number)}: {what}")


_MAGIC = layout.XATTR_MAGIC
_NAME = "the name of one of its extended attributes is not valid"


def first_entry(inode: StoredInode) -> int:
    """Return the byte of an inode at which its attribute entries begin; 0 if it has none.

    Raises ValueError if the fields before them are damaged.
    """
    if len(inode.raw) <= layout.GOOD_OLD_INODE_SIZE:
        return 0
    extra = inode.extra_size
    start = layout.GOOD_OLD_INODE_SIZE + extra
    if extra % layout.XATTR_PADDING or start > len(inode.raw):
        raise ValueError(f"it has {extra} extra bytes, in an inode of {len(inode.raw)}")
    first = start + layout.XATTR_INODE_HEADER.size
    has_any = first <= len(inode.raw) and layout.XATTR_INODE_HEADER.values(inode.raw, start) == (_MAGIC,)
    return first if has_any else 0


def points_back(value: StoredInode, inode: StoredInode) -> bool:
    """True if an inode holds another inode's attribute value in the format of Lustre, which the kernel reads.

    It refers to that inode by number in i_mtime, and by generation; it has neither a hash nor a count of references.
    """
    parent, generation = inode.number, inode.fields["i_generation"]
    return bool(value.fields["i_mtime"] == parent and value.fields["i_generation"] == generation)


def stored_entries(area: bytes, position: int) -> Iterator[tuple[int, int, dict[str, int]]]:
    """Yield (offset, end, fields) of the entries from position on. Raises ValueError if they do not end in area."""
    while True:
        end = position + layout.XATTR_PADDING
        if end <= len(area) and not any(area[position:end]):
            return
        end = position + layout.XATTR_ENTRY.size
        if end > len(area):
            raise ValueError("its extended attributes have no end")
        entry = layout.XATTR_ENTRY.unpack(area, position)
        end += -(-entry["e_name_len"] // layout.XATTR_PADDING) * layout.XATTR_PADDING
        if end > len(area):
            raise ValueError(_NAME)
        yield position, end, entry
        position = end


def attribute_name(name: StoredName) -> bytes | None:
    """Return an attribute's whole name; None if Linux does not show it."""
    index, rest = name
    prefix = layout.XATTR_PREFIXES.get(index)
    if prefix is None or name == layout.XATTR_INLINE_DATA:
        return None
    if prefix.endswith(b".") != bool(rest):  # "user." alone, or an ACL with a suffix
        return None
    return prefix + rest
