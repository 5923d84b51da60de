# SPDX-License-Identifier: MIT
"""Set extended attributes on a file, and decide which of them may be left out (docs/adr/0089).

Linux has the namespaces user, trusted, security and system; in the last one the file systems made here store only POSIX
ACLs. Archives from other systems have more: com.apple.*, btrfs.*, system.nfs4_acl.
"""

from __future__ import annotations

import errno
import os
import stat
from dataclasses import dataclass

from pydiskimg.text import printable

ACL_ACCESS = b"system.posix_acl_access"
ACL_DEFAULT = b"system.posix_acl_default"
ACLS = (ACL_ACCESS, ACL_DEFAULT)

# Without one of these a system is less safe, or its programs fail.
_NEVER_LEFT_OUT = (b"security", b"trusted")
# E2BIG, ERANGE: the kernel checks the lengths of value and name before the namespace.
_NO_PLACE = (errno.EOPNOTSUPP, errno.E2BIG, errno.ERANGE)

_LONGEST_NAME = 255


@dataclass(slots=True)
class AttributesLeftOut:
    """Attributes that were not set: their number, and the first of them ("com.apple.provenance of etc/motd")."""

    count: int = 0
    first: str = ""

    def add(self, name: bytes, path: bytes) -> None:
        """Count the attribute of the file at path."""
        self.count += 1
        self.first = self.first or f"{printable(name[:_LONGEST_NAME])} of {printable(path)}"

    def __bool__(self) -> bool:
        return self.count > 0

    def __str__(self) -> str:
        if self.count == 1:
            return f"an extended attribute that the file system cannot hold is left out: {self.first}"
        return (
            f"{self.count} extended attributes that the file system cannot hold are left out; the first: {self.first}"
        )


def set_attribute(file: int | bytes, name: bytes, value: bytes, *, kind: int) -> bool:
    """Set an attribute of an open file, or of a path that is not followed; kind is the S_IF constant of the file.

    Returns False if the file system cannot store it and it may be left out. Raises OSError for every other failure, and
    for ACLs, security.* and trusted.* in any case.
    """
    try:
        os.setxattr(file, name, value, follow_symlinks=isinstance(file, int))
    except OSError as error:
        if not _may_be_left_out(name, kind, error.errno):
            raise
        return False
    return True


def never_left_out(name: bytes) -> bool:
    """True if an attribute that cannot be set is an error on every kind of file."""
    return name in ACLS or name.partition(b".")[0] in _NEVER_LEFT_OUT


def _may_be_left_out(name: bytes, kind: int, number: int | None) -> bool:
    namespace = name.partition(b".")[0]
    if never_left_out(name):
        return False
    if namespace != b"user":
        return number in _NO_PLACE
    # Linux refuses user.* on everything but files and directories.
    return number == errno.EOPNOTSUPP or (number == errno.EPERM and kind not in (stat.S_IFREG, stat.S_IFDIR))


def drop_acls(directory: int) -> None:
    """Remove inherited attributes, or an older directory's: files made in it would inherit them too.

    Raises OSError.
    """
    for name in ACLS:
        try:
            os.removexattr(directory, name)
        except OSError as error:
            if error.errno not in (errno.ENODATA, errno.EOPNOTSUPP):
                raise


def get_attributes(file: int | bytes, *, beginnings: tuple[bytes, ...] = (b"",)) -> dict[bytes, bytes]:
    """Return the attributes, by name, of an open file or of a path that is not followed, whose names have these
    prefixes.

    Raises OSError.
    """
    follow = isinstance(file, int)
    try:
        names = [os.fsencode(name) for name in os.listxattr(file, follow_symlinks=follow)]
    except OSError as error:
        if error.errno == errno.EOPNOTSUPP:  # the file system does not support them
            return {}
        raise
    wanted = (name for name in names if name.startswith(beginnings))
    return {name: os.getxattr(file, name, follow_symlinks=follow) for name in wanted}
