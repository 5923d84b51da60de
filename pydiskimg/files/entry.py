# SPDX-License-Identifier: MIT
"""A file with all its metadata, on its way from an archive, a dump or a directory into a file system."""

from __future__ import annotations

import stat
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from pydiskimg.files.acl import AclEntry
from pydiskimg.protocols import FileRange

_KINDS = frozenset(
    (0, stat.S_IFREG, stat.S_IFDIR, stat.S_IFLNK, stat.S_IFCHR, stat.S_IFBLK, stat.S_IFIFO, stat.S_IFSOCK)
)

Contents = Iterable[tuple[int, memoryview]]
"""(offset, bytes) of a file, ascending, in bytes, with holes between them. Each piece is valid until the next."""


# a frozen dataclass takes four times as long to make, out of about 15 us for a small file in all
@dataclass(slots=True)
class Entry:
    """A file with all its metadata, on its way from an archive, a dump or a directory into a file system.

    Readers such as open_tar() yield entries and populate(), build_system() and ChangedTree.put() store them; make your
    own to store files that come from elsewhere. A consumer must not change an entry.

    path and link are bytes, relative to the root. kind is one of the S_IF constants of stat, or 0 for a hard link,
    whose link is an earlier entry's path. mode is the twelve permission bits. Times are nanoseconds since 1970. size is
    the length of a regular file with its holes, in bytes. contents yields (offset, memoryview) of its data, ascending,
    with holes between them; it is read once, before the next entry is requested, or not at all. names are further paths
    of the file, device is (major, minor), and flags are those of chattr(1). xattrs and acls, by the attribute's name,
    are complete once the contents were read: a dump has the attributes of a file after its contents. data is the
    (offset, length) of the data, if known before reading; ranges are the locations of the whole contents in other
    files, from which they may be moved without being read.

    >>> import stat
    >>> from pydiskimg import Entry, MemoryDisk, open_tree, populate
    >>> text = b"hello\\n"
    >>> entry = Entry(
    ...     b"motd", stat.S_IFREG, 0o644, uid=0, gid=0, mtime_ns=0, atime_ns=0, size=6, contents=[(0, memoryview(text))]
    ... )
    >>> disk = MemoryDisk(16 << 20)
    >>> made = populate(disk, [entry])
    >>> open_tree(disk).read("/motd")
    b'hello\\n'
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
    acls: Mapping[bytes, list[AclEntry]] = field(default_factory=dict)
    names: Sequence[bytes] = ()
    flags: int = 0
    contents: Contents = ()
    data: Sequence[tuple[int, int]] | None = None
    ranges: Sequence[FileRange] = ()

    @property
    def acls_have_names(self) -> bool:
        return any(isinstance(entry.qualifier, bytes) for entries in self.acls.values() for entry in entries)

    @property
    def is_hard_link(self) -> bool:
        return self.kind == 0

    @property
    def is_directory(self) -> bool:
        return self.kind == stat.S_IFDIR


def check_entry(entry: Entry) -> None:
    """Raise ValueError for a type, a mode or a symlink's target that no file has."""
    if entry.kind not in _KINDS:
        raise ValueError(f"its type is {entry.kind:#o}, which is not one of stat's S_IF constants")
    if entry.mode >> 16:
        raise ValueError(f"its mode is {entry.mode}; expected the twelve permission bits")
    if entry.kind == stat.S_IFLNK and b"\0" in entry.link:
        raise ValueError("the target of the symlink has a NUL byte in it")


def unordered(offset: int, end: int) -> ValueError:
    """Return the error for a piece of contents at offset after those that reach to end (bytes)."""
    return ValueError(f"its contents do not ascend: there are bytes for offset {offset} after those up to {end}")
