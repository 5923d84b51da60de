# SPDX-License-Identifier: MIT
"""A file with all its metadata, on its way from an archive, a dump or a directory into a file system."""

from __future__ import annotations

import stat
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from pydiskimg.files.acl import AclEntry
from pydiskimg.protocols import FileRange

Contents = Iterable[tuple[int, memoryview]]
"""(offset, bytes) of a file, ascending, in bytes, with holes between them. Each piece is valid until the next."""


# a frozen dataclass takes four times as long to make, out of about 15 us for a small file in all
@dataclass(slots=True)
class Entry:
    """A file; consumers must not change it.

    path and link are the source's own bytes. kind is one of the S_IF constants of stat, or 0 for a hard link, whose
    link is an earlier entry's path. mode is the twelve permission bits. Times are nanoseconds since 1970. size is that
    of a regular file with its holes, in bytes. names are further paths of the file. flags are those of chattr(1). data
    has the (offset, length) of the file's data, if known before reading. ranges are the locations of the whole contents
    in other files, in order, from which they may be moved instead of being read. contents are read once, before the
    next entry is requested, or not at all. xattrs and acls, by the attribute's name, are complete once the contents
    were read: a dump has the attributes of a file after its contents.
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
