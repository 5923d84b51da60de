# SPDX-License-Identifier: MIT
"""The files of a tree as entries: to be copied out, packed, or put into another file system."""

from __future__ import annotations

import stat
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import islice

from pydiskimg.extents import Kind
from pydiskimg.files.acl import decode, is_minimal
from pydiskimg.files.attributes import ACLS
from pydiskimg.files.entry import Contents, Entry
from pydiskimg.fs.ext4.file_system import NotBelievedError
from pydiskimg.fs.ext4.inodes import StoredInode
from pydiskimg.fs.ext4.tree.files import ExtFiles, RefusedError
from pydiskimg.fs.ext4.tree.tree import ExtTree
from pydiskimg.linux.inodeflags import RESTORED_FLAGS
from pydiskimg.protocols import Source
from pydiskimg.units import KIB

_RAISED = (RefusedError, NotBelievedError)
_HARD_LINK = 0
_MOST_RANGES = 1 << 17
_MOVED = 32 * KIB  # from this size on, more system calls cost less than copying
_CHUNK = 256 * KIB  # read at once; a processor's cache holds it


@dataclass(slots=True)
class TreeEntries:
    """The file at a path of a tree, and everything below it, as entries in the order of ExtTree.walk().

    prefix is the path of the first entry; b"" means that the entries below it have paths without a prefix. A file with
    several names is an entry once, followed by hard links to it. follow_symlinks applies to a symlink at the end of
    path, which is otherwise an entry itself.
    """

    tree: ExtTree
    path: str
    prefix: bytes = b""
    follow_symlinks: bool = False
    _first: dict[int, bytes] = field(default_factory=dict)
    _buffer: memoryview = field(default_factory=lambda: memoryview(bytearray(_CHUNK)))

    def entries(self) -> Iterator[Entry]:
        """Raises StorageError if the tree is damaged or encrypted, and as reading does."""
        with self.tree.errors(self.path):
            top = self.tree.inode(self.path, follow_symlinks=self.follow_symlinks)
        if self.prefix:
            yield self._entry(top, self.prefix, self.path)
        if not stat.S_ISDIR(top.mode):
            return
        above = self.path.rstrip("/")
        beginning = self.prefix + b"/" if self.prefix else b""
        for below, inode in self.tree.walk_inodes(self.path):
            yield self._entry(inode, beginning + below, f"{above}/{below.decode('utf-8', 'surrogateescape')}")

    def _entry(self, inode: StoredInode, path: bytes, name: str) -> Entry:
        try:
            return self._bare_or_whole(inode, path, name)
        except _RAISED as error:
            raise self.tree.as_error(name, error) from error

    def _bare_or_whole(self, inode: StoredInode, path: bytes, name: str) -> Entry:
        if inode.links > 1 and not stat.S_ISDIR(inode.mode):
            first = self._first.setdefault(inode.number, path)
            if first != path:
                found = _bare(inode, path)
                found.kind, found.link, found.flags = _HARD_LINK, first, 0
                return found
        found = entry_of(self.tree.files, inode, path, f"{self.tree.name}, {name}", self._buffer)
        if found.kind == stat.S_IFREG:
            found.contents = self._told(found.contents, name)
        return found

    def _told(self, contents: Contents, name: str) -> Contents:
        try:
            yield from contents
        except _RAISED as error:
            raise self.tree.as_error(name, error) from error


def entry_of(files: ExtFiles, inode: StoredInode, path: bytes, name: str, buffer: memoryview | None = None) -> Entry:
    """Return a file as an entry of this path; name is its name in messages about its contents. Raises as files does.

    Contents are read into the buffer, which several files may share.
    """
    found = _bare(inode, path)
    if found.kind == stat.S_IFREG:
        source = files.contents(inode, name)
        found.size, found.contents = source.size, source.stored_pieces(buffer or memoryview(bytearray(_CHUNK)))
        if files.stored_bytes(inode) < source.size:
            found.data = _data_ranges(source)
        elif source.size >= _MOVED:
            found.ranges = source.file_ranges(0, source.size) or ()
    elif found.kind == stat.S_IFLNK:
        found.link = files.target(inode)
    xattrs = files.attributes(inode)
    if xattrs:
        _attach(found, xattrs)
    return found


def _attach(entry: Entry, xattrs: dict[bytes, bytes]) -> None:
    """Add attributes to an entry, ACLs as such."""
    for acl in ACLS:
        if acl in xattrs:
            acl_entries = decode(xattrs.pop(acl))
            if not is_minimal(acl, acl_entries):
                entry.acls = {**entry.acls, acl: acl_entries}
    entry.xattrs = xattrs


def _bare(inode: StoredInode, path: bytes) -> Entry:
    """Return an entry without contents, target and attributes."""
    return Entry(
        path,
        inode.kind,
        stat.S_IMODE(inode.mode),
        inode.uid,
        inode.gid,
        inode.time_ns("i_mtime"),
        inode.time_ns("i_atime"),
        device=inode.device,
        flags=inode.flags & RESTORED_FLAGS,
    )


def _data_ranges(source: Source) -> list[tuple[int, int]] | None:
    """Return where a sparse file has data; None if it has more pieces than headers can describe."""
    data = (extent for extent in source.extents() if extent.kind is Kind.DATA)
    found = [(extent.start, extent.length) for extent in islice(data, _MOST_RANGES + 1)]
    return found if len(found) <= _MOST_RANGES else None
