# SPDX-License-Identifier: MIT
"""Everything about the files of an ext file system, by their inodes: entries, contents, targets, attributes, status."""

from __future__ import annotations

import errno
import os

from pydiskimg.fs.ext4 import layout
from pydiskimg.fs.ext4.contents import FileSource, InlineSource, file_contents
from pydiskimg.fs.ext4.directory_entries import NamedInode, block_entries, directory_blocks
from pydiskimg.fs.ext4.features import RoCompat
from pydiskimg.fs.ext4.file_system import FileSystem, NotBelievedError
from pydiskimg.fs.ext4.inode_table import InodeTable
from pydiskimg.fs.ext4.inodes import StoredInode, inode_name
from pydiskimg.protocols import read_bytes
from pydiskimg.startup import TYPE_CHECKING, cached_property

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pydiskimg.fs.ext4.directory_index import DirectoryIndex
    from pydiskimg.fs.ext4.xattrs import Xattrs

_KINDS = (*layout.FILE_TYPES,)
_ACLS = (b"system.posix_acl_access", b"system.posix_acl_default")
_SECTOR = 512
_NANOSECONDS = 1_000_000_000
_SECONDS = ("st_atime", "st_mtime", "st_ctime")
_MORE_OF_STATUS = (*_SECONDS, "st_atime_ns", "st_mtime_ns", "st_ctime_ns", "st_blksize", "st_blocks", "st_rdev")
_INDEXED = 256  # the number of directories whose names are cached
_INDEXED_NAMES = 1 << 18  # in all; 40 MB
_INDEXED_SIZE = 4 << 20
_KEPT_INDEXES = 4  # of larger directories; 3 MB each


class RefusedError(Exception):
    """A file does not allow an operation although it is not damaged; the text follows its name."""

    def __init__(self, text: str, number: int) -> None:
        super().__init__(text)
        self.number = number


class ExtFiles:
    """The files of a file system that does not change.

    Every call raises NotBelievedError if the structures that it reads are damaged, RefusedError for encrypted files,
    and as reading does.
    """

    def __init__(self, fs: FileSystem) -> None:
        self.fs = fs
        self._has_huge_files = RoCompat.HUGE_FILE in fs.geometry.features
        self._table = InodeTable(fs)
        self._names: dict[int, dict[bytes, int]] = {}  # of visited directories
        self._indexes: dict[int, DirectoryIndex] = {}  # of larger ones

    def inode(self, number: int) -> StoredInode:
        """Return the inode of a file: it must be in use and have a type."""
        inode = self._table.inode(number)
        if inode.kind not in _KINDS:
            raise self._damaged(inode, f"its mode is {inode.mode:#o}, which is invalid")
        return inode

    def entries(self, directory: StoredInode) -> Iterator[NamedInode]:
        """Yield the entries of a directory except "." and "..", in stored order; one block is in memory at a time."""
        for block in self._directory_blocks(directory):
            yield from block_entries(self.fs, directory, block)

    def find(self, directory: StoredInode, name: bytes) -> int | None:
        """Return the inode of a name in a directory; None if it has none of this name."""
        names = self._names.get(directory.number)
        if names is not None:
            return names.get(name)
        if directory.size > _INDEXED_SIZE:
            # imported here: few directories are so large
            from pydiskimg.fs.ext4.directory_index import DamagedIndexError

            try:
                return self._index(directory).find(name)
            except DamagedIndexError:
                pass
            blocks = self._directory_blocks(directory)
            found = (found for block in blocks for found in block_entries(self.fs, directory, block, name))
            return next((number for _, number, _ in found), None)
        names = {}
        for known, number, _ in self.entries(directory):
            names.setdefault(known, number)
        if sum(map(len, self._names.values())) + len(names) > _INDEXED_NAMES or len(self._names) >= _INDEXED:
            self._names.clear()
        self._names[directory.number] = names
        return names.get(name)

    def _index(self, directory: StoredInode) -> DirectoryIndex:
        from pydiskimg.fs.ext4.directory_index import opened_index  # imported here, as above

        if directory.number not in self._indexes:
            if len(self._indexes) >= _KEPT_INDEXES:
                self._indexes.clear()
            self._indexes[directory.number] = opened_index(self.fs, directory)
        return self._indexes[directory.number]

    def _directory_blocks(self, directory: StoredInode) -> Iterator[bytes]:
        if directory.flags & layout.ENCRYPT_FLAG:
            raise RefusedError("is encrypted (fscrypt), and so are the names in it", errno.ENOKEY)
        return directory_blocks(self.fs, directory, self._inline_data(directory))

    def contents(self, inode: StoredInode, name: str) -> FileSource | InlineSource:
        """Return the contents of a regular file; name is its name in messages."""
        self._require_plain(inode)
        return file_contents(self.fs, inode, self._inline_data(inode), name=name)

    def target(self, inode: StoredInode) -> bytes:
        """Return the target of a symlink."""
        self._require_plain(inode)
        size, most = inode.size, self.fs.geometry.block_size
        if not 0 < size <= most:
            raise self._damaged(inode, f"it is a symlink of {size} bytes; expected 1 to {most}")
        is_inline = inode.flags & layout.INLINE_DATA_FLAG
        if size < len(inode.i_block) and not is_inline and not _has_extents(inode):
            found = inode.i_block[:size]
        else:
            found = read_bytes(file_contents(self.fs, inode, self._inline_data(inode), name=self.fs.name), 0, size)
        if b"\0" in found:
            raise self._damaged(inode, "it is a symlink with a NUL byte in it")
        return found

    def attributes(self, inode: StoredInode) -> dict[bytes, bytes]:
        """Return the extended attributes by name, as Linux shows them: an ACL is system.posix_acl_access."""
        from pydiskimg.fs.ext4.xattrs import attribute_name

        found: dict[bytes, bytes] = {}
        for stored, value in self._xattrs.of(inode).items():
            name = attribute_name(stored)
            if name is not None:
                found[name] = self._acl(inode, value) if name in _ACLS else value
        return found

    def status(self, inode: StoredInode) -> os.stat_result:
        """Return the result that os.lstat() has for the mounted file; st_dev is 0."""
        atime, mtime, ctime = (inode.time_ns(name) for name in ("i_atime", "i_mtime", "i_ctime"))
        numbers = (inode.mode, inode.number, 0, inode.links, inode.uid, inode.gid, inode.size)
        return os.stat_result(
            (*numbers, atime // _NANOSECONDS, mtime // _NANOSECONDS, ctime // _NANOSECONDS),
            {
                "st_atime": atime / _NANOSECONDS,
                "st_mtime": mtime / _NANOSECONDS,
                "st_ctime": ctime / _NANOSECONDS,
                "st_atime_ns": atime,
                "st_mtime_ns": mtime,
                "st_ctime_ns": ctime,
                "st_blksize": self.fs.geometry.block_size,
                "st_blocks": self.stored_bytes(inode) // _SECTOR,
                "st_rdev": os.makedev(*inode.device),
            },
        )

    def stored_bytes(self, inode: StoredInode) -> int:
        """Return how much space a file takes, according to its inode."""
        count = inode.counted
        if not self._has_huge_files:
            return (count & 0xFFFFFFFF) * _SECTOR
        return count * (self.fs.geometry.block_size if inode.flags & layout.HUGE_FILE_FLAG else _SECTOR)

    @cached_property
    def _xattrs(self) -> Xattrs:
        from pydiskimg.fs.ext4.xattrs import Xattrs  # imported here: files can be found and read without it

        return Xattrs(self.fs, self._attribute_value)

    def _inline_data(self, inode: StoredInode) -> bytes:
        return self._xattrs.inline_data(inode) if inode.flags & layout.INLINE_DATA_FLAG else b""

    def _attribute_value(self, number: int, size: int) -> bytes:
        inode = self.inode(number)
        if not inode.flags & layout.EA_INODE_FLAG or inode.kind != layout.REGULAR_FILE or inode.size != size:
            raise self._damaged(inode, f"it does not hold an extended attribute of {size} bytes")
        return read_bytes(file_contents(self.fs, inode, b"", name=self.fs.name), 0, size)

    def _acl(self, inode: StoredInode, stored: bytes) -> bytes:
        from pydiskimg.fs.ext4.acl import acl_attribute  # imported here: few files have one

        try:
            return acl_attribute(stored)
        except ValueError as error:
            raise self._damaged(inode, str(error)) from error

    @staticmethod
    def _require_plain(inode: StoredInode) -> None:
        if inode.flags & layout.ENCRYPT_FLAG:
            raise RefusedError("is encrypted (fscrypt), and its key is not available", errno.ENOKEY)

    def _damaged(self, inode: StoredInode, what: str) -> NotBelievedError:
        return self.fs.not_believed(f"{inode_name(inode.number)}: {what}")


def _has_extents(inode: StoredInode) -> bool:
    """True if i_block is an extent tree: old kernels left the flag on symlinks that are in the inode."""
    magic = layout.EXTENT_HEADER.unpack(inode.i_block)["eh_magic"]
    return bool(inode.flags & layout.EXTENTS_FLAG) and magic == layout.EXTENT_MAGIC


def with_device(status: os.stat_result, device: int) -> os.stat_result:
    """Return a status with another st_dev, which distinguishes several file systems of one tree."""
    more = {name: getattr(status, name) for name in _MORE_OF_STATUS}
    return os.stat_result((*status[:2], device, *status[3:]), more)
