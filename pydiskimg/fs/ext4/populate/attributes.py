# SPDX-License-Identifier: MIT
"""Lay out the extended attributes and ACLs of an entry for a new inode."""

from __future__ import annotations

from collections.abc import Mapping

from pydiskimg.files.acl import AclEntry, Lookup
from pydiskimg.files.attributes import AttributesLeftOut
from pydiskimg.files.entry import Entry
from pydiskimg.files.resolve import UnsafePathError
from pydiskimg.fs.ext4.populate.entry_attributes import possible_attributes
from pydiskimg.fs.ext4.xattr_writer import AttributeTooLargeError, EncodedAttributes, encode_attributes
from pydiskimg.text import printable

NO_ATTRIBUTES = EncodedAttributes(b"", None)


def encoded(
    entry: Entry,
    acls: Mapping[bytes, list[AclEntry]],
    lookup: Lookup,
    block_size: int,
    left_out: AttributesLeftOut | None,
) -> EncodedAttributes:
    """Return the result of possible_attributes(), laid out; errors are the same."""
    attributes = possible_attributes(entry, acls, lookup, left_out)
    if not attributes:
        return NO_ATTRIBUTES
    try:
        return encode_attributes(attributes, block_size)
    except AttributeTooLargeError as error:
        what = f"the attribute {printable(error.name)} of {len(error.value)} bytes"
        raise UnsafePathError(
            f"{what} does not fit: the inode and one block of {block_size} bytes hold all attributes of a file"
        ) from error
