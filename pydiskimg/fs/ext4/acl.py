# SPDX-License-Identifier: MIT
"""POSIX ACLs as ext4 stores them, and as the attribute that Linux shows (fs/ext4/acl.h, linux/posix_acl_xattr.h).

The attribute has another version number, and an id in each entry (all ones if the tag has none); ext4 omits unused ids.
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
_MINIMAL = 3  # entries: owner, group, others


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


def stored_acl(attribute: bytes) -> bytes:
    """Return an ACL as it is stored, from the attribute that Linux shows. Raises ValueError."""
    header = ACL_ATTRIBUTE_HEADER
    count, rest = divmod(len(attribute) - header.size, layout.ACL_ENTRY.size)
    if count < 0 or rest or header.unpack(attribute)["a_version"] != ACL_ATTRIBUTE_VERSION:
        raise ValueError("its ACL is malformed")
    pieces = [layout.ACL_HEADER.pack(a_version=layout.ACL_VERSION)]
    for index in range(count):
        fields = layout.ACL_ENTRY.unpack(attribute, header.size + index * layout.ACL_ENTRY.size)
        if fields["e_tag"] not in WITH_ID + _WITHOUT_ID or fields["e_perm"] > _ALL_BITS:
            raise ValueError("its ACL is malformed")
        if fields["e_tag"] in WITH_ID:
            pieces.append(layout.ACL_ENTRY.pack(**fields))
        else:
            pieces.append(layout.ACL_ENTRY_SHORT.pack(e_tag=fields["e_tag"], e_perm=fields["e_perm"]))
    return b"".join(pieces)


def acl_with_mode(stored: bytes, mode: int) -> bytes:
    """Return a stored ACL with its permission bits set from a mode, as chmod(2) does. Raises ValueError."""
    acl = acl_attribute(stored)
    pieces = [acl[: ACL_ATTRIBUTE_HEADER.size]]
    shifts = _shifts(acl)
    for at in range(ACL_ATTRIBUTE_HEADER.size, len(acl), layout.ACL_ENTRY.size):
        fields = layout.ACL_ENTRY.unpack(acl, at)
        if fields["e_tag"] in shifts:
            fields["e_perm"] = mode >> shifts[fields["e_tag"]] & 7
        pieces.append(layout.ACL_ENTRY.pack(**fields))
    return stored_acl(b"".join(pieces))


def mode_of_acl(stored: bytes) -> int:
    """Return the nine permission bits that a stored ACL corresponds to. Raises ValueError."""
    acl, mode = acl_attribute(stored), 0
    shifts = _shifts(acl)
    for at in range(ACL_ATTRIBUTE_HEADER.size, len(acl), layout.ACL_ENTRY.size):
        fields = layout.ACL_ENTRY.unpack(acl, at)
        if fields["e_tag"] in shifts:
            mode |= int(fields["e_perm"]) << shifts[fields["e_tag"]]
    return mode


def is_minimal_acl(stored: bytes) -> bool:
    """True for a stored ACL that adds nothing to the permission bits. Raises ValueError."""
    acl = acl_attribute(stored)
    return (len(acl) - ACL_ATTRIBUTE_HEADER.size) // layout.ACL_ENTRY.size <= _MINIMAL


def _shifts(acl: bytes) -> dict[int, int]:
    """Return the entries whose bits are the mode's, with their offsets; for the group that is the mask, if there is
    one.
    """
    tags = {
        layout.ACL_ENTRY.unpack(acl, at)["e_tag"]
        for at in range(ACL_ATTRIBUTE_HEADER.size, len(acl), layout.ACL_ENTRY.size)
    }
    owner, group, mask, others = _WITHOUT_ID
    return {owner: 6, mask if mask in tags else group: 3, others: 0}
