# SPDX-License-Identifier: MIT
"""One inode of a dump made into a file, with everything that belongs to it.

Nothing is opened but what was just made. Contents come before the owner (a write and chown() drop set-user-id bits
and capabilities), the owner before attributes, attributes before a mode that forbids setting them, times after that,
and flags last: an immutable file takes no further name.
"""

from __future__ import annotations

import errno
import os
import re
import stat
import struct
from collections.abc import Iterable
from contextlib import suppress

from pydiskimg.files.attributes import ACLS, AttributesLeftOut, set_attributes
from pydiskimg.files.dump.attributes import INLINE_DATA
from pydiskimg.files.dump.directories import Directories
from pydiskimg.files.dump.names import Directory, Name, path_of
from pydiskimg.files.dump.reader import Inode
from pydiskimg.files.link_copy import Spot, copy_file
from pydiskimg.linux import inodeflags
from pydiskimg.linux.inodeflags import get_flags, set_flags

Contents = Iterable[tuple[int, memoryview]]

# Files of this many bytes are written to the disk at once, not all together when the last one is there.
_WRITE_BACK = 1 << 20
_CREATE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_LONGEST_LINK = 4095
_FLAGS = (
    inodeflags.FS_SECRM_FL
    | inodeflags.FS_UNRM_FL
    | inodeflags.FS_SYNC_FL
    | inodeflags.FS_IMMUTABLE_FL
    | inodeflags.FS_APPEND_FL
    | inodeflags.FS_NODUMP_FL
    | inodeflags.FS_NOATIME_FL
    | inodeflags.FS_JOURNAL_DATA_FL
    | inodeflags.FS_NOTAIL_FL
    | inodeflags.FS_DIRSYNC_FL
    | inodeflags.FS_TOPDIR_FL
)


class Files:
    """Makes files in places; dump is its name for messages.

    flags_left_out counts files whose flags the file system does not have, left_out attributes that it cannot hold.
    """

    def __init__(self, directories: Directories, order: str, dump: str) -> None:
        self._directories = directories
        self._dump = dump
        self._owned_by_root = directories.new_files_are_roots()
        self._masked = _umask() | 0o7000
        self._device_words = struct.Struct(order + "II")
        self.flags_left_out = 0
        self.left_out = AttributesLeftOut()

    def make(self, inode: Inode, names: list[Name], contents: Contents) -> None:
        """Make the inode by its first name and link the others. Raises ValueError, its text a clause, and OSError."""
        first = names[0]
        parent = self._directories.open(first.directory)
        if inode.kind == stat.S_IFREG:
            self._make_file(parent, inode, names, contents)
            return
        if inode.kind == stat.S_IFLNK:
            os.symlink(_link(inode, contents), first.name, dir_fd=parent)
        elif inode.kind in (stat.S_IFCHR, stat.S_IFBLK, stat.S_IFIFO, stat.S_IFSOCK):
            for _ in contents:
                raise ValueError("it has contents, which a device, FIFO or socket cannot have")
            os.mknod(first.name, inode.kind | 0o600, self._device(inode), dir_fd=parent)
        else:
            raise ValueError(f"its mode {inode.header.di_mode:#o} is that of no file")
        self._set_by_name(parent, first, inode)
        self._link_others(names)
        self.flags_left_out += bool(inode.header.di_flags & _FLAGS)

    def set_directory(self, fd: int, directory: Directory) -> None:
        """Set what belongs to a directory, when all is in it."""
        self._set_open(fd, directory.inode, path_of(directory))

    def _make_file(self, parent: int, inode: Inode, names: list[Name], contents: Contents) -> None:
        # One system call less for each where the mode can be given at once; attributes, known later, need it writable.
        exact = bool(inode.mode & 0o200) and not inode.mode & self._masked
        fd = os.open(names[0].name, _CREATE, inode.mode if exact else 0o600, dir_fd=parent)
        try:
            end = 0
            for offset, data in contents:
                _write(fd, data, offset)
                end = offset + len(data)
            if not end and inode.is_inline:
                data = memoryview(inode.inline_contents())
                _write(fd, data, 0)
                end = len(data)
            if end != inode.size:
                os.ftruncate(fd, inode.size)
            if end >= _WRITE_BACK:
                os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)  # starts to write it, and waits for nothing
            self._set_open(fd, inode, _path(names[0]), names, has_mode=exact)
        except BaseException:
            os.close(fd)
            raise
        os.close(fd)  # where a network file system tells of a failed write

    def _set_open(
        self, fd: int, inode: Inode, path: bytes, names: list[Name] | None = None, *, has_mode: bool = False
    ) -> None:
        header = inode.header
        if header.di_uid or header.di_gid or names is None or not self._owned_by_root:
            os.fchown(fd, header.di_uid, header.di_gid)
        if inode.attributes:
            self._set_attributes(fd, inode, path)
        if not has_mode:
            os.fchmod(fd, inode.mode)
        if inode.attributes:
            self._set_acls(fd, inode, path)
        os.utime(fd, ns=(inode.atime_ns, inode.mtime_ns))
        copies = self._link_others(names) if names and len(names) > 1 else []
        if header.di_flags & _FLAGS:
            self._set_flags(fd, header.di_flags & _FLAGS)
            for copy in copies:
                self._set_flags_of(copy, header.di_flags & _FLAGS)

    def _set_by_name(self, parent: int, first: Name, inode: Inode) -> None:
        """Set what belongs to a symlink, device, FIFO or socket, none of which is ever opened."""
        header, name = inode.header, first.name
        os.chown(name, header.di_uid, header.di_gid, dir_fd=parent, follow_symlinks=False)
        path = b"/proc/self/fd/%d/%s" % (parent, name)  # as safe: parent is held open, name is one component
        self._set_attributes(path, inode, _path(first))
        if inode.kind != stat.S_IFLNK:
            os.chmod(name, inode.mode, dir_fd=parent)
            self._set_acls(path, inode, _path(first))
        os.utime(name, ns=(inode.atime_ns, inode.mtime_ns), dir_fd=parent, follow_symlinks=False)

    def _link_others(self, names: list[Name]) -> list[Name]:
        """Link the other names to the first; return those that are copies, on the file systems of mount points."""
        made = names[:1]
        for other in names[1:]:
            if not any(self._link(name, other) for name in made):
                copy_file(
                    self._spot(names[0]), self._spot(other), path=_path(other), name=self._dump, left_out=self.left_out
                )
                made.append(other)
        return made[1:]

    def _link(self, first: Name, other: Name) -> bool:
        """Make a hard link; False where it would lead to another file system."""
        source, target = self._spot(first), self._spot(other)
        try:
            os.link(
                source.name,
                target.name,
                src_dir_fd=source.directory,
                dst_dir_fd=target.directory,
                follow_symlinks=False,
            )
        except OSError as error:
            if error.errno != errno.EXDEV:
                raise
            return False
        return True

    def _spot(self, name: Name) -> Spot:
        return Spot(self._directories.open(name.directory), name.name)

    def _set_flags_of(self, name: Name, flags: int) -> None:
        spot = self._spot(name)
        fd = os.open(spot.name, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=spot.directory)
        try:
            self._set_flags(fd, flags)
        finally:
            os.close(fd)

    def _set_attributes(self, file: int | bytes, inode: Inode, path: bytes) -> None:
        found = {name: value for name, value in inode.attributes.items() if name not in (*ACLS, INLINE_DATA)}
        set_attributes(file, found, kind=inode.kind, path=path, left_out=self.left_out)

    def _set_acls(self, file: int | bytes, inode: Inode, path: bytes) -> None:
        found = {name: inode.attributes[name] for name in ACLS if name in inode.attributes}
        set_attributes(file, found, kind=inode.kind, path=path, left_out=self.left_out)

    def _set_flags(self, fd: int, flags: int) -> None:
        try:
            set_flags(fd, get_flags(fd) | flags)
        except OSError as error:
            if error.errno not in (errno.ENOTTY, errno.EOPNOTSUPP, errno.EINVAL):
                raise
            self.flags_left_out += 1

    def _device(self, inode: Inode) -> int:
        """Return the number of a device: in the first word of i_block as it was to Linux 2.4, or in the second."""
        if inode.kind in (stat.S_IFIFO, stat.S_IFSOCK):
            return 0
        old, new = self._device_words.unpack_from(inode.header.di_block)
        if old:
            return os.makedev(old >> 8 & 0xFF, old & 0xFF)
        return os.makedev(new >> 8 & 0xFFF, new & 0xFF | new >> 12 & 0xFFF00)


def _umask() -> int:
    """Return this process's umask; all of it where Linux (before 4.7) does not tell it without changing it."""
    with suppress(OSError), open("/proc/self/status", "rb") as file:
        if found := re.search(rb"^Umask:\s*([0-7]+)$", file.read(), re.MULTILINE):
            return int(found[1], 8)
    return 0o777


def _write(fd: int, data: memoryview, offset: int) -> None:
    done = os.pwrite(fd, data, offset)
    while done < len(data):
        count = os.pwrite(fd, data[done:], offset + done)
        if not count:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        done += count


def _link(inode: Inode, contents: Contents) -> bytes:
    if not 0 < inode.size <= _LONGEST_LINK:
        raise ValueError(f"it is a symlink to a path of {inode.size} bytes, which cannot be")
    pieces = [bytes(data) for _, data in contents]
    target = b"".join(pieces)
    if not target and inode.is_inline:
        target = inode.inline_contents()
    if len(target) != inode.size or b"\0" in target:
        raise ValueError("it is a symlink to a path with a hole or null bytes in it")
    return target


def _path(name: Name) -> bytes:
    return path_of(name.directory, name.name)
