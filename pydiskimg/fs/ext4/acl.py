# SPDX-License-Identifier: MIT
"""POSIX ACLs as ext4 stores them, and as the attribute that Linux shows (fs/ext4/acl.h, linux/posix_acl_xattr.h).

The attribute has another version and an id in each entry, all ones where the tag needs none; ext4 leaves these out.
"""

from __future__ import annotations

from pydiskimg.fs.ext4 import layout
from pydiskimg.records import Record

ACL_ATTRIBUTE_HEADER = Record("posix_acl_xattr_header", "<", 4, "0 I a_version")
ACL_ATTRIBUTE_VERSION = 2
WITH_ID = (0x02, 0x08)  # entries for a named user, a named group
_WITHOUT_ID = (0x01, 0x04, 0x10, 0x20)  # owner, owning group, mask, others
_NO_ID = 0xFFFFFFFF
_ALL_BITS = 7


def acl_attribute(stored: bytes) -> bytes:
    """Return the attribute system.posix_acl_access or _default of an ACL as it is stored. Raises ValueError."""
    header = layout.ACL_HEADER
    if len(stored) < header.size or header.unpack(stored)["a_version"] != layout.ACL_VERSION:
        raise ValueError("its ACL is malformed")
    pieces = [ACL_ATTRIBUTE_HEADER.pack(a_version=ACL_ATTRIBUTE_VERSION)]
    position = header.size
    while position < len(stored):
        record = layout.ACL_ENTRY_SHORT
        if position + record.size > len(stored):
            raise ValueError("its ACL is malformed")
        fields = record.unpack(stored, position)
        if fields["e_tag"] in WITH_ID and position + layout.ACL_ENTRY.size <= len(stored):
            record = layout.ACL_ENTRY
            fields = record.unpack(stored, position)
        elif fields["e_tag"] not in _WITHOUT_ID:
            raise ValueError("its ACL is malformed")
        if fields["e_perm"] > _ALL_BITS:
            raise ValueError("its ACL is malformed")
        pieces.append(layout.ACL_ENTRY.pack(**{"e_id": _NO_ID, **fields}))
        position += record.size
    return b"".join(pieces)
