# SPDX-License-Identifier: MIT
"""Read a guest's files from its ext file system by their paths, without a mount."""

from __future__ import annotations

import errno
import os

from pydiskimg.errors import FileSystemError, StorageError
from pydiskimg.fs.ext4 import layout
from pydiskimg.fs.ext4.directory_entries import NamedInode
from pydiskimg.fs.ext4.features import KNOWN_TO_FILES
from pydiskimg.fs.ext4.file_system import NotBelievedError, read_file_system
from pydiskimg.fs.ext4.inodes import StoredInode
from pydiskimg.fs.ext4.tree.files import ExtFiles, RefusedError
from pydiskimg.fs.ext4.tree.steps import Step, walked
from pydiskimg.protocols import Source, read_bytes
from pydiskimg.startup import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from pydiskimg.files.tree import ReadableTree
else:
    ReadableTree = object  # a contract; the errors besides it are rare

_LONG_PATH = 1 << 10  # characters


def open_ext_tree(source: Source) -> ExtTree:
    """Return the files of the ext2, ext3 or ext4 file system at the beginning of source; nothing is written.

    Changes in its journal are included. source stays the caller's, and must not change while the tree is used. Raises
    FileSystemError if it is not such a file system, is damaged at its beginning or in its journal, or has unknown
    features; StorageError as reading does.
    """
    try:
        fs = read_file_system(source, KNOWN_TO_FILES)
        if fs.needs_recovery:
            from pydiskimg.fs.ext4.recovery import recovered  # imported here: most file systems were unmounted

            fs = recovered(fs, KNOWN_TO_FILES)
        return ExtTree(ExtFiles(fs))
    except NotBelievedError as error:
        raise FileSystemError(f"{source.name}: the files of the file system cannot be read: {error.reason}") from error


class ExtTree(ReadableTree):
    """The files of an ext2, ext3 or ext4 file system, read without a mount. open_tree() returns one; a context manager.

    Paths are absolute in the guest ("/etc/fstab"); "..", absolute and relative symbolic links never lead out of the
    tree, and a path ends with StorageError (ELOOP) after 40 of them. Names that are not UTF-8 have Python's surrogate
    escapes, in every locale. The journal is applied in memory. The tree must not be used after close(), and the
    disk must not change while it is open.

    A path that does not exist raises StorageError that is also FileNotFoundError; damage raises StorageError (EUCLEAN),
    an encrypted file StorageError (ENOKEY). st_dev of a result of stat() is 0.

    >>> from pydiskimg import open_tree
    >>> with open_tree("disk.qcow2") as tree:
    ...     tree.read("/etc/hostname"), tree.exists("/etc/nothing"), tree.stat("/etc").st_nlink
    (b'web1\\n', False, 2)
    """

    def __init__(self, files: ExtFiles, close: Callable[[], object] = lambda: None) -> None:
        """close is called when the tree is closed, once or more often."""
        self.files = files
        self.name = files.fs.name
        self._close = close

    def close(self) -> None:
        self._close()

    def __enter__(self) -> ExtTree:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def read(self, path: str, *, limit: int = 1 << 20) -> bytes:
        """Return the contents of a regular file of at most limit bytes. Raises as Tree says, EFBIG beyond limit."""
        source = self.open(path)
        if source.size > limit:
            raise self.error(path, f"is larger than the {limit} bytes that may be read of such a file", errno.EFBIG)
        with self.errors(path):
            return read_bytes(source, 0, source.size)

    def open(self, path: str) -> Source:
        """Return the contents of a regular file as a Source, sparse if the file is; valid until the tree is closed.

        Reading it raises FileSystemError if the file's map is damaged.
        """
        with self.errors(path):
            inode = self.inode(path)
            if inode.kind != layout.REGULAR_FILE:
                is_directory = inode.kind == layout.DIRECTORY
                raise RefusedError("is not a regular file", errno.EISDIR if is_directory else errno.EINVAL)
            return self.files.contents(inode, _where(self.name, path))

    def readlink(self, path: str) -> str:
        """Return the target of a symlink; path itself is not followed at its end. EINVAL if it is not a symlink."""
        with self.errors(path):
            inode = self.inode(path, follow_symlinks=False)
            if inode.kind != layout.SYMLINK:
                raise RefusedError("is not a symlink", errno.EINVAL)
            return _decoded(self.files.target(inode))

    def attribute(self, path: str, name: str) -> bytes | None:
        """Return an extended attribute of the file at path, symlinks followed; None if it has none of this name."""
        return self.attributes(path).get(name)

    def attributes(self, path: str, *, follow_symlinks: bool = True) -> dict[str, bytes]:
        """Return all extended attributes by name, as Linux shows them."""
        with self.errors(path):
            found = self.files.attributes(self.inode(path, follow_symlinks=follow_symlinks))
        return {_decoded(name): value for name, value in found.items()}

    def stat(self, path: str, *, follow_symlinks: bool = True) -> os.stat_result:
        """Return what os.stat() gives for the path inside the tree."""
        with self.errors(path):
            return self.files.status(self.inode(path, follow_symlinks=follow_symlinks))

    def exists(self, path: str) -> bool:
        """True when path resolves to an existing file inside the tree."""
        try:
            with self.errors(path):
                self.inode(path)
        except StorageError as error:
            if error.errno in (errno.ENOENT, errno.ELOOP):
                return False
            raise
        return True

    def list(self, path: str) -> list[str]:
        """Return the sorted names in a directory."""
        return sorted(self.names(path))

    def names(self, path: str) -> Iterator[str]:
        """Yield the names in a directory in stored order; one block is in memory at a time."""
        with self.errors(path):
            inode = self.inode(path)
            if inode.kind != layout.DIRECTORY:
                raise RefusedError("is not a directory", errno.ENOTDIR)
            for name, _, _ in self.files.entries(inode):
                yield _decoded(name)

    def walk(self, path: str = "/") -> Iterator[tuple[str, os.stat_result]]:
        """Yield (path, lstat) for everything below path, sorted, symlinks not followed.

        A directory whose names take more than 48 MiB is yielded in several sorted parts. A directory that is reached
        twice raises StorageError.
        """
        top = path.rstrip("/")
        for below, inode in self.walk_inodes(path):
            yield f"{top}/{_decoded(below)}", self.files.status(inode)

    def walk_inodes(self, path: str) -> Iterator[tuple[bytes, StoredInode]]:
        """Yield (path below path, inode) as walk() does."""
        with self.errors(path):
            top = self.inode(path)
            if top.kind != layout.DIRECTORY:
                raise RefusedError("is not a directory", errno.ENOTDIR)
            waiting = [(b"", self._sorted_entries(top))]
        # one path is changed in place: there may be many levels
        seen, above, directory = {top.number}, path.rstrip("/") + "/", b""
        while waiting:
            name, entries = waiting[-1]
            below = directory
            try:
                entry = next(entries, None)
                if entry is not None:
                    below += entry[0]
                    inode = self.files.inode(entry[1])
            except (RefusedError, NotBelievedError) as error:
                raise self.as_error(above + _decoded(below), error) from error
            if entry is None:
                waiting.pop()
                directory = directory[: len(directory) - len(name)]
                continue
            yield below, inode
            if inode.kind != layout.DIRECTORY:
                continue
            with self.errors(above + _decoded(below)):
                if inode.number in seen:
                    raise self.files.fs.not_believed(f"the directory of inode {inode.number} has two names")
                seen.add(inode.number)
                waiting.append((entry[0] + b"/", self._sorted_entries(inode)))
            directory = below + b"/"

    def _sorted_entries(self, inode: StoredInode) -> Iterator[NamedInode]:
        from pydiskimg.fs.ext4.tree.sorted_entries import sorted_entries

        return sorted_entries(self.files.entries(inode))

    def inode(self, path: str, *, follow_symlinks: bool = True) -> StoredInode:
        """Return the inode that path leads to. Raises RefusedError (ENOENT, ENOTDIR, ELOOP) and as ExtFiles does."""
        return self.steps(path, follow_symlinks=follow_symlinks)[-1]

    def steps(self, path: str, *, follow_symlinks: bool = True) -> Sequence[StoredInode]:
        """Return the inodes from the root to the file at path, without symlinks on the way; raises as inode() does.

        The root is the first one, and the only one if path leads to it.
        """
        steps, missing = self.walked(path, follow_symlinks=follow_symlinks)
        if missing is not None:
            raise RefusedError("does not exist", errno.ENOENT)
        return [step.inode for step in steps]

    def walked(
        self, path: str, *, follow_symlinks: bool = True, below_file: int = errno.ENOENT
    ) -> tuple[Sequence[Step[ExtTree]], bytes | None]:
        """Return the steps to the file at path, and its last name if that is missing, as steps.walked() does."""
        root = Step(self, self.files.inode(layout.ROOT_INODE))
        steps, missing = walked(root, _encoded(path), follow_symlinks=follow_symlinks, below_file=below_file)
        if len(steps) == 1 and root.inode.kind != layout.DIRECTORY:
            raise self.files.fs.not_believed("inode 2 is not a directory")
        return steps, missing

    def errors(self, path: str) -> _Errors:
        """Turn the errors of ExtFiles in a with block into those of a Tree, with the name of the file at path."""
        return _Errors(self, path)

    def as_error(self, path: str, error: RefusedError | NotBelievedError) -> StorageError:
        """Return a Tree's error for one of ExtFiles at path: for loops, in which errors() would take long."""
        if isinstance(error, RefusedError):
            return self.error(path, str(error), error.number)
        text = f"{_where(error.where, path)}: the file system is damaged: {error.reason}; check it (fsck)"
        return StorageError(text, errno=errno.EUCLEAN, filename=path)

    def error(self, path: str, text: str, number: int) -> StorageError:
        """Return the error with a text about the file at path."""
        from pydiskimg.files.tree import MissingPathError, OutsideTreeError

        kind = (
            MissingPathError if number == errno.ENOENT else OutsideTreeError if number == errno.ELOOP else StorageError
        )
        return kind(f"{_where(self.name, path)}: {text}", errno=number, filename=path)


def _where(file_system: str, path: str) -> str:
    if path.isprintable() and len(path) < _LONG_PATH:
        return f"{file_system}, {path}"
    from pydiskimg.text import printable

    return f"{file_system}, {printable(path)}"


class _Errors:
    """See errors(). Written by hand: importing contextlib takes 4 ms."""

    def __init__(self, tree: ExtTree, path: str) -> None:
        self._tree = tree
        self._path = path

    def __enter__(self) -> None:
        """Do nothing."""

    def __exit__(self, _kind: object, error: BaseException | None, _traceback: object) -> None:
        if isinstance(error, RefusedError | NotBelievedError):
            raise self._tree.as_error(self._path, error) from error


def _encoded(path: str) -> bytes:
    if not path.startswith("/"):
        from pydiskimg.text import quoted

        raise ValueError(f"{quoted(path)} is not absolute; paths in a guest's tree start at its root")
    try:
        return path.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError as error:
        raise RefusedError("is not a valid file name", errno.EINVAL) from error


def _decoded(name: bytes) -> str:
    return name.decode("utf-8", "surrogateescape")
