# SPDX-License-Identifier: MIT
"""POSIX.1e access control lists: the text in pax headers as the attribute that Linux stores.

Text as acl_to_text(3) writes it, with star's numeric id as an optional fourth field; the attribute as in
linux/posix_acl_xattr.h.
"""

from __future__ import annotations

import struct

ACCESS = b"system.posix_acl_access"
DEFAULT = b"system.posix_acl_default"

_HEADER = struct.Struct("<I")  # 0  version, 2
_ENTRY = struct.Struct(
    "<H"  # 0  tag
    "H"  # 2  permissions: 4 read, 2 write, 1 execute
    "I"  # 4  user or group id; all ones where the tag needs none
)
assert _ENTRY.size == 8
_VERSION = 2
_NO_ID = 0xFFFFFFFF

# (tag without a qualifier, tag with one)
_TAGS: dict[bytes, tuple[int, int | None]] = {
    b"user": (0x01, 0x02),
    b"group": (0x04, 0x08),
    b"mask": (0x10, None),
    b"other": (0x20, None),
}
_BITS = {ord("r"): 4, ord("w"): 2, ord("x"): 1, ord("-"): 0}


def encode(text: bytes) -> bytes:
    """Return the attribute for an ACL's text, such as "user::rwx,user:1000:r-x,group::r-x,mask::r-x,other::r-x".

    Users and groups must be given by number (GNU tar --numeric-owner; star adds a field with the number): names are
    never looked up on this host. Raises ValueError.
    """
    lines = (line.split(b"#", 1)[0].strip() for line in text.replace(b"\n", b",").split(b","))
    entries = sorted(_entry(line) for line in lines if line)
    return _HEADER.pack(_VERSION) + b"".join(_ENTRY.pack(tag, bits, number) for tag, number, bits in entries)


def is_minimal(name: bytes, value: bytes) -> bool:
    """True when the ACL says no more than the mode does."""
    return name == ACCESS and len(value) <= _HEADER.size + 3 * _ENTRY.size


def _entry(line: bytes) -> tuple[int, int, int]:
    fields = [field.strip() for field in line.split(b":")]
    shown = line.decode(errors="backslashreplace")
    if len(fields) == 2:  # "other:r-x", as Solaris and star write it
        fields.insert(1, b"")
    if len(fields) not in (3, 4) or fields[0] not in _TAGS:
        raise ValueError(f"its ACL entry {shown!r} is malformed")
    plain, qualified = _TAGS[fields[0]]
    bits = _permissions(fields[2], shown)
    if not fields[1]:
        return plain, _NO_ID, bits
    number = fields[3] if len(fields) == 4 else fields[1]
    if qualified is None or not number.isdigit() or int(number) >= _NO_ID:
        raise ValueError(
            f"its ACL entry {shown!r} names a {fields[0].decode()} without a number, and names are not looked up on "
            "this host; pack it with --numeric-owner"
        )
    return qualified, int(number), bits


def _permissions(text: bytes, shown: str) -> int:
    bits = 0
    for letter in text:
        if letter not in _BITS:
            raise ValueError(f"its ACL entry {shown!r} is malformed")
        bits |= _BITS[letter]
    return bits
