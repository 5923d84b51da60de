# SPDX-License-Identifier: MIT
"""A dump of level 0 restored into a directory.

Directories come first in a dump, so that the whole tree of names is known, and made, before the first file; each file
is then made by its first name when it comes, and linked to the others.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field

from pydiskimg.errors import DiskImageError, InvalidImageError, StorageError, storage_error
from pydiskimg.files.attributes import AttributesLeftOut
from pydiskimg.files.dump.directories import Directories, drop_acls
from pydiskimg.files.dump.names import Directory, Name, Names, path_of
from pydiskimg.files.dump.reader import DumpReader, Inode
from pydiskimg.files.dump.writer import Files
from pydiskimg.files.target import NEEDS_ROOT, target_directory
from pydiskimg.protocols import Progress
from pydiskimg.text import printable

_LARGEST_DIRECTORY = 128 << 20
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


@dataclass(slots=True)
class Restored:
    """What restoring made: directories, files of every other kind, further names of these, bytes of regular files.

    bytes counts holes, too. left_out is names of what the dump's maker excluded (its map does not list them); unnamed
    is files of the file system's own (quota, orphan file), which are not restored; flags_left_out is files with flags
    of chattr(1) that could not be set there; attributes_left_out is those that the file system cannot hold.
    """

    directories: int = 0
    files: int = 0
    links: int = 0
    bytes: int = 0
    left_out: int = 0
    unnamed: int = 0
    flags_left_out: int = 0
    attributes_left_out: AttributesLeftOut = field(default_factory=AttributesLeftOut)


def restore_dump(reader: DumpReader, directory: str | int, *, progress: Progress | None = None) -> Restored:
    """Restore all of a dump into a directory of a new file system, as restore -r does for a level 0.

        with open_dump(fd, "root.dump") as reader:
            restore_dump(reader, target)

    directory is a path, or a descriptor of a directory, which stays open. It should be empty; directories that are in
    it already (lost+found, a mount point) are taken for the dump's own of that name. Owners, modes, times, hard links,
    holes, devices, extended attributes, ACLs and the flags of chattr(1) come out as they were; a dump has times to the
    second. Nothing outside of the directory is touched and no symlink is followed, whatever the dump says. Nothing is
    flushed: sync the file system afterwards. Memory is what the dump's directories need, about 80 bytes for each name.

    progress gets bytes of the stored dump, and 0 as the total, which a dump does not tell.

    Raises InvalidImageError, which names the dump and the file, when the dump is truncated or damaged, or does not
    hold all that its map lists; UnsupportedImageError; StorageError when the system refuses a read or write. The
    directory then holds a part of the dump.
    """
    with ExitStack() as stack:
        root_fd = stack.enter_context(target_directory(directory, doing="restore"))
        directories = Directories(root_fd)
        stack.callback(directories.close)
        return _Restore(reader, directories, progress).run(root_fd)


class _Restore:
    def __init__(self, reader: DumpReader, directories: Directories, progress: Progress | None) -> None:
        self._reader = reader
        self._directories = directories
        self._progress = progress
        self._reported = 0
        self._names = Names(reader.name, reader.order)
        self._files = Files(directories, reader.order, reader.name)
        self._done = Restored(attributes_left_out=self._files.left_out)

    def run(self, root_fd: int) -> Restored:
        listed = bytearray(self._reader.read_map())
        inodes = self._reader.inodes()
        inode = self._take_directories(inodes, listed)
        directories = self._names.build()
        self._done.left_out = sum(not _is_listed(listed, number) for number in self._names.numbers())
        drop_acls(root_fd)
        self._make_directories(directories)
        self._make_files(inode, inodes, listed)
        for directory in reversed(directories):
            self._finish_directory(directory)
        self._report()
        self._done.flags_left_out = self._files.flags_left_out
        return self._done

    def _take_directories(self, inodes: Iterator[Inode], listed: bytearray) -> Inode | None:
        """Read all directories and take them out of the map; return the first other inode."""
        last = 0
        for inode in inodes:
            if inode.kind != stat.S_IFDIR:
                return inode
            if inode.number <= last or not _is_listed(listed, inode.number):
                raise self._reader.error(f"directory inode {inode.number} is not in its turn, or not in the map")
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

    def _make_directories(self, directories: list[Directory]) -> None:
        for directory in directories[1:]:
            try:
                self._directories.make(directory)
            except OSError as error:
                raise self._failed(error, path_of(directory)) from error
        self._done.directories = len(directories)

    def _make_files(self, inode: Inode | None, inodes: Iterator[Inode], listed: bytearray) -> None:
        """Make everything else, which has to come as the map lists it."""
        expected = _numbers(listed)
        while inode is not None:
            number = next(expected, 0)
            if number != inode.number:
                raise self._out_of_turn(number, inode.number)
            self._make(inode)
            self._report()
            inode = next(inodes, None)
        number = next(expected, 0)
        if number:
            raise self._out_of_turn(number, 0)

    def _out_of_turn(self, expected: int, found: int) -> InvalidImageError:
        comes = f"inode {found} comes" if found else "the end comes"
        wanted = f"inode {expected}, which the map lists, was expected" if expected else "the map lists none"
        return InvalidImageError(
            f"{self._reader.name}: {comes} where {wanted}; the dump is damaged, or of a file system that was in use"
        )

    def _make(self, inode: Inode) -> None:
        names = self._names.of(inode.number)
        if not names:
            self._skip(inode)
            return
        try:
            self._check(inode, names)
            self._files.make(inode, names, self._reader.contents())
        except ValueError as error:
            raise self._refused(str(error), names) from error
        except DiskImageError:
            raise
        except OSError as error:
            raise self._failed(error, path_of(names[0].directory, names[0].name)) from error
        self._done.files += 1
        self._done.links += len(names) - 1
        if inode.kind == stat.S_IFREG:
            self._done.bytes += inode.size

    def _skip(self, inode: Inode) -> None:
        """Let the file system's own pass: quotas, the orphan file, values of large attributes; all else has a name."""
        own = inode.kind == stat.S_IFREG and inode.mode == 0o600 and inode.header.di_uid == 0
        if not own and not inode.header.di_flags & _EXT4_EA_INODE_FL:
            raise self._reader.error(f"no directory names inode {inode.number}")
        self._done.unnamed += 1

    @staticmethod
    def _check(inode: Inode, names: list[Name]) -> None:
        if len(names) > inode.header.di_nlink:
            raise ValueError(f"inode {inode.number} has {len(names)} names where it counts {inode.header.di_nlink}")
        for name in names:
            if name.kind and _KINDS.get(name.kind) != inode.kind:
                raise ValueError(
                    f"its directory says it is of the type {name.kind}, its mode {inode.header.di_mode:#o}"
                )

    def _finish_directory(self, directory: Directory) -> None:
        try:
            fd = self._directories.open_to_set(directory)
            try:
                self._files.set_directory(fd, directory)
            finally:
                os.close(fd)
        except OSError as error:
            raise self._failed(error, path_of(directory)) from error

    def _report(self) -> None:
        consumed = self._reader.consumed
        if self._progress and consumed != self._reported:
            self._reported = consumed
            self._progress(consumed, 0)

    def _refused(self, reason: str, names: list[Name]) -> InvalidImageError:
        path = printable(path_of(names[0].directory, names[0].name))
        return InvalidImageError(f"{self._reader.name}: {path}: {reason}; the dump is damaged")

    def _failed(self, error: OSError, path: bytes) -> DiskImageError:
        if isinstance(error, FileExistsError):
            return InvalidImageError(f"{self._reader.name}: {printable(path)}: a name comes twice, or was there before")
        if isinstance(error, StorageError):
            return error
        doing = "cannot be restored" + (NEEDS_ROOT if isinstance(error, PermissionError) and os.geteuid() else "")
        return storage_error(error, f"{self._reader.name}: {printable(path)}", doing)


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
