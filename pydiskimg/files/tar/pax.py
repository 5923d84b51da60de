# SPDX-License-Identifier: MIT
"""Times, extended attributes and ACLs in the extended header of a pax archive."""

from __future__ import annotations

import base64
import re
import stat
from collections.abc import Mapping
from functools import lru_cache
from urllib.parse import unquote_to_bytes

from pydiskimg.files.acl import AclEntry, check, decode, is_minimal, parse
from pydiskimg.files.attributes import ACL_ACCESS, ACL_DEFAULT
from pydiskimg.text import quoted

_TIME = re.compile(rb"(-?)([0-9]{1,18})(?:\.([0-9]*))?")
_SCHILY_XATTR = b"SCHILY.xattr."
_LIBARCHIVE_XATTR = b"LIBARCHIVE.xattr."
_NO_XATTRS = {b"path", b"linkpath", b"size", b"uid", b"gid", b"uname", b"gname", b"mtime", b"atime", b"ctime"}
_ACLS = {b"SCHILY.acl.access": ACL_ACCESS, b"SCHILY.acl.default": ACL_DEFAULT}


@lru_cache(1 << 10)  # many members have the same times
def nanoseconds(text: bytes) -> int:
    """Return a time of a pax header ("1700000000.25", "-1.5"), rounded down to nanoseconds. Raises ValueError."""
    match = _TIME.fullmatch(text)
    if match is None:
        raise ValueError(f"{quoted(text)} is not a time")
    sign, seconds, fraction = match.groups()
    digits = (fraction or b"").ljust(10, b"0")
    value = int(seconds) * 1_000_000_000 + int(digits[:9])
    if not sign:
        return value
    return -value - any(digit != ord("0") for digit in digits[9:])


def xattrs(records: Mapping[bytes, bytes]) -> dict[bytes, bytes]:
    """Return the extended attributes in a pax header, including POSIX ACLs if they are stored as attributes.

    star, GNU tar and libarchive write SCHILY.xattr.NAME=VALUE; in the name GNU tar writes "=" and "%" as %3D and %25,
    and libarchive also escapes all that is not printable ASCII. LIBARCHIVE.xattr.NAME has the value in base64. Raises
    ValueError.
    """
    if records.keys() <= _NO_XATTRS:  # most members
        return {}
    found = {}
    for keyword, value in records.items():
        if keyword.startswith(_SCHILY_XATTR):
            found[unquote_to_bytes(keyword[len(_SCHILY_XATTR) :])] = value
        elif keyword.startswith(_LIBARCHIVE_XATTR):
            name = unquote_to_bytes(keyword[len(_LIBARCHIVE_XATTR) :])
            found[name] = base64.b64decode(value + b"=" * (-len(value) % 4), validate=True)
        elif keyword == b"RHT.security.selinux":
            found[b"security.selinux"] = value
    if any(not name or b"\0" in name for name in found):
        raise ValueError("the name of an extended attribute is empty or has a null byte in it")
    return found


def acls(records: Mapping[bytes, bytes], attributes: dict[bytes, bytes], *, kind: int) -> dict[bytes, list[AclEntry]]:
    """Return the POSIX ACLs in a pax header, by the attribute's name, except those that add nothing to the mode.

    An ACL that is packed as an attribute is removed from attributes. kind is the entry's. Raises ValueError.
    """
    if not attributes and _ACLS.keys().isdisjoint(records):
        return {}
    found = {}
    for keyword, name in _ACLS.items():
        attribute = attributes.pop(name, None)
        text = records.get(keyword)
        entries = parse(text) if text else decode(attribute) if attribute else []
        if entries and not is_minimal(name, entries):
            if kind not in (0, stat.S_IFLNK):  # a link has none of its own
                check(name, entries, is_directory=kind == stat.S_IFDIR)
            found[name] = entries
    return found
