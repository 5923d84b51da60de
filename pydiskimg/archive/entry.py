# SPDX-License-Identifier: MIT
"""One entry of an archive, with everything that is to be restored of it."""

from __future__ import annotations

import base64
import re
import stat
from collections.abc import Mapping
from dataclasses import dataclass, field
from urllib.parse import unquote_to_bytes

from pydiskimg.archive import acl

_TIME = re.compile(rb"(-?)([0-9]{1,18})(?:\.([0-9]*))?")
_SCHILY_XATTR = b"SCHILY.xattr."
_LIBARCHIVE_XATTR = b"LIBARCHIVE.xattr."
_ENCODED = re.compile(rb"%(3D|25)")


@dataclass(frozen=True, slots=True)
class Entry:
    """One entry of an archive.

    path and link are the archive's own bytes. kind is one of the S_IF constants of stat, or 0 for a hard link, whose
    link is another entry's path. mode is the twelve permission bits. Times are nanoseconds since 1970. size is that of
    a regular file with its holes, in bytes. acls are system.posix_acl_* attributes by name.
    """

    path: bytes
    kind: int
    mode: int
    uid: int
    gid: int
    mtime_ns: int
    atime_ns: int
    size: int = 0
    link: bytes = b""
    device: tuple[int, int] = (0, 0)
    xattrs: Mapping[bytes, bytes] = field(default_factory=dict)
    acls: Mapping[bytes, bytes] = field(default_factory=dict)

    @property
    def is_hard_link(self) -> bool:
        return self.kind == 0

    @property
    def is_directory(self) -> bool:
        return self.kind == stat.S_IFDIR


def printable(path: bytes) -> str:
    """Return path as text for messages: bytes that are no UTF-8, and control characters, as backslash escapes."""
    text = path.decode("utf-8", "backslashreplace")
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode("ascii") for char in text)


def nanoseconds(text: bytes) -> int:
    """Return a time of a pax header ("1700000000.25", "-1.5"), rounded down to nanoseconds. Raises ValueError."""
    match = _TIME.fullmatch(text)
    if match is None:
        raise ValueError(f"{printable(text)!r} is no time")
    sign, seconds, fraction = match.groups()
    digits = (fraction or b"").ljust(10, b"0")
    value = int(seconds) * 1_000_000_000 + int(digits[:9])
    if not sign:
        return value
    return -value - any(digit != ord("0") for digit in digits[9:])


def xattrs(records: Mapping[bytes, bytes]) -> dict[bytes, bytes]:
    """Return the extended attributes in a pax header, POSIX ACLs included where they are stored as attributes.

    SCHILY.xattr.NAME=VALUE is what star, GNU tar and libarchive write; GNU tar writes "=" and "%" in a name as %3D
    and %25. LIBARCHIVE.xattr.NAME has the name percent-encoded and the value in base64.
    """
    found = {}
    for keyword, value in records.items():
        if keyword.startswith(_LIBARCHIVE_XATTR):
            name = unquote_to_bytes(keyword[len(_LIBARCHIVE_XATTR) :])
            found[name] = base64.b64decode(value + b"=" * (-len(value) % 4), validate=True)
        elif keyword == b"RHT.security.selinux":
            found[b"security.selinux"] = value
    for keyword, value in records.items():
        if keyword.startswith(_SCHILY_XATTR):
            name = keyword[len(_SCHILY_XATTR) :]
            found[_ENCODED.sub(lambda match: unquote_to_bytes(match[0]), name)] = value
    if any(b"\0" in name for name in found):
        raise ValueError("the name of an extended attribute has a null byte in it")
    return found


def split_acls(records: Mapping[bytes, bytes]) -> tuple[dict[bytes, bytes], dict[bytes, bytes]]:
    """Return (extended attributes, ACLs) of a pax header, both as attributes by name. Raises ValueError."""
    attributes = xattrs(records)
    acls = {name: attributes.pop(name) for name in (acl.ACCESS, acl.DEFAULT) if name in attributes}
    for keyword, name in ((b"SCHILY.acl.access", acl.ACCESS), (b"SCHILY.acl.default", acl.DEFAULT)):
        text = records.get(keyword)
        if text:
            acls[name] = acl.encode(text)
    return attributes, {name: value for name, value in acls.items() if not acl.is_minimal(name, value)}
