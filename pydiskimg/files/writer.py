# SPDX-License-Identifier: MIT
"""Make files from entries below a directory, with all their metadata.

No symlink is followed and only newly made files are opened, so that no entry reaches outside: see docs/adr/0030.
Contents come before the owner (a write and chown() clear set-user-id bits and capabilities), the owner before
attributes, attributes before a mode that forbids setting them, the mode before the ACL, then times, and flags last: an
immutable file cannot get another name. A directory's attributes are set when all its files are there.
"""

from __future__ import annotations

import errno
import os
import re
import stat
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field, replace
from functools import partial

from pydiskimg.errors import ArchiveError, DiskImageError, MountPointError, NoSpaceError, StorageError, storage_error
from pydiskimg.files.acl import AclNames, encode, read_below
from pydiskimg.files.attributes import AttributesLeftOut, drop_acls, set_attribute
from pydiskimg.files.directory import opened_entry
from pydiskimg.files.entry import Entry, check_entry
from pydiskimg.files.resolve import Parents, Spot, Twins, UnsafePathError, check_length, components
from pydiskimg.linux.fileio import open_path, pwrite_all
from pydiskimg.linux.inodeflags import get_flags, set_flags
from pydiskimg.text import printable

_CREATE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_OPEN_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_LATER_ACL_ENTRIES = 200_000  # about 50 MB
# Files of at least this many bytes are flushed to a new file system at once, instead of all at the end.
_WRITE_BACK = 1 << 20
NAME_TAKEN = "duplicate name, or a file of this name already exists"
KEPT = "it would replace a file that the copy is read from; copy it elsewhere"
MOUNT_POINT = "it would replace a directory on which a file system is mounted"
_NO_FLAGS = (errno.ENOTTY, errno.EOPNOTSUPP, errno.EINVAL)


class NameTakenError(UnsafePathError):
    """The path of an entry is that of a file that must stay."""


class MountPointInTheWayError(UnsafePathError):
    """The path of an entry is that of a mount point."""


@dataclass(frozen=True, slots=True)
class Wording:
    """The texts of messages about entries: "SOURCE: entry PATH: cannot be unpacked".

    hints is the advice for a full disk of this name; an empty one is omitted.
    """

    source: str
    verb: str = "unpack"
    done: str = "unpacked"
    hints: Mapping[str, str] = field(default_factory=dict)

    def where(self, entry: Entry) -> str:
        """Return the beginning of an error about the entry."""
        return f"{self.source}: entry {printable(entry.path)}"

    def refused(self, entry: Entry, reason: ValueError) -> DiskImageError:
        """Return the error for an entry that cannot be made faithfully and safely; reason's text is a clause."""
        kind = MountPointError if isinstance(reason, MountPointInTheWayError) else ArchiveError
        return kind(f"{self.where(entry)}: {reason}", entry=printable(entry.path))

    def failed(self, entry: Entry, error: OSError, doing: str = "") -> StorageError:
        """Return the error for a failed system call."""
        if isinstance(error, StorageError):
            return error
        hint = ""
        if error.errno == errno.EPERM and os.geteuid() != 0:
            hint = "; restoring owners, devices and trusted attributes needs root"
        return storage_error(error, self.where(entry), (doing or f"cannot be {self.done}") + hint)


@contextmanager
def open_writer(
    directory: str | int,
    wording: Wording,
    *,
    keep_links: bool = False,
    is_new: bool = False,
    kept: Collection[tuple[int, int]] = (),
) -> Iterator[Writer]:
    """Give a writer into a directory: a path, or a descriptor, which stays open. The rest is as for Writer.

    Raises StorageError when a path cannot be opened.
    """
    with ExitStack() as stack:
        if isinstance(directory, int):
            root_fd = directory
        else:
            try:
                root_fd = open_path(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            except OSError as error:
                raise storage_error(error, directory, f"cannot open the directory to {wording.verb} into") from error
            stack.callback(os.close, root_fd)
        writer = Writer(root_fd, wording, keep_links=keep_links, is_new=is_new, kept=kept)
        stack.callback(writer.close)
        yield writer


class Writer:
    """Makes files of entries below root_fd, which it borrows.

    An entry replaces an existing file of its path, but a directory is kept; with keep_links, a symlink to a directory
    inside the tree counts as that directory if the entry is one. With is_new the tree is a new file system and the
    first entry its root, and an existing file is an error, except for directories that the root had before (lost+found,
    a mount point). The files of kept (device and inode) are not replaced under any name. Call finish() after the last
    entry, and close() in any case.

    left_out counts the attributes that the file system cannot hold, flags_left_out the files whose flags it does not
    support.
    """

    def __init__(
        self,
        root_fd: int,
        wording: Wording,
        *,
        keep_links: bool = False,
        is_new: bool = False,
        kept: Collection[tuple[int, int]] = (),
    ) -> None:
        self.left_out = AttributesLeftOut()
        self.flags_left_out = 0
        self._root_fd = root_fd
        self._wording = wording
        self._keep_links = keep_links
        self._is_new = is_new
        self._kept = kept
        self._there_before = set(map(os.fsencode, os.listdir(root_fd))) if is_new else set()
        self._masked = _umask() | 0o7000
        # Files in a new tree need no such call; directories, which may pass on a group, get theirs last.
        self._owned_by_root = is_new and os.geteuid() == os.getegid() == os.fstat(root_fd).st_gid == 0
        self._parents = Parents(root_fd)
        self._names = AclNames(partial(read_below, root_fd))
        self._twins = Twins(root_fd)
        self._later: dict[tuple[int, int], Entry] = {}
        self._later_acl_entries = 0

    def close(self) -> None:
        self._parents.close()

    def make(self, entry: Entry) -> None:
        """Make a file of an entry. Raises as its contents do, the wording's errors, and StorageError."""
        try:
            check_entry(entry)
            if not self._is_new:
                check_length(entry.path)
            spot = self._parents.spot(entry.path)
            if spot:
                self._make_below(entry, spot)
            else:
                self._make_root(entry)
        except ValueError as error:
            raise self._wording.refused(entry, error) from error
        except OSError as error:
            raise self._failed(error, entry) from error

    def finish(self) -> None:
        """Set the metadata of directories, the deepest first, and the ACLs that have names in them."""
        depth = {identity: -len(components(entry.path)) for identity, entry in self._later.items()}
        for identity in sorted(depth, key=depth.__getitem__):
            entry = self._later[identity]
            try:
                self._finish(identity, entry)
            except ValueError as error:
                raise self._wording.refused(entry, error) from error
            except OSError as error:
                raise self._failed(error, entry) from error

    def _make_root(self, entry: Entry) -> None:
        if not entry.is_directory:
            raise UnsafePathError(
                "it has the path of the directory that the archive is unpacked into, but is not a directory"
            )
        with _opened(Spot(self._root_fd, b"."), os.O_DIRECTORY) as fd:
            self._take_directory(fd, entry)

    def _make_below(self, entry: Entry, spot: Spot) -> None:
        if entry.kind == stat.S_IFREG:
            self._make_file(entry, spot)
        elif entry.kind == stat.S_IFDIR:
            self._make_directory(entry, spot)
        elif entry.is_hard_link:
            self._make_hard_link(entry, spot, entry.link)
        else:
            if entry.kind == stat.S_IFLNK:
                self._replacing(spot, lambda: os.symlink(entry.link, spot.name, dir_fd=spot.directory))
            else:
                self._make_node(entry, spot)
            self._set_metadata(spot, entry)
            self._link_names(entry)
            self.flags_left_out += bool(entry.flags)

    def _make_file(self, entry: Entry, spot: Spot) -> None:
        # Setting the mode at creation saves a system call, because nothing in a new tree inherits an ACL; attributes,
        # which may not be known yet, need a writable file.
        has_mode = self._is_new and bool(entry.mode & 0o200) and not entry.mode & self._masked
        mode = entry.mode if has_mode else 0o600
        try:
            fd = os.open(spot.name, _CREATE, mode, dir_fd=spot.directory)
        except FileExistsError:
            self._remove(spot)
            fd = os.open(spot.name, _CREATE, mode, dir_fd=spot.directory)
        try:
            self._write_contents(fd, entry)
            self._set_metadata(fd, entry, has_mode=has_mode)
            copies = self._link_names(entry) if entry.names else ()
            if entry.flags:
                self._set_flags(fd, entry)
                for path in copies:
                    with _opened(self._spot(path)) as copy:
                        self._set_flags(copy, entry)
        except BaseException:
            os.close(fd)
            raise
        os.close(fd)  # a network file system reports failed writes here

    def _write_contents(self, fd: int, entry: Entry) -> None:
        end = 0
        for offset, data in entry.contents:
            if not data:  # writing nothing does not make a file longer
                continue
            end = offset + len(data)
            try:
                done = os.pwrite(fd, data, offset)
            except OSError:
                done = 0
            if done < len(data):  # here the error occurs again and gets its sentence
                pwrite_all(fd, offset + done, data[done:], name=self._wording.where(entry))
        if end != entry.size:
            os.ftruncate(fd, entry.size)
        if self._is_new and end >= _WRITE_BACK:
            os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)  # starts writing it, without waiting

    def _make_directory(self, entry: Entry, spot: Spot) -> None:
        try:
            os.mkdir(spot.name, 0o700, dir_fd=spot.directory)
        except FileExistsError:
            if self._is_new:
                self._require_there_before(entry, spot)
        else:
            if self._is_new and not entry.xattrs:  # and there is no ACL that could have been inherited
                self._set_later(spot.lstat(), entry)
                return
        try:
            fd = os.open(spot.name, _OPEN_DIRECTORY, dir_fd=spot.directory)
        except OSError as error:
            if error.errno not in (errno.ENOTDIR, errno.ELOOP):
                raise
            if self._keep_links and self._leads_to_directory(entry.path):
                return
            self._remove(spot)
            os.mkdir(spot.name, 0o700, dir_fd=spot.directory)
            fd = os.open(spot.name, _OPEN_DIRECTORY, dir_fd=spot.directory)
        try:
            self._take_directory(fd, entry)
        finally:
            os.close(fd)

    def _require_there_before(self, entry: Entry, spot: Spot) -> None:
        """Refuse a directory whose name exists, except once for one in the root that existed before."""
        if len(components(entry.path)) > 1 or spot.name not in self._there_before:
            raise NameTakenError(NAME_TAKEN)
        self._there_before.discard(spot.name)

    def _leads_to_directory(self, path: bytes) -> bool:
        try:
            self._parents.open(path, make=False)
        except (FileNotFoundError, UnsafePathError):
            return False
        return True

    def _take_directory(self, fd: int, entry: Entry) -> None:
        drop_acls(fd)
        self._set_attributes(fd, entry.xattrs, entry)
        self._set_later(os.fstat(fd), entry)

    def _make_node(self, entry: Entry, spot: Spot) -> None:
        major, minor = entry.device
        if not (0 <= major < 1 << 12 and 0 <= minor < 1 << 20):
            raise UnsafePathError(f"Linux does not support its device number {major}:{minor}")
        device = os.makedev(major, minor) if entry.kind in (stat.S_IFCHR, stat.S_IFBLK) else 0
        self._replacing(spot, lambda: os.mknod(spot.name, entry.kind | 0o600, device, dir_fd=spot.directory))

    def _make_hard_link(self, entry: Entry, spot: Spot, link: bytes) -> bool:
        """Link spot to the file at the path link; return whether that made a copy, because hard links cannot cross."""
        linked = printable(link)
        try:
            if not self._is_new:
                check_length(link)
            first = self._parents.spot(link, make=False)
            if first is None:
                raise UnsafePathError("it is a hard link to the directory that the archive is unpacked into")
            status = first.lstat()
            if stat.S_ISDIR(status.st_mode):
                raise UnsafePathError(f"it is a hard link to the directory {linked}")
            if not self._is_new and _is_same(spot, status):
                return False
            if os.fstat(spot.directory).st_dev == status.st_dev and self._link(first, spot):
                return False
            return self._link_across(first, link, entry, spot)
        except FileNotFoundError as error:
            raise UnsafePathError(f"it is a hard link to {linked}, which does not exist") from error

    def _link(self, first: Spot, name: Spot) -> bool:
        """Make name a hard link to first; False if that is not possible, as from one file system to another."""
        link = partial(os.link, first.name, name.name, src_dir_fd=first.directory, follow_symlinks=False)
        try:
            self._replacing(name, lambda: link(dst_dir_fd=name.directory))
        except OSError as error:
            if error.errno != errno.EXDEV:
                raise
            return False
        return True

    def _link_across(self, first: Spot, link: bytes, entry: Entry, spot: Spot) -> bool:
        """Make a copy of first, which has the path link; or link to such a copy, and then return False."""
        status = first.lstat()
        with self._twins.opened(status, os.fstat(spot.directory).st_dev) as twin:
            if twin is not None and (_is_same(spot, twin.lstat()) or self._link(twin, spot)):
                return False
        # O_NOATIME: its times are already set.
        with opened_entry(first, entry.path, name=self._wording.where(entry), flags=os.O_NOATIME) as copy:
            self._make_below(copy, spot)
        self._twins.add(link, status, entry.path, spot.lstat())
        later = self._later.get((status.st_dev, status.st_ino))
        if later is not None:
            self._set_later(spot.lstat(), replace(later, path=entry.path))
        return True

    def _link_names(self, entry: Entry) -> list[bytes]:
        """Link an entry's further names; return those that are copies, on the file systems of mount points."""
        return [
            path
            for path in entry.names
            if self._make_hard_link(replace(entry, path=path, names=(), flags=0), self._spot(path), entry.path)
        ]

    def _spot(self, path: bytes) -> Spot:
        spot = self._parents.spot(path)
        if spot is None:
            raise UnsafePathError("one of its names is the directory that the archive is unpacked into")
        return spot

    def _replacing(self, spot: Spot, make: Callable[[], None]) -> None:
        """Call make(), which fails if the path exists; in that case remove the existing file and call it again."""
        try:
            make()
        except FileExistsError:
            self._remove(spot)
            make()

    def _remove(self, spot: Spot) -> None:
        if self._is_new:
            raise NameTakenError(NAME_TAKEN)
        status = spot.lstat()
        if (status.st_dev, status.st_ino) in self._kept:
            raise NameTakenError(KEPT)
        self._later.pop((status.st_dev, status.st_ino), None)
        self._twins.forget(status)
        if not stat.S_ISDIR(status.st_mode):
            os.unlink(spot.name, dir_fd=spot.directory)
        else:
            try:
                os.rmdir(spot.name, dir_fd=spot.directory)
            except OSError as error:
                if error.errno == errno.EBUSY:
                    raise MountPointInTheWayError(MOUNT_POINT) from error
                raise UnsafePathError("it would replace a directory that is not empty") from error
        if stat.S_ISDIR(status.st_mode) or stat.S_ISLNK(status.st_mode):
            self._parents.forget()

    def _finish(self, identity: tuple[int, int], entry: Entry) -> None:
        spot = self._parents.spot(entry.path, make=False) or Spot(self._root_fd, b".")
        status = spot.lstat()
        if (status.st_dev, status.st_ino) != identity:
            raise UnsafePathError("another program made a file of its path while the archive was unpacked")
        if not entry.is_directory:
            self._set_acls(spot.path, entry)
            return
        with _opened(spot, os.O_DIRECTORY) as fd:
            os.fchown(fd, entry.uid, entry.gid)
            os.fchmod(fd, entry.mode)
            self._set_acls(fd, entry)
            os.utime(fd, ns=(entry.atime_ns, entry.mtime_ns))
            if entry.flags:
                self._set_flags(fd, entry)

    def _set_metadata(self, file: int | Spot, entry: Entry, *, has_mode: bool = False) -> None:
        """Set the metadata of an open file, or of a symlink, device, FIFO or socket, which is never opened."""
        name, directory, path = (file, None, file) if isinstance(file, int) else (file.name, file.directory, file.path)
        is_open = directory is None
        if entry.uid or entry.gid or not self._owned_by_root:
            os.chown(name, entry.uid, entry.gid, dir_fd=directory, follow_symlinks=is_open)
        if entry.xattrs:
            self._set_attributes(path, entry.xattrs, entry)
        if entry.kind != stat.S_IFLNK:
            if not has_mode:
                os.chmod(name, entry.mode, dir_fd=directory)
            if entry.acls and entry.acls_have_names:
                self._set_later(os.stat(name, dir_fd=directory, follow_symlinks=is_open), entry)
            elif entry.acls:
                self._set_acls(path, entry)
        os.utime(name, ns=(entry.atime_ns, entry.mtime_ns), dir_fd=directory, follow_symlinks=is_open)

    def _set_acls(self, file: int | bytes, entry: Entry) -> None:
        acls = {name: encode(entries, self._names.number) for name, entries in entry.acls.items()}
        self._set_attributes(file, acls, entry)

    def _set_later(self, status: os.stat_result, entry: Entry) -> None:
        """Keep an entry until all files are there: a directory, or an entry whose ACL has names in it."""
        self._later_acl_entries += sum(map(len, entry.acls.values()))
        if self._later_acl_entries > _LATER_ACL_ENTRIES:
            raise UnsafePathError("the archive has more ACLs than can be kept in memory until everything is unpacked")
        has_more = entry.xattrs or entry.names or entry.contents
        self._later[status.st_dev, status.st_ino] = (
            replace(entry, xattrs={}, names=(), contents=()) if has_more else entry
        )

    def _set_attributes(self, file: int | bytes, attributes: Mapping[bytes, bytes], entry: Entry) -> None:
        for name, value in attributes.items():
            try:
                if not set_attribute(file, name, value, kind=entry.kind):
                    self.left_out.add(name, entry.path)
            except OSError as error:
                what = f"the attribute {printable(name)} of {len(value)} bytes"
                if error.errno == errno.ENOSPC:  # ext has one block for all attributes of a file
                    raise UnsafePathError(f"{what} does not fit: {os.strerror(errno.ENOSPC)}") from error
                raise self._failed(error, entry, f"cannot set {what}") from error

    def _set_flags(self, fd: int, entry: Entry) -> None:
        try:
            set_flags(fd, get_flags(fd) | entry.flags)
        except OSError as error:
            if error.errno not in _NO_FLAGS:
                raise
            self.flags_left_out += 1

    def _failed(self, error: OSError, entry: Entry, doing: str = "") -> StorageError:
        failed = self._wording.failed(entry, error, doing)
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            return failed
        device = self._parents.device(entry.path)
        return NoSpaceError(str(failed), errno=failed.errno, filename=failed.filename, device=device)


@contextmanager
def _opened(spot: Spot, flags: int = 0) -> Iterator[int]:
    fd = os.open(spot.name, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | flags, dir_fd=spot.directory)
    try:
        yield fd
    finally:
        os.close(fd)


def _is_same(spot: Spot, status: os.stat_result) -> bool:
    try:
        found = spot.lstat()
    except FileNotFoundError:
        return False
    return os.path.samestat(found, status)


def _umask() -> int:
    """Return this process's umask; 0o777 if Linux (before 4.7) cannot tell it without changing it."""
    with suppress(OSError), open("/proc/self/status", "rb") as file:
        if found := re.search(rb"^Umask:\s*([0-7]+)$", file.read(), re.MULTILINE):
            return int(found[1], 8)
    return 0o777
