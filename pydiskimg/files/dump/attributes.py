# SPDX-License-Identifier: MIT
"""Extended attributes as dump(8) stores them: ext4's own bytes, from the inode or from an attribute block.

Linux, fs/ext4/xattr.h. They are little-endian on all machines.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator

from pydiskimg.files.acl import AclEntry, decode_ext4
from pydiskimg.files.attributes import ACL_ACCESS, ACL_DEFAULT

MAGIC_BLOCK = 0xEA020000
MAGIC_INODE = 0xEA020001  # dump's own magic, for those in the inode

INLINE_DATA = b"system.data"  # inline data after i_block; not an attribute that can be set

_BLOCK_HEADER_SIZE = 32
_INODE_HEADER_SIZE = 4
_MAGIC = struct.Struct("<I")
_ENTRY = struct.Struct(
    "<B"  #  0  e_name_len
    "B"  #  1  e_name_index
    "H"  #  2  e_value_offs   from the block's start; in the inode, from the first entry
    "I"  #  4  e_value_inum   an inode that holds the value
    "I"  #  8  e_value_size
    "I"  # 12  e_hash
)
assert _ENTRY.size == 16
_PREFIXES = {
    1: b"user.",
    2: ACL_ACCESS,
    3: ACL_DEFAULT,
    4: b"trusted.",
    6: b"security.",
    7: b"system.",
}
_ACLS = (2, 3)
_OTHER_INDEXES = {8: "a richacl", 9: "the key of an encrypted file", 10: "for the Hurd"}


def decode(data: bytes) -> tuple[dict[bytes, bytes], dict[bytes, list[AclEntry]]]:
    """Return the attributes by name, and the ACLs separately. Raises ValueError, its text a clause."""
    magic = _MAGIC.unpack_from(data)[0] if len(data) >= _MAGIC.size else 0
    if magic not in (MAGIC_BLOCK, MAGIC_INODE):
        raise ValueError(f"its extended attributes begin with {magic:#x}, which is not their magic number")
    first = _BLOCK_HEADER_SIZE if magic == MAGIC_BLOCK else _INODE_HEADER_SIZE
    base = 0 if magic == MAGIC_BLOCK else first
    found: dict[bytes, bytes] = {}
    acls: dict[bytes, list[AclEntry]] = {}
    for index, name, offset, size in _entries(data, first):
        start = base + offset
        if size and not first <= start <= len(data) - size:
            raise ValueError(f"an extended attribute of {size} bytes at {start} is not within its {len(data)} bytes")
        full = _full_name(index, name)
        if full in found or full in acls:
            raise ValueError("it has an extended attribute twice")
        value = data[start : start + size] if size else b""
        if index in _ACLS:
            acls[full] = decode_ext4(value)
        else:
            found[full] = value
    return found, acls


def _entries(data: bytes, position: int) -> Iterator[tuple[int, bytes, int, int]]:
    """Yield index, name, offset and size of each; four zero bytes end them."""
    while True:
        if position + 4 > len(data):
            raise ValueError("its extended attributes have no end")
        if not any(data[position : position + 4]):
            return
        if position + _ENTRY.size > len(data):
            raise ValueError("its extended attributes have no end")
        length, index, offset, inode, size, _ = _ENTRY.unpack_from(data, position)
        start = position + _ENTRY.size
        if start + length > len(data):
            raise ValueError("its extended attributes have no end")
        if inode:
            raise ValueError(
                f"the value of an extended attribute is in an inode of its own ({inode}), which dump(8) does not store"
            )
        yield index, data[start : start + length], offset, size
        position = start + (length + 3) // 4 * 4


def _full_name(index: int, name: bytes) -> bytes:
    if index not in _PREFIXES:
        what = _OTHER_INDEXES.get(index, "not known")
        raise ValueError(f"its extended attribute of the kind {index} is {what} and cannot be restored")
    full = _PREFIXES[index] + (b"" if index in _ACLS else name)
    if b"\0" in full or (index in _ACLS and name) or (index not in _ACLS and not name):
        raise ValueError("the name of an extended attribute is malformed")
    return full
