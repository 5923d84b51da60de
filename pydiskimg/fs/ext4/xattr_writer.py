# SPDX-License-Identifier: MIT
"""Lay out extended attributes in an inode and its one optional block (attributes.rst)."""

from __future__ import annotations

import struct
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from pydiskimg.fs.ext4 import layout
from pydiskimg.fs.ext4.checksums import Checksums

_INODE_AREA = layout.INODE_SIZE - layout.GOOD_OLD_INODE_SIZE - layout.INODE_EXTRA_SIZE
_WHOLE = (b"system.posix_acl_access", b"system.posix_acl_default")
_NAMESPACES = (b"user.", b"trusted.", b"security.")
_INDEXES = {prefix: index for index, prefix in layout.XATTR_PREFIXES.items() if prefix in _WHOLE + _NAMESPACES}
_NAME_SHIFT, _VALUE_SHIFT = 5, 16
_MASK = 0xFFFFFFFF


@dataclass(frozen=True, slots=True)
class ValueInode:
    """A value in an inode of its own, which stores its hash."""

    number: int
    size: int
    value_hash: int


_Attribute = tuple[int, bytes, bytes | ValueInode]  # index, rest of the name, value


class AttributeTooLargeError(ValueError):
    """An attribute does not fit into the inode or the block; name and value are its own."""

    def __init__(self, name: bytes, value: bytes) -> None:
        super().__init__(name)
        self.name = name
        self.value = value


@dataclass(frozen=True, slots=True)
class EncodedAttributes:
    """The bytes of the inode from i_extra_isize on, and the contents of the block, None if none is needed.

    seal_block() sets the block's checksum, which depends on its location.
    """

    in_inode: bytes
    block: bytearray | None


def has_prefix(name: bytes) -> bool:
    """True if ext4 has a number for the prefix of the attribute's name and Linux can set it."""
    return stored_name(name) is not None


def encode_attributes(attributes: Mapping[bytes, bytes], block_size: int) -> EncodedAttributes:
    """Lay out attributes by name for an inode of the usual size; values are in their stored form.

    Raises AttributeTooLargeError. The inode is filled first, in the order in which a block has them.
    """
    stored = {}
    for name, value in attributes.items():
        split = stored_name(name)
        if split is None or len(split[1]) > layout.NAME_MAX:
            raise AttributeTooLargeError(name, value)
        stored[split] = value
    return encode_stored(stored, _INODE_AREA, block_size)


def encode_stored(
    stored: Mapping[tuple[int, bytes], bytes | ValueInode], area: int, block_size: int
) -> EncodedAttributes:
    """As encode_attributes(), by prefix number and rest of the name; area is the inode's room, in bytes."""
    items = sorted(
        ((index, name, value) for (index, name), value in stored.items()),
        key=lambda item: (item[0], len(item[1]), item[1]),
    )
    inside, outside = _Area(area, layout.XATTR_INODE_HEADER.size), _Area(block_size, layout.XATTR_HEADER.size)
    for item in items:
        if not inside.add(item) and not outside.add(item):
            value = item[2] if isinstance(item[2], bytes) else b""
            raise AttributeTooLargeError(layout.XATTR_PREFIXES.get(item[0], b"") + item[1], value)
    in_inode = b""
    if inside.items:
        in_inode = inside.packed(layout.XATTR_INODE_HEADER.pack(h_magic=layout.XATTR_MAGIC), counted_from=4)
    return EncodedAttributes(in_inode, _block(outside) if outside.items else None)


def seal_block(block: bytearray, number: int, checksums: Checksums) -> None:
    """Set the checksum of a block of attributes that is written at a block number."""
    if checksums.active:
        layout.XATTR_HEADER.put(block, {"h_checksum": checksums.xattr_block(number, bytes(block))})


def stored_name(name: bytes) -> tuple[int, bytes] | None:
    """Return the number of an attribute's prefix, and the rest; None if Linux sets no such attribute."""
    if name in _WHOLE:
        return _INDEXES[name], b""
    prefix, dot, rest = name.partition(b".")
    return (_INDEXES[prefix + dot], rest) if rest and prefix + dot in _NAMESPACES else None


class _Area:
    """Room for attributes: entries from the front, values from the end, and four zero bytes between."""

    def __init__(self, size: int, header: int) -> None:
        self._size = size
        self._left = size - header - 4
        self.items: list[_Attribute] = []

    def add(self, item: _Attribute) -> bool:
        """Add an attribute; False if it does not fit."""
        inside = len(item[2]) if isinstance(item[2], bytes) else 0
        needed = layout.XATTR_ENTRY.size + _padded(len(item[1])) + _padded(inside)
        if needed > self._left:
            return False
        self._left -= needed
        self.items.append(item)
        return True

    def packed(self, header: bytes, *, counted_from: int) -> bytes:
        """Return the area; offsets of values count from a byte of it."""
        entries, end, values = [header], self._size, []
        for index, name, value in self.items:
            fields = {"e_name_len": len(name), "e_name_index": index, "e_hash": _item_hash(name, value)}
            if isinstance(value, ValueInode):
                fields |= {"e_value_inum": value.number, "e_value_size": value.size}
            else:
                end -= _padded(len(value))
                values.append(value.ljust(_padded(len(value)), b"\0"))
                fields |= {"e_value_offs": end - counted_from if value else 0, "e_value_size": len(value)}
            entries.append(layout.XATTR_ENTRY.pack(**fields) + name.ljust(_padded(len(name)), b"\0"))
        return b"".join(entries).ljust(end, b"\0") + b"".join(reversed(values))


def _block(area: _Area) -> bytearray:
    header = layout.XATTR_HEADER.pack(
        h_magic=layout.XATTR_MAGIC, h_refcount=1, h_blocks=1, h_hash=_block_hash(area.items)
    )
    return bytearray(area.packed(header, counted_from=0))


def _padded(length: int) -> int:
    return -(-length // layout.XATTR_PADDING) * layout.XATTR_PADDING


def entry_hashes(name: bytes, value: bytes) -> tuple[int, int]:
    """Return the possible values of e_hash: with bytes of the name from 0x80 on as negative numbers (written here), or
    not.
    """
    return _entry_hash(name, value), _hashed(_hashed(0, _NAME_SHIFT, name), _VALUE_SHIFT, _words(value))


def value_hashes(name: bytes, value_hash: int) -> tuple[int, int]:
    """Return the possible e_hash of an attribute whose value is in its own inode, which stores the value's hash."""
    return entry_hashes(name, value_hash.to_bytes(4, "little"))


def _item_hash(name: bytes, value: bytes | ValueInode) -> int:
    return _entry_hash(name, value) if isinstance(value, bytes) else value_hashes(name, value.value_hash)[0]


def _entry_hash(name: bytes, value: bytes) -> int:
    # Bytes from 0x80 on count as negative numbers, as every e2fsck for x86 expects.
    signed = ((byte - 256 if byte > 127 else byte) & _MASK for byte in name)
    return _hashed(_hashed(0, _NAME_SHIFT, signed), _VALUE_SHIFT, _words(value))


def _words(value: bytes) -> tuple[int, ...]:
    return struct.unpack(f"<{_padded(len(value)) // 4}I", value.ljust(_padded(len(value)), b"\0"))


def _hashed(found: int, shift: int, numbers: Iterable[int]) -> int:
    for number in numbers:
        found = _rotated(found, shift) ^ number
    return found


def _block_hash(items: Sequence[_Attribute]) -> int:
    found = 0
    for _, name, value in items:
        one = _item_hash(name, value)
        if not one:
            return 0
        found = _rotated(found, _VALUE_SHIFT) ^ one
    return found


def _rotated(value: int, shift: int) -> int:
    return (value << shift | value >> 32 - shift) & _MASK
