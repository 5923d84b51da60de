# SPDX-License-Identifier: MIT
"""Entries of an archive made into files below one directory, with everything that belongs to them.

Nothing is followed and nothing is opened but what was just made, so that no entry reaches outside: see
docs/adr/0030. Contents come before the owner (a write and chown() drop set-user-id bits and capabilities), the owner
before attributes, attributes before a mode that forbids setting them, the mode before the ACL, times last; those of a
directory when all is in it.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from functools import partial

from pydiskimg.errors import ArchiveError, MountPointError, NoSpaceError, StorageError, storage_error
from pydiskimg.files.acl import ACCESS, DEFAULT, encode
from pydiskimg.files.acl_names import Names
from pydiskimg.files.attributes import AttributesLeftOut, set_attribute
from pydiskimg.files.entry import Entry
from pydiskimg.files.link_copy import Spot, Twins, copy_file
from pydiskimg.files.resolve import Parents, UnsafePathError, components
from pydiskimg.files.target import NEEDS_ROOT
from pydiskimg.linux.fileio import pwrite_all
from pydiskimg.text import printable

Contents = Iterable[tuple[int, memoryview]]

_CREATE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_OPEN_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_LATER_ACL_ENTRIES = 200_000  # about 50 MB


class _MountPointInTheWayError(UnsafePathError):
    def __init__(self) -> None:
        super().__init__("a directory on which a file system is mounted is in its place")


@dataclass(frozen=True, slots=True)
class _Later:
    """What is set when everything is unpacked: on a directory, and where an ACL has names in it."""

    parts: list[bytes]
    entry: Entry


class Writer:
    """Makes entries below root_fd, which it borrows. left_out is the attributes that the file system cannot hold.

    archive and done are for messages: "ARCHIVE: entry PATH: cannot be DONE". With keep_links a symlink that leads to a
    directory inside the tree counts as that directory where an entry is one: it stays, and so does what the directory
    has. Call finish() after the last entry, and close() in any case.
    """

    def __init__(self, root_fd: int, *, archive: str, done: str = "unpacked", keep_links: bool = False) -> None:
        self.left_out = AttributesLeftOut()
        self._root_fd = root_fd
        self._keep_links = keep_links
        self._archive = archive
        self._cannot = f"cannot be {done}"
        self._parents = Parents(root_fd)
        self._names = Names(root_fd)
        self._twins = Twins(root_fd)
        self._later: dict[tuple[int, int], _Later] = {}
        self._later_acl_entries = 0

    def close(self) -> None:
        self._parents.close()

    def make(self, entry: Entry, contents: Contents) -> None:
        """Make one entry; contents are read when it is a regular file. Raises ArchiveError and StorageError."""
        try:
            parts = components(entry.path)
            if not parts:
                self._make_root(entry)
                return
            self._make_below(self._parents.open(parts[:-1]), parts, entry, contents)
        except ValueError as error:
            raise self._refused(entry, error) from error
        except OSError as error:
            raise self._failed(error, entry) from error

    def finish(self) -> None:
        """Set modes, ACLs and times of all directories, the deepest first, and the ACLs that have names in them."""
        self._parents.forget()
        for identity, later in sorted(self._later.items(), key=lambda item: -len(item[1].parts)):
            try:
                self._finish(identity, later)
            except ValueError as error:
                raise self._refused(later.entry, error) from error
            except OSError as error:
                raise self._failed(error, later.entry) from error

    def _make_root(self, entry: Entry) -> None:
        if not entry.is_directory:
            raise UnsafePathError("it names the directory that the archive is unpacked into, but is none")
        fd = os.open(".", _OPEN_DIRECTORY, dir_fd=self._root_fd)
        try:
            self._take_directory(fd, [], entry)
        finally:
            os.close(fd)

    def _make_below(self, parent: int, parts: list[bytes], entry: Entry, contents: Contents) -> None:
        name = parts[-1]
        if entry.is_hard_link:
            self._make_hard_link(parent, parts, entry)
        elif entry.kind == stat.S_IFREG:
            self._make_file(parent, parts, entry, contents)
        elif entry.kind == stat.S_IFDIR:
            self._make_directory(parent, parts, entry)
        elif entry.kind == stat.S_IFLNK:
            self._replacing(parent, name, lambda: os.symlink(entry.link, name, dir_fd=parent))
            self._set_by_name(parent, parts, entry)
            self._parents.forget()
        else:
            self._make_node(parent, parts, entry)

    def _make_file(self, parent: int, parts: list[bytes], entry: Entry, contents: Contents) -> None:
        name = parts[-1]
        fd = self._replacing(parent, name, lambda: os.open(name, _CREATE, 0o600, dir_fd=parent))
        try:
            where = self._name(entry)
            end = 0
            for offset, data in contents:
                pwrite_all(fd, offset, data, name=where)
                end = offset + len(data)
            if end != entry.size:
                os.ftruncate(fd, entry.size)
            os.fchown(fd, entry.uid, entry.gid)
            self._set_attributes(fd, entry.xattrs, entry)
            os.fchmod(fd, entry.mode)
            self._set_acls(fd, parts, entry)
            os.utime(fd, ns=(entry.atime_ns, entry.mtime_ns))
        except BaseException:
            os.close(fd)
            raise
        os.close(fd)  # where a network file system tells of a failed write

    def _make_directory(self, parent: int, parts: list[bytes], entry: Entry) -> None:
        name = parts[-1]
        try:
            fd = os.open(name, _OPEN_DIRECTORY, dir_fd=parent)
        except OSError as error:
            if error.errno not in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP):
                raise
            if self._keep_links and self._leads_to_directory(parts):
                return
            self._replacing(parent, name, lambda: os.mkdir(name, 0o700, dir_fd=parent))
            fd = os.open(name, _OPEN_DIRECTORY, dir_fd=parent)
        try:
            self._take_directory(fd, parts, entry)
        finally:
            os.close(fd)

    def _leads_to_directory(self, parts: list[bytes]) -> bool:
        found = Parents(self._root_fd)
        try:
            found.open(parts, make=False)
        except (FileNotFoundError, UnsafePathError):
            return False
        finally:
            found.close()
        return True

    def _take_directory(self, fd: int, parts: list[bytes], entry: Entry) -> None:
        _drop_acls(fd)
        os.fchown(fd, entry.uid, entry.gid)
        self._set_attributes(fd, entry.xattrs, entry)
        self._set_later(os.fstat(fd), parts, entry)

    def _make_node(self, parent: int, parts: list[bytes], entry: Entry) -> None:
        name = parts[-1]
        major, minor = entry.device
        if not (0 <= major < 1 << 12 and 0 <= minor < 1 << 20):
            raise UnsafePathError(f"its device number {major}:{minor} is none that Linux has")
        device = 0 if entry.kind == stat.S_IFIFO else os.makedev(major, minor)
        self._replacing(parent, name, lambda: os.mknod(name, entry.kind | 0o600, device, dir_fd=parent))
        self._set_by_name(parent, parts, entry)

    def _set_by_name(self, parent: int, parts: list[bytes], entry: Entry) -> None:
        """Set what belongs to a symlink, device or FIFO, none of which is ever opened."""
        name = parts[-1]
        os.chown(name, entry.uid, entry.gid, dir_fd=parent, follow_symlinks=False)
        path = _path_of(parent, name)
        self._set_attributes(path, entry.xattrs, entry)
        if entry.kind != stat.S_IFLNK:
            os.chmod(name, entry.mode, dir_fd=parent)
            self._set_acls(path, parts, entry)
        os.utime(name, ns=(entry.atime_ns, entry.mtime_ns), dir_fd=parent, follow_symlinks=False)

    def _make_hard_link(self, parent: int, parts: list[bytes], entry: Entry) -> None:
        target = components(entry.link)
        if not target:
            raise UnsafePathError("it is a hard link to the directory that the archive is unpacked into")
        linked = printable(entry.link)
        others = Parents(self._root_fd)
        try:
            first = Spot(others.open(target[:-1], make=False), target[-1])
            status = first.lstat()
            if stat.S_ISDIR(status.st_mode):
                raise UnsafePathError(f"it is a hard link to the directory {linked}")
            name = Spot(parent, parts[-1])
            if _is_same(name, status):
                return
            if os.fstat(parent).st_dev != status.st_dev or not self._link(first, name):
                self._link_across(first, target, name, parts, entry)
        except FileNotFoundError as error:
            raise UnsafePathError(f"it is a hard link to {linked}, which is not there") from error
        finally:
            others.close()

    def _link(self, first: Spot, name: Spot) -> bool:
        """Make name a hard link to first; False where no hard link leads, as onto another file system."""
        link = partial(os.link, first.name, name.name, src_dir_fd=first.directory, follow_symlinks=False)
        try:
            self._replacing(name.directory, name.name, lambda: link(dst_dir_fd=name.directory))
        except OSError as error:
            if error.errno != errno.EXDEV:
                raise
            return False
        return True

    def _link_across(self, first: Spot, target: list[bytes], name: Spot, parts: list[bytes], entry: Entry) -> None:
        """Make name, at parts, a copy of first, at target on another file system; or a link to such a copy."""
        status = first.lstat()
        with self._twins.opened(status, os.fstat(name.directory).st_dev) as twin:
            if twin is not None and (_is_same(name, twin.lstat()) or self._link(twin, name)):
                return
        copy = partial(copy_file, first, name, path=entry.path, name=self._name(entry), left_out=self.left_out)
        self._replacing(name.directory, name.name, copy)
        self._twins.add(target, status, parts, name.lstat())
        later = self._later.get((status.st_dev, status.st_ino))
        if later is not None:
            self._set_later(name.lstat(), parts, later.entry)

    def _replacing(self, parent: int, name: bytes, make: Callable[[], int | None]) -> int:
        """Call make(), which fails where something exists; if something does, take it away and call again."""
        try:
            return make() or 0
        except FileExistsError:
            self._remove(parent, name)
            return make() or 0

    def _remove(self, parent: int, name: bytes) -> None:
        status = os.stat(name, dir_fd=parent, follow_symlinks=False)
        self._later.pop((status.st_dev, status.st_ino), None)
        self._twins.forget(status)
        if not stat.S_ISDIR(status.st_mode):
            os.unlink(name, dir_fd=parent)
            return
        try:
            os.rmdir(name, dir_fd=parent)
        except OSError as error:
            if error.errno == errno.EBUSY:
                raise _MountPointInTheWayError from error
            raise UnsafePathError("a directory that is not empty is in its place") from error
        self._parents.forget()

    def _finish(self, identity: tuple[int, int], later: _Later) -> None:
        entry = later.entry
        parent = self._parents.open(later.parts[:-1], make=False)
        name = later.parts[-1] if later.parts else b"."
        status = os.stat(name, dir_fd=parent, follow_symlinks=False)
        if (status.st_dev, status.st_ino) != identity:
            raise UnsafePathError("something else took its place while the archive was unpacked")
        path = _path_of(parent, name)
        if entry.is_directory:
            os.chmod(name, entry.mode, dir_fd=parent)
        acls = {attribute: encode(entries, self._names.number) for attribute, entries in entry.acls.items()}
        self._set_attributes(path, acls, entry)
        if entry.is_directory:
            os.utime(name, ns=(entry.atime_ns, entry.mtime_ns), dir_fd=parent, follow_symlinks=False)

    def _set_acls(self, file: int | bytes, parts: list[bytes], entry: Entry) -> None:
        if entry.acls_have_names:
            status = os.stat(file) if isinstance(file, int) else os.lstat(file)
            self._set_later(status, parts, entry)
            return
        acls = {attribute: encode(entries, self._names.number) for attribute, entries in entry.acls.items()}
        self._set_attributes(file, acls, entry)

    def _set_later(self, status: os.stat_result, parts: list[bytes], entry: Entry) -> None:
        self._later_acl_entries += sum(map(len, entry.acls.values()))
        if self._later_acl_entries > _LATER_ACL_ENTRIES:
            raise UnsafePathError("the archive has more ACLs than can be kept in memory until everything is unpacked")
        self._later[status.st_dev, status.st_ino] = _Later(parts, replace(entry, xattrs={}))

    def _set_attributes(self, file: int | bytes, attributes: Mapping[bytes, bytes], entry: Entry) -> None:
        for name, value in attributes.items():
            try:
                if not set_attribute(file, name, value, kind=entry.kind):
                    self.left_out.add(name, entry.path)
            except OSError as error:
                what = f"the attribute {printable(name)} of {len(value)} bytes"
                if error.errno == errno.ENOSPC:  # of the block that ext has for all attributes of a file
                    raise UnsafePathError(f"{what} does not fit: {os.strerror(errno.ENOSPC)}") from error
                raise self._failed(error, entry, f"cannot set {what}") from error

    def _name(self, entry: Entry) -> str:
        return f"{self._archive}: entry {printable(entry.path)}"

    def _refused(self, entry: Entry, reason: ValueError) -> ArchiveError:
        kind = MountPointError if isinstance(reason, _MountPointInTheWayError) else ArchiveError
        return kind(f"{self._name(entry)}: {reason}", entry=printable(entry.path))

    def _failed(self, error: OSError, entry: Entry, doing: str = "") -> StorageError:
        doing = doing or self._cannot
        if error.errno == errno.EPERM and os.geteuid() != 0:
            doing += NEEDS_ROOT
        failed = error if isinstance(error, StorageError) else storage_error(error, self._name(entry), doing)
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            return failed
        device = self._parents.device(components(entry.path)[:-1])
        return NoSpaceError(str(failed), errno=failed.errno, filename=failed.filename, device=device)


def _drop_acls(fd: int) -> None:
    """Take away what an older directory has, or a new one inherited: what is made in it would inherit it too."""
    for attribute in (ACCESS, DEFAULT):
        try:
            os.removexattr(fd, attribute)
        except OSError as error:
            if error.errno not in (errno.ENODATA, errno.EOPNOTSUPP):
                raise


def _path_of(parent: int, name: bytes) -> bytes:
    """A path for what has no variant with dir_fd; it is as safe: parent is held open, name is one component."""
    return b"/proc/self/fd/%d/%s" % (parent, name)


def _is_same(spot: Spot, status: os.stat_result) -> bool:
    try:
        found = spot.lstat()
    except FileNotFoundError:
        return False
    return os.path.samestat(found, status)
