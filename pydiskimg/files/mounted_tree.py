# SPDX-License-Identifier: MIT
"""A guest's files through the kernel, never leaving the guest's root directory (ADR 0051)."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from functools import partial

from pydiskimg.errors import StorageError, storage_error
from pydiskimg.files.attributes import drop_acls, get_attributes
from pydiskimg.files.tree import ExistingPathError, MissingPathError, OutsideTreeError
from pydiskimg.linux.fileio import open_path, pwrite_all
from pydiskimg.linux.openat2 import (
    RESOLVE_BENEATH,
    RESOLVE_IN_ROOT,
    RESOLVE_NO_MAGICLINKS,
    RESOLVE_NO_SYMLINKS,
    RESOLVE_NO_XDEV,
    openat2,
)
from pydiskimg.linux.tmpfile import sync_directory, unnamed_file
from pydiskimg.text import printable, quoted

# Mounts are crossed: the mounts below the root are this process's own (/boot).
_INSIDE = RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS
# For walking: a name that has become a symlink or a mount since it was listed is not entered.
_BELOW = RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS | RESOLVE_NO_MAGICLINKS | RESOLVE_NO_XDEV

_SYMLINKS = 40  # as many as the kernel follows
_NAMES = 1 << 20  # in one directory; their names take about 100 MB
_BATCH = 1000


def open_mounted_tree(directory: str | os.PathLike[str], *, name: str | None = None) -> MountedTree:
    """Return the tree whose root is directory: a mount point, or any other directory. The caller closes it.

    The tree keeps the directory open, so a mounted file system cannot be unmounted until then. name is the tree's name
    in messages; None means the directory's path.
    """
    path = os.fspath(directory)
    try:
        fd = open_path(path, os.O_PATH | os.O_DIRECTORY)
    except OSError as error:
        raise storage_error(error, path, "cannot be opened as the root of a guest's tree") from error
    return MountedTree(fd, path if name is None else name)


class _UnfitError(Exception):
    """The file at a path does not allow the operation; the text follows "it", number is an errno."""

    def __init__(self, text: str, number: int) -> None:
        super().__init__(text)
        self.number = number


class MountedTree:
    """A Tree over an open directory, which it owns; a context manager.

    Every path is resolved by the kernel as if the directory were "/" (openat2 with RESOLVE_IN_ROOT), without the magic
    links of /proc. FIFOs, sockets and devices are never opened. Names that are not UTF-8 are Python's surrogate
    escapes, in every locale.
    """

    def __init__(self, root_fd: int, name: str) -> None:
        self._root_fd = root_fd
        self.name = name

    def close(self) -> None:
        """Close the directory; may be called repeatedly."""
        fd, self._root_fd = self._root_fd, -1
        if fd >= 0:
            os.close(fd)

    def __enter__(self) -> MountedTree:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def read(self, path: str, *, limit: int = 1 << 20) -> bytes:
        """Return the contents of a regular file of at most limit bytes. Raises as Tree says, EFBIG beyond limit."""
        with self._errors(path, "cannot be read"), _opened(self._locate(path)) as handle:
            # A buffer of the file's size: allocating 1 MiB for each of many small files takes longer than reading them.
            step = min(max(_require_regular(handle).st_size + 1, 1 << 12), 1 << 20)
            with _opened(_reopened(handle, os.O_RDONLY)) as fd:
                data = bytearray()
                while chunk := os.read(fd, min(limit + 1 - len(data), step)):
                    data += chunk
        if len(data) > limit:
            raise self._error(path, f"is larger than the {limit} bytes that may be read of such a file", errno.EFBIG)
        return bytes(data)

    def write(
        self, path: str, data: bytes, *, mode: int = 0o644, attributes: Mapping[str, bytes] | None = None
    ) -> None:
        """Replace the contents of a regular file in place, or make one of exactly this mode (for any umask).

        A new file gets the extended attributes. An existing file keeps owner, mode and attributes. If it has several
        names, this name gets a copy of its own, as replace() makes it, so that the contents under the other names stay.
        A symlink as the last component is followed inside the tree, even to a file that does not exist yet. The data
        are synced.
        """
        with self._errors(path, "cannot be written"):
            try:
                handle = self._locate(path)
            except FileNotFoundError:
                with self._parent(path) as (parent, name):
                    dress = partial(_dress, mode=mode, attributes=attributes)
                    _install(parent, name, data, dress, where=self._where(path))
                return
            with _opened(handle):
                links = _require_regular(handle).st_nlink
                if links == 1:
                    _overwrite(handle, data, where=self._where(path))
        if links > 1:
            self.replace(path, data)

    def replace(self, path: str, data: bytes) -> None:
        """Replace an existing file by a new one in one step, with its owner, mode, ACL and attributes.

        A symlink as the last component is followed inside the tree. On failure the old file is unchanged. A process
        killed in the instant between naming the new file and renaming it leaves a file .pydiskimg-* in the directory.
        """
        with (
            self._errors(path, "cannot be replaced"),
            self._parent(path) as (parent, name),
            _opened(openat2(parent, name, os.O_PATH | os.O_NOFOLLOW, resolve=_INSIDE)) as handle,
        ):
            _require_regular(handle)
            with _opened(_reopened(handle, os.O_RDONLY)) as old:
                _install(parent, name, data, lambda fd: _copy_metadata(old, fd), where=self._where(path))

    def write_files(
        self,
        directory: str,
        files: Iterable[tuple[str, bytes]],
        *,
        mode: int = 0o644,
        attributes: Mapping[str, bytes] | None = None,
    ) -> None:
        """Put new files of exactly this mode into a directory, replacing files, symlinks and devices of these names.

        files are (name, contents), consumed one after the other. Meant for many files: they are not synced, and are on
        stable storage once the file system is synced or unmounted. An existing directory of such a name raises
        StorageError.
        """
        with self._errors(directory, "cannot be written to"), _opened(self._directory(directory)) as handle:
            for name, data in files:
                path = f"{directory.rstrip('/')}/{name}"
                with self._errors(path, "cannot be written"):
                    encoded = _encoded(path).rpartition(b"/")[2]
                    with _opened(_created(handle, encoded)) as fd:
                        pwrite_all(fd, 0, data, name=self._where(path))
                        _dress(fd, mode=mode, attributes=attributes)

    def make_directory(self, path: str, *, mode: int = 0o755, attributes: Mapping[str, bytes] | None = None) -> None:
        """Make a directory of exactly this mode, with these extended attributes; its parent must exist.

        Raises FileExistsError when anything is at path.
        """
        with self._errors(path, "cannot be made"), self._new(path) as (parent, name):
            os.mkdir(name, 0o700, dir_fd=parent)
            with _opened(openat2(parent, name, os.O_RDONLY | os.O_DIRECTORY, resolve=_BELOW)) as fd:
                _dress(fd, mode=mode, attributes=attributes)
                os.fsync(fd)
            sync_directory(parent)

    def symlink(self, path: str, target: str, *, attributes: Mapping[str, bytes] | None = None) -> None:
        """Make a symlink to target, which the guest will resolve, with these extended attributes.

        Raises FileExistsError when anything is at path.
        """
        with self._errors(path, "cannot be made"), self._new(path) as (parent, name):
            os.symlink(os.fsencode(target), name, dir_fd=parent)
            for attribute, value in (attributes or {}).items():
                os.setxattr(f"/proc/self/fd/{parent}/{os.fsdecode(name)}", attribute, value, follow_symlinks=False)
            sync_directory(parent)

    def remove(self, path: str) -> None:
        """Remove the name of a file (also a FIFO or device), or a symlink itself; synced.

        A directory raises StorageError (EISDIR).
        """
        with self._errors(path, "cannot be removed"), self._new(path) as (parent, name):
            if stat.S_ISDIR(os.stat(name, dir_fd=parent, follow_symlinks=False).st_mode):
                raise _UnfitError("is a directory", errno.EISDIR)
            os.unlink(name, dir_fd=parent)
            sync_directory(parent)

    def attribute(self, path: str, name: str) -> bytes | None:
        """Return an extended attribute of the file at path, symlinks followed; None if the file or file system has none
        such.
        """
        with self._errors(path, "cannot be examined"), _opened(self._locate(path)) as handle:
            try:
                return os.getxattr(f"/proc/self/fd/{handle}", name)
            except OSError as error:
                if error.errno in (errno.ENODATA, errno.EOPNOTSUPP):
                    return None
                raise

    def stat(self, path: str, *, follow_symlinks: bool = True) -> os.stat_result:
        """Return what os.stat() gives for path inside the tree."""
        with (
            self._errors(path, "cannot be examined"),
            _opened(self._locate(path, 0 if follow_symlinks else os.O_NOFOLLOW)) as handle,
        ):
            return os.fstat(handle)

    def readlink(self, path: str) -> str:
        """Return the target of a symlink; path itself is not followed at its end. EINVAL if it is not a symlink."""
        with self._errors(path, "cannot be read as a symlink"), _opened(self._locate(path, os.O_NOFOLLOW)) as handle:
            if not stat.S_ISLNK(os.fstat(handle).st_mode):
                raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))
            return _decoded(os.readlink(b"", dir_fd=handle))

    def exists(self, path: str) -> bool:
        """True when path resolves to an existing file inside the tree; False also for loops of symlinks."""
        try:
            self.stat(path)
        except (FileNotFoundError, OutsideTreeError):
            return False
        return True

    def list(self, path: str) -> Sequence[str]:
        """Return the names in a directory, sorted by their bytes, at most 1048576 of them (EFBIG beyond)."""
        with self._errors(path, "cannot be listed"), _opened(self._directory(path)) as fd:
            return [_decoded(name) for name in _names(fd)]

    def walk(self, path: str = "/") -> Iterator[tuple[str, os.stat_result]]:
        """Yield (path, lstat) for everything below path, each directory followed by its files, sorted by bytes.

        Symlinks are not followed and mounts are not entered; files that vanish meanwhile are left out. At most one
        million names of each directory on the way are held, and two descriptors. A directory whose path is longer than
        the kernel accepts (4095 bytes) raises StorageError.
        """
        with self._errors(path, "cannot be listed"):
            top = self._directory(path)
            base = _encoded(path).rstrip(b"/")
        with _opened(top):
            pending = [_children(top, b".")]
            here = path
            while pending:
                with self._errors(here, "cannot be listed"):
                    child = next(pending[-1], None)
                if child is None:
                    pending.pop()
                    continue
                relative, status = child
                here = _decoded(base + relative[1:])
                yield here, status
                if stat.S_ISDIR(status.st_mode):
                    with self._errors(here, "cannot be listed"):
                        pending.append(_children(top, relative))

    def _locate(self, path: str, flags: int = 0) -> int:
        """Return an O_PATH descriptor of the file at path, symlinks followed."""
        return openat2(self._root_fd, _encoded(path), os.O_PATH | flags, resolve=_INSIDE)

    def _directory(self, path: str) -> int:
        with _opened(self._locate(path)) as handle:
            if not stat.S_ISDIR(os.fstat(handle).st_mode):
                raise _UnfitError("is not a directory", errno.ENOTDIR)
            return os.open(".", os.O_RDONLY | os.O_DIRECTORY, dir_fd=handle)

    @contextmanager
    def _new(self, path: str) -> Iterator[tuple[int, bytes]]:
        """Yield the directory (O_PATH) and the last component of path, which is not followed."""
        directory, _slash, name = _encoded(path).rstrip(b"/").rpartition(b"/")
        if name in (b"", b".", b".."):
            raise _UnfitError("names a directory", errno.EISDIR)
        flags = os.O_PATH | os.O_DIRECTORY
        with _opened(openat2(self._root_fd, directory or b"/", flags, resolve=_INSIDE)) as parent:
            yield parent, name

    @contextmanager
    def _parent(self, path: str) -> Iterator[tuple[int, bytes]]:
        """Yield the directory (O_PATH) and the last name of path, with a symlink at its end resolved."""
        rest = _encoded(path)
        for _ in range(_SYMLINKS):
            directory, _slash, name = rest.rpartition(b"/")
            if name in (b"", b".", b".."):
                raise _UnfitError("names a directory", errno.EISDIR)
            flags = os.O_PATH | os.O_DIRECTORY
            with _opened(openat2(self._root_fd, directory or b"/", flags, resolve=_INSIDE)) as parent:
                link = _link(parent, name)
                if link is None:
                    yield parent, name
                    return
            rest = link if link.startswith(b"/") else directory + b"/" + link
        raise OSError(errno.ELOOP, os.strerror(errno.ELOOP))

    def _where(self, path: str) -> str:
        """For messages: a guest may put control characters into its names."""
        return f"{printable(path)} in the guest's tree {self.name}"

    def _error(self, path: str, text: str, number: int) -> StorageError:
        return StorageError(f"{self._where(path)}: {text}", errno=number, filename=path)

    @contextmanager
    def _errors(self, path: str, doing: str) -> Iterator[None]:
        """Turn system errors for a descriptor into the errors that Tree documents for path."""
        try:
            yield
        except _UnfitError as error:
            raise self._error(path, f"{doing}: it {error}", error.number) from error
        except StorageError:
            raise
        except OSError as error:
            raise self._translated(error, path, doing) from error

    def _translated(self, error: OSError, path: str, doing: str) -> OSError:
        if error.errno in (errno.ENOENT, errno.ENOTDIR):
            text = f"{self._where(path)}: {doing}: there is no such file in the guest"
            return MissingPathError(text, errno=errno.ENOENT, filename=path)
        if error.errno == errno.EEXIST:
            text = f"{self._where(path)}: {doing}: a file of this name already exists"
            return ExistingPathError(text, errno=errno.EEXIST, filename=path)
        if error.errno in (errno.ELOOP, errno.EXDEV):
            text = (
                f"{self._where(path)}: {doing}: its symbolic links form a loop, or lead out of the tree through /proc"
            )
            return OutsideTreeError(text, errno=error.errno, filename=path)
        return storage_error(error, self._where(path), doing)


def _encoded(path: str) -> bytes:
    if not path.startswith("/"):
        raise ValueError(f"{quoted(path)} is not absolute; paths in a guest's tree start at its root")
    try:
        encoded = path.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:
        encoded = b"\0"
    if b"\0" in encoded:
        raise _UnfitError("is not a valid file name", errno.EINVAL)
    return encoded


def _decoded(name: bytes) -> str:
    return name.decode("utf-8", "surrogateescape")


@contextmanager
def _opened(fd: int) -> Iterator[int]:
    try:
        yield fd
    finally:
        os.close(fd)


def _reopened(handle: int, flags: int) -> int:
    """Open exactly the file of an O_PATH descriptor: it cannot be exchanged meanwhile."""
    return os.open(f"/proc/self/fd/{handle}", flags | os.O_NONBLOCK | os.O_NOCTTY)


def _require_regular(handle: int) -> os.stat_result:
    status = os.fstat(handle)
    if not stat.S_ISREG(status.st_mode):
        number = errno.EISDIR if stat.S_ISDIR(status.st_mode) else errno.EINVAL
        raise _UnfitError("is not a regular file", number)
    return status


def _link(parent: int, name: bytes) -> bytes | None:
    try:
        return os.readlink(name, dir_fd=parent)
    except OSError as error:
        if error.errno in (errno.EINVAL, errno.ENOENT):  # not a symlink; the file does not exist
            return None
        raise


def _overwrite(handle: int, data: bytes, *, where: str) -> None:
    with _opened(_reopened(handle, os.O_WRONLY)) as fd:
        pwrite_all(fd, 0, data, name=where)
        os.ftruncate(fd, len(data))
        os.fsync(fd)


def _install(parent: int, name: bytes, data: bytes, dress: Callable[[int], object], *, where: str) -> None:
    """Write an unnamed file, give it its metadata (dress), sync it, and move it to its name in one step."""
    with unnamed_file(parent, mode=0o600) as file:
        pwrite_all(file.fd, 0, data, name=where)
        dress(file.fd)
        os.fsync(file.fd)
        file.publish(name)


def _created(directory: int, name: bytes) -> int:
    """Return a new, empty file open for writing; an existing file loses its name."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    try:
        return os.open(name, flags, 0o600, dir_fd=directory)
    except FileExistsError:
        os.unlink(name, dir_fd=directory)
        return os.open(name, flags, 0o600, dir_fd=directory)


def _dress(fd: int, *, mode: int, attributes: Mapping[str, bytes] | None) -> None:
    os.fchmod(fd, mode)
    for name, value in (attributes or {}).items():
        os.setxattr(fd, name, value)


def _copy_metadata(old: int, new: int) -> None:
    """Owner, mode, then attributes: chown() clears file capabilities, and chmod() changes an ACL."""
    status = os.fstat(old)
    os.fchown(new, status.st_uid, status.st_gid)
    os.fchmod(new, stat.S_IMODE(status.st_mode))
    drop_acls(new)  # inherited from the directory
    for name, value in get_attributes(old).items():
        os.setxattr(new, name, value)


def _names(fd: int) -> list[bytes]:
    """Return the names in an open directory, sorted; refuse more than a guest's real directory can hold."""
    names = []
    with os.scandir(fd) as entries:
        for entry in entries:
            names.append(os.fsencode(entry.name))
            if len(names) > _NAMES:
                raise _UnfitError(f"holds more than {_NAMES} names", errno.EFBIG)
    return sorted(names)


def _children(top: int, relative: bytes) -> Iterator[tuple[bytes, os.stat_result]]:
    """Return (path, lstat) of the files in the directory at relative below top; empty if it vanished."""
    with _maybe_below(top, relative) as fd:
        names = _names(fd) if fd is not None else []
    return _stats(top, relative, names)


def _stats(top: int, relative: bytes, names: Sequence[bytes]) -> Iterator[tuple[bytes, os.stat_result]]:
    """In batches, so that a deep tree does not need a descriptor for each of its levels."""
    for start in range(0, len(names), _BATCH):
        found = []
        with _maybe_below(top, relative) as fd:
            for name in names[start : start + _BATCH] if fd is not None else ():
                with suppress(FileNotFoundError):
                    found.append((relative + b"/" + name, os.stat(name, dir_fd=fd, follow_symlinks=False)))
        yield from found


@contextmanager
def _maybe_below(top: int, relative: bytes) -> Iterator[int | None]:
    """Yield the directory at relative, or None if it has vanished, or has become a mount or a symlink."""
    try:
        fd = openat2(top, relative, os.O_RDONLY | os.O_DIRECTORY, resolve=_BELOW)
    except OSError as error:
        if error.errno not in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.EXDEV):
            raise
        yield None
        return
    with _opened(fd):
        yield fd
