# SPDX-License-Identifier: MIT
"""The extended attributes and ACLs that a file gets from an entry; files/attributes.py says which may be left out."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Mapping

from pydiskimg.files.acl import AclEntry, Lookup, check, decode, encode_ext4, is_minimal
from pydiskimg.files.attributes import ACLS, AttributesLeftOut, never_left_out
from pydiskimg.files.entry import Entry
from pydiskimg.fs.ext4 import layout
from pydiskimg.fs.ext4.xattr_writer import has_prefix


def access_control_lists(entry: Entry) -> Mapping[bytes, list[AclEntry]]:
    """Return the ACLs of an entry by name, including those among its attributes; a symlink has none.

    Raises ValueError.
    """
    if entry.kind == stat.S_IFLNK:
        return {}
    found = {name: decode(entry.xattrs[name]) for name in ACLS if name in entry.xattrs}
    return {**found, **entry.acls}


def possible_attributes(
    entry: Entry,
    acls: Mapping[bytes, list[AclEntry]],
    lookup: Lookup,
    left_out: AttributesLeftOut | None,
) -> dict[bytes, bytes]:
    """Return an entry's attributes and ACLs by name, in their stored form; those that may be left out are counted,
    unless left_out is None.

    Raises ValueError for an attribute that cannot be kept, OSError for one that Linux would refuse.
    """
    attributes = {}
    for name, value in entry.xattrs.items():
        if name in ACLS:
            continue
        if _is_possible(name, entry.kind):
            attributes[name] = value
        elif left_out is not None:
            left_out.add(name, entry.path)
    for name, entries in acls.items():
        check(name, entries, is_directory=entry.is_directory)
        if not is_minimal(name, entries):
            attributes[name] = encode_ext4(entries, lookup)
    return attributes


def _is_possible(name: bytes, kind: int) -> bool:
    """True if an attribute can be set; False: it may be left out. Raises OSError for others."""
    is_known = has_prefix(name)
    if is_known and name.startswith(b"user.") and kind not in (stat.S_IFREG, stat.S_IFDIR):
        return False
    if not is_known and never_left_out(name):
        raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))
    if is_known and len(name) > layout.NAME_MAX:
        raise OSError(errno.ERANGE, os.strerror(errno.ERANGE))
    return is_known
