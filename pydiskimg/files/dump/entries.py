# SPDX-License-Identifier: MIT
"""The files of a dump as entries.

Directories come first in a dump, so that the whole tree of names is known before the first file. The map, the names,
the link counts and the types must agree (docs/adr/0034).
"""

from __future__ import annotations

import re
import stat
import struct
from collections.abc import Iterator, Sequence

from pydiskimg.errors import InvalidImageError
from pydiskimg.files.dump.names import Directory, Name, Names, path_of
from pydiskimg.files.dump.reader import DumpReader, Inode
from pydiskimg.files.entry import Contents, Entry
from pydiskimg.linux import inodeflags
from pydiskimg.protocols import Progress
from pydiskimg.text import printable

_LARGEST_DIRECTORY = 128 << 20
_LONGEST_LINK = 4095
_EXT4_EA_INODE_FL = 0x00200000
_KINDS = {
    1: stat.S_IFIFO,
    2: stat.S_IFCHR,
    4: stat.S_IFDIR,
    6: stat.S_IFBLK,
    8: stat.S_IFREG,
    10: stat.S_IFLNK,
    12: stat.S_IFSOCK,
}
_NODES = (stat.S_IFCHR, stat.S_IFBLK, stat.S_IFIFO, stat.S_IFSOCK)


class DumpEntries:
    """Reads a dump: each directory after its parent, the root first, then everything else with all its names.

    left_out counts names whose inodes are not in the dump, unnamed the file system's own files, which are not entries.
    progress gets bytes of the stored dump, and 0 as the total. Raises InvalidImageError if the dump is truncated or
    damaged, or lacks a file that its map lists.
    """

    def __init__(self, reader: DumpReader, progress: Progress | None) -> None:
        self.left_out = 0
        self.unnamed = 0
        self._reader = reader
        self._progress = progress
        self._reported = 0
        self._names = Names(reader.name, reader.order)
        self._device_words = struct.Struct(reader.order + "II")
        self._directory: Directory | None = None
        self._prefix = b""

    def __iter__(self) -> Iterator[Entry]:
        listed = bytearray(self._reader.read_map())
        inodes = self._reader.inodes()
        inode = self._take_directories(inodes, listed)
        directories = self._names.build()
        self.left_out = sum(not _is_listed(listed, number) for number in self._names.numbers())
        for directory in directories:
            yield _entry(directory.inode, directory.path)
        yield from self._files(inode, inodes, listed)
        self._report()

    def _take_directories(self, inodes: Iterator[Inode], listed: bytearray) -> Inode | None:
        """Read all directories and remove them from the map; return the first other inode."""
        last = 0
        for inode in inodes:
            if inode.kind != stat.S_IFDIR:
                return inode
            if inode.number <= last or not _is_listed(listed, inode.number):
                raise self._reader.error(f"directory inode {inode.number} is out of order, or not in the map")
            last = inode.number
            if inode.size > _LARGEST_DIRECTORY:
                raise self._reader.error(f"directory inode {inode.number} has {inode.size} bytes")
            data = b"".join(piece for _, piece in self._reader.contents())
            if len(data) != inode.size:
                raise self._reader.error(f"directory inode {inode.number} has a hole")
            self._names.add(inode, data)
            listed[last - 1 >> 3] &= ~(1 << (last - 1 & 7))
            self._report()
        return None

    def _files(self, inode: Inode | None, inodes: Iterator[Inode], listed: bytearray) -> Iterator[Entry]:
        """Yield all other files, which must come in the order of the map."""
        expected = _numbers(listed)
        while inode is not None:
            number = next(expected, 0)
            if number != inode.number:
                raise self._out_of_turn(number, inode.number)
            names = self._names.of(inode.number)
            if names:
                yield self._file(inode, names)
            else:
                self._skip(inode)
            self._report()
            inode = next(inodes, None)
        number = next(expected, 0)
        if number:
            raise self._out_of_turn(number, 0)

    def _out_of_turn(self, expected: int, found: int) -> InvalidImageError:
        comes = f"inode {found}" if found else "the end"
        wanted = f"inode {expected}" if expected else "the end"
        return InvalidImageError(
            f"{self._reader.name}: found {comes}, expected {wanted} by its map; the dump is damaged, or of a file "
            "system that was in use"
        )

    def _skip(self, inode: Inode) -> None:
        """Skip the file system's own files: quotas, the orphan file, values of large attributes; all others have a
        name.
        """
        own = inode.kind == stat.S_IFREG and inode.mode == 0o600 and inode.header.di_uid == 0
        if not own and not inode.header.di_flags & _EXT4_EA_INODE_FL:
            raise self._reader.error(f"no directory names inode {inode.number}")
        self.unnamed += 1

    def _file(self, inode: Inode, names: list[Name]) -> Entry:
        path = self._path(names[0])
        others = [self._path(name) for name in names[1:]] if len(names) > 1 else ()
        kind = inode.kind
        try:
            _check(inode, names)
            if kind == stat.S_IFREG:
                contents = self._inline_contents(inode, names[0]) if inode.is_inline else self._reader.contents()
                return _entry(inode, path, others, contents=contents)
            if kind == stat.S_IFLNK:
                return _entry(inode, path, others, link=_link(inode, self._reader.contents()))
            if kind not in _NODES:
                raise ValueError(f"its mode {inode.header.di_mode:#o} is not that of a file")
            for _ in self._reader.contents():
                raise ValueError("it has contents, which a device, FIFO or socket cannot have")
            return _entry(inode, path, others, device=self._device(inode))
        except ValueError as error:
            raise self._refused(error, names[0]) from error

    def _path(self, name: Name) -> bytes:
        if self._directory is not name.directory:  # consecutive inodes are mostly in the same one
            self._directory = name.directory
            self._prefix = name.directory.path.rstrip(b"/") + b"/"
        return self._prefix + name.name

    def _inline_contents(self, inode: Inode, name: Name) -> Contents:
        is_empty = True
        for offset, data in self._reader.contents():
            is_empty = False
            yield offset, data
        if is_empty:
            try:
                yield 0, memoryview(inode.inline_contents())
            except ValueError as error:
                raise self._refused(error, name) from error

    def _device(self, inode: Inode) -> tuple[int, int]:
        """Return the number of a device: in the first word of i_block as in Linux up to 2.4, or in the second."""
        if inode.kind in (stat.S_IFIFO, stat.S_IFSOCK):
            return 0, 0
        old, new = self._device_words.unpack_from(inode.header.di_block)
        if old:
            return old >> 8 & 0xFF, old & 0xFF
        return new >> 8 & 0xFFF, new & 0xFF | new >> 12 & 0xFFF00

    def _report(self) -> None:
        consumed = self._reader.consumed
        if self._progress and consumed != self._reported:
            self._reported = consumed
            self._progress(consumed, 0)

    def _refused(self, reason: ValueError, name: Name) -> InvalidImageError:
        path = printable(path_of(name.directory, name.name))
        return InvalidImageError(f"{self._reader.name}: {path}: {reason}; the dump is damaged")


def _entry(
    inode: Inode,
    path: bytes,
    names: Sequence[bytes] = (),
    *,
    link: bytes = b"",
    device: tuple[int, int] = (0, 0),
    contents: Contents = (),
) -> Entry:
    header, kind = inode.header, inode.kind
    return Entry(
        path,
        kind,
        inode.mode,
        header.di_uid,
        header.di_gid,
        (header.di_mtime * 1_000_000 + header.di_mtime_usec) * 1000,
        (header.di_atime * 1_000_000 + header.di_atime_usec) * 1000,
        header.di_size if kind == stat.S_IFREG else 0,
        link,
        device,
        inode.xattrs,
        inode.acls,
        names,
        header.di_flags & inodeflags.RESTORED_FLAGS,
        contents,
    )


def _check(inode: Inode, names: list[Name]) -> None:
    if len(names) > inode.header.di_nlink:
        raise ValueError(f"inode {inode.number} has {len(names)} names, but its link count is {inode.header.di_nlink}")
    kind = inode.kind
    for name in names:
        if name.kind and _KINDS.get(name.kind) != kind:
            raise ValueError(f"its directory says it is of the type {name.kind}, its mode {inode.header.di_mode:#o}")


def _link(inode: Inode, contents: Contents) -> bytes:
    if not 0 < inode.size <= _LONGEST_LINK:
        raise ValueError(f"it is a symlink to a path of {inode.size} bytes, which is impossible")
    pieces = [bytes(data) for _, data in contents]
    target = b"".join(pieces)
    if not target and inode.is_inline:
        target = inode.inline_contents()
    if len(target) != inode.size or b"\0" in target:
        raise ValueError("it is a symlink to a path with a hole or null bytes in it")
    return target


def _is_listed(listed: bytearray, number: int) -> bool:
    byte = number - 1 >> 3
    return 0 <= byte < len(listed) and bool(listed[byte] >> (number - 1 & 7) & 1)


def _numbers(listed: bytearray) -> Iterator[int]:
    """Yield the inode number of every bit that is set, ascending."""
    for match in re.finditer(rb"[^\0]", listed, re.DOTALL):
        base, byte = 8 * match.start() + 1, match[0][0]
        for bit in range(8):
            if byte >> bit & 1:
                yield base + bit
