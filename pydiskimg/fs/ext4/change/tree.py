# SPDX-License-Identifier: MIT
"""Read and change a guest's files on its ext file system by their paths, without a mount."""

from __future__ import annotations

import errno
import os
import stat
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

from pydiskimg.errors import FileSystemError, NoSpaceError, StorageError
from pydiskimg.files.attributes import AttributesLeftOut
from pydiskimg.files.entry import Entry
from pydiskimg.files.tree import ExistingPathError, Tree
from pydiskimg.files.writer import Wording
from pydiskimg.fs.ext4 import layout
from pydiskimg.fs.ext4.change.allocation import OutOfSpaceError
from pydiskimg.fs.ext4.change.batch import ChangeBatch
from pydiskimg.fs.ext4.change.contents import Pieces
from pydiskimg.fs.ext4.change.files import FileChanges
from pydiskimg.fs.ext4.change.orphans import release_orphans
from pydiskimg.fs.ext4.change.put import EntryWriter
from pydiskimg.fs.ext4.change.remove import TreeRemover
from pydiskimg.fs.ext4.change.transaction import Transaction
from pydiskimg.fs.ext4.file_system import NotBelievedError
from pydiskimg.fs.ext4.inodes import StoredInode
from pydiskimg.fs.ext4.orphans import orphans
from pydiskimg.fs.ext4.tree.files import ExtFiles, RefusedError
from pydiskimg.fs.ext4.tree.tree import ExtTree
from pydiskimg.protocols import Disk
from pydiskimg.text import quoted

_NODES = (stat.S_IFCHR, stat.S_IFBLK, stat.S_IFIFO, stat.S_IFSOCK)


def open_changed_tree(disk: Disk, *, now: int | None = None, close: Callable[[], object] = lambda: None) -> ChangedTree:
    """Return the files of the ext2, ext3 or ext4 at the beginning of disk, to be changed; the caller closes it.

    now is the time of all changes, in nanoseconds since 1970; None: the present. close is called when the tree is
    closed, once or more often. Nothing is written before the first change; before that change, files that a crash left
    to be deleted or truncated are finished. Until the tree is closed no other program may write to the disk. Raises
    FileSystemError for a file system that is damaged, was not unmounted cleanly, or cannot be changed here;
    StorageError as reading does.
    """
    try:
        return ChangedTree(Transaction(disk, now=now), now=now, close=close)
    except NotBelievedError as error:
        raise FileSystemError(
            f"{disk.name}: the files of its ext file system cannot be changed: {error.reason}; check it (e2fsck -f)"
        ) from error


@dataclass(frozen=True, slots=True)
class Put:
    """The result of putting entries into a tree: entries, and the bytes of regular files, including holes.

    left_out counts the extended attributes that the file system cannot hold, flags_left_out the files whose flags it
    does not support.
    """

    entries: int
    bytes: int
    left_out: AttributesLeftOut
    flags_left_out: int


class ChangedTree(ExtTree, Tree):
    """The files of an ext2, ext3 or ext4 file system, read and changed without a mount.

    open_tree(writable=True) returns one; a context manager. Each change is one transaction of the journal: it is
    durable when the call returns, and an interruption leaves it done or not done, once the journal has been replayed by
    mounting or `e2fsck -p`. A call that fails has changed nothing. together() makes several changes one transaction.
    close() marks the file system as clean, which can fail as a change can. Paths and other errors are those of ExtTree;
    NoSpaceError is raised when the file system is full. Changes by several threads are made one after the other; no
    thread may read while another one changes the tree. Until it is closed, copy(), make_ext() and others that would
    write to its part of the disk raise InUseError.

    >>> from pydiskimg import open_tree
    >>> with open_tree("disk.qcow2", writable=True) as tree:
    ...     with tree.together():
    ...         tree.write("/etc/hostname", b"web2\\n")
    ...         tree.make_directory("/etc/web", mode=0o750)
    ...         tree.symlink("/etc/www", "web")
    ...     tree.exists("/etc/www"), tree.readlink("/etc/www")
    (True, 'web')
    """

    def __init__(
        self, transaction: Transaction, *, now: int | None = None, close: Callable[[], object] = lambda: None
    ) -> None:
        """now is the time of all changes, in nanoseconds since 1970; None: the present. close: as for ExtTree."""
        super().__init__(ExtFiles(transaction.fs), close)
        self._transaction = transaction
        self._changes = FileChanges(transaction, now=now)
        self._lock = threading.RLock()  # of the thread that makes a change, or several together
        self._is_together = False
        self._has_orphans = bool(orphans(transaction.fs))

    def close(self) -> None:
        """Mark the file system as clean on the disk, which may fail as a change may."""
        with self._lock:
            try:
                self._transaction.close()
            finally:
                super().close()

    def __enter__(self) -> ChangedTree:
        return self

    @contextmanager
    def together(self) -> Iterator[None]:
        """Make all changes in the block take effect together, at its end; none of them after an exception.

        Without a journal, an interruption may leave some of them.
        """
        with self._lock:
            self._release_orphans()
            savepoint = self._transaction.savepoint()
            self._is_together = True
            try:
                yield
                self._transaction.commit()
            except BaseException:
                self._transaction.restore(savepoint)
                raise
            finally:
                self._is_together = False
                self.files = ExtFiles(self._transaction.fs)

    def write(
        self, path: str, data: bytes, *, mode: int = 0o644, attributes: Mapping[str, bytes] | None = None
    ) -> None:
        """Replace the contents of a regular file, or make one of exactly this mode with these extended attributes.

        An existing file keeps owner, mode and attributes. If it has several names, this name gets a copy of its own. A
        symlink as the last component is followed, even to a file that does not exist yet.
        """
        self.write_pieces(path, [(0, data)], len(data), mode=mode, attributes=attributes)

    def write_pieces(
        self,
        path: str,
        pieces: Pieces,
        size: int,
        *,
        mode: int = 0o644,
        attributes: Mapping[str, bytes] | None = None,
    ) -> None:
        """Do as write() does with contents of size bytes that arrive in pieces, with holes between them.

        Each piece is written when it arrives. source_pieces() gives the pieces of a Source.
        """
        with self._changing(path) as changes:
            parent, name, inode = self._located(path, follow_symlinks=True)
            if inode is None:
                inode = self._made(parent, name, layout.REGULAR_FILE | mode, attributes)
            elif inode.links > 1 and inode.kind == layout.REGULAR_FILE:
                inode = changes.make_copy(parent, name, inode)
            changes.set_contents(inode, pieces, size)

    def replace(self, path: str, data: bytes) -> None:
        """Replace the contents of an existing regular file, which keeps everything else; as write()."""
        with self._changing(path):
            self.inode(path)
            self.write(path, data)

    def write_files(
        self,
        directory: str,
        files: Iterable[tuple[str, bytes]],
        *,
        mode: int = 0o644,
        attributes: Mapping[str, bytes] | None = None,
    ) -> None:
        """Put new files of exactly this mode into a directory, replacing files, symlinks and devices of these names.

        An interruption or an error may leave only the first of them, each complete.
        """
        with self._lock:
            with self._changing(directory) as changes:
                above = changes.inode(self.inode(directory).number)
                if above.kind != layout.DIRECTORY:
                    raise RefusedError("is not a directory", errno.ENOTDIR)
                changes.check_changeable(above)
            batch = self._batch()
            try:
                for name, data in files:
                    with batch.change(len(data)):
                        error = self._put_new(batch, above, name, data, mode, attributes, directory)
                    if error is not None:
                        raise error
            finally:  # those before one that failed are there
                with self._errors(directory):
                    batch.commit()
                self.files = ExtFiles(self._transaction.fs)

    def _put_new(
        self,
        batch: ChangeBatch,
        above: StoredInode,
        name: str,
        data: bytes,
        mode: int,
        attributes: Mapping[str, bytes] | None,
        directory: str,
    ) -> StorageError | None:
        """Put a new file, with inherited attributes, in place of any file of its name; return an error."""
        savepoint = self._transaction.savepoint()
        try:
            with self._errors(f"{directory.rstrip('/')}/{name}"):
                inode = batch.changes.write_new(above, layout.REGULAR_FILE | mode, data)
                batch.put(above.number, _file_name(name), self._dress(inode, attributes))
        except StorageError as error:
            self._transaction.restore(savepoint)
            return error
        return None

    def put(self, entries: Iterable[Entry], directory: str = "/", *, wording: Wording | None = None) -> Put:
        """Make the files of entries, with all their attributes, below an existing directory.

            with open_tar("files.tar.gz") as entries:
                tree.put(entries, "/srv")

        Owner, mode, times, links, devices, holes, extended attributes and ACLs are those of the entries; only flags,
        such as for compression, are inherited from the directory. An entry replaces an existing file of its path, but a
        directory is kept; if the entry is a directory, a symlink to a directory counts as that directory. Symlinks of
        the guest are followed as in the guest; symlinks of entries never lead out of directory. Contents are written as
        they arrive, for any size.

        Many entries are committed some at a time, and all of them when the call returns: an interruption or error may
        leave the first of them, each complete; a directory may lack the flags and the ACL with names, which it gets
        last. wording sets the texts of messages about entries. Raises as reading entries does, ArchiveError for an
        entry that cannot be made faithfully and safely, NoSpaceError, StorageError.
        """
        with self.putting(directory, wording or Wording(self.name)) as writer:
            count, total = made_of(entries, writer.make)
        return Put(count, total, writer.left_out, writer.flags_left_out)

    @contextmanager
    def putting(self, directory: str, wording: Wording) -> Iterator[EntryWriter]:
        """Give an object that makes entries as put() does, all of which exist when the block ends."""
        with self._lock:
            with self._changing(directory):
                if self.inode(directory).kind != layout.DIRECTORY:
                    raise RefusedError("is not a directory", errno.ENOTDIR)
            batch = self._batch()
            writer = EntryWriter(self._transaction, batch, directory, wording)
            try:
                yield writer
                writer.finish()
            except BaseException:
                batch.take_back()
                raise
            finally:
                self.files = ExtFiles(self._transaction.fs)

    def make_directory(self, path: str, *, mode: int = 0o755, attributes: Mapping[str, bytes] | None = None) -> None:
        """Make a directory of exactly this mode; its parent must exist. Raises ValueError for more than 12 bits."""
        if not 0 <= mode <= 0o7777:
            raise ValueError(f"{mode:#o} is not the mode of a directory; expected at most 07777")
        with self._changing(path):
            self._made(*self._free_name(path), layout.DIRECTORY | mode, attributes)

    def make_node(
        self,
        path: str,
        mode: int,
        *,
        device: tuple[int, int] = (0, 0),
        attributes: Mapping[str, bytes] | None = None,
    ) -> None:
        """Make a device, of a major and a minor number, a FIFO or a socket; mode includes the type, as for mknod(2)."""
        if stat.S_IFMT(mode) not in _NODES:
            raise ValueError(f"{mode:#o} is not the mode of a device, a FIFO or a socket")
        with self._changing(path) as changes:
            self._dress(changes.make(*self._free_name(path), mode, device=device), attributes)

    def symlink(self, path: str, target: str, *, attributes: Mapping[str, bytes] | None = None) -> None:
        """Make a symlink to target, which the guest will resolve. Raises ValueError for a target with a null byte."""
        if "\0" in target:
            raise ValueError(f"{quoted(target)} is not a path (it has a null byte)")
        with self._changing(path) as changes:
            inode = changes.symlink(*self._free_name(path), os.fsencode(target))
            self._dress(inode, attributes)

    def remove(self, path: str) -> None:
        """Remove the name of a file, or a symlink itself; a directory raises StorageError (EISDIR)."""
        with self._changing(path) as changes:
            parent, name, _ = self._located(path)
            changes.unlink(parent, name, directory=False)

    def remove_directory(self, path: str) -> None:
        """Remove an empty directory."""
        with self._changing(path) as changes:
            parent, name, _ = self._located(path)
            changes.unlink(parent, name, directory=True)

    def remove_tree(self, path: str) -> None:
        """Remove a file, or a directory with everything below it; a symlink itself.

        The files of a large directory are removed in several steps: after an interruption or error some may still
        exist.
        """
        with self._lock:
            with self._changing(path):
                parent, name, inode = self._located(path)
                if inode is None:
                    raise RefusedError("does not exist", errno.ENOENT)
            if inode.kind != layout.DIRECTORY:
                self.remove(path)
                return
            batch = self._batch()
            try:
                remover = TreeRemover(self._transaction.fs, batch, lambda below: self._errors(os.fsdecode(below)))
                remover.remove(parent.number, name, inode, os.fsencode(path.rstrip("/")))
            except BaseException:
                batch.take_back()
                raise
            finally:
                self.files = ExtFiles(self._transaction.fs)

    def rename(self, path: str, new_path: str) -> None:
        """Rename the file at path, replacing an existing file, as rename(2) does."""
        with self._changing(path) as changes:
            parent, name, _ = self._located(path)
            with self.errors(new_path):
                new = self._located(new_path)
            changes.rename(parent, name, *new[:2])

    def link(self, path: str, new_path: str) -> None:
        """Give the file at path another name; a symlink itself."""
        with self._changing(new_path) as changes:
            with self.errors(path):
                inode = changes.inode(self.inode(path, follow_symlinks=False).number)
            changes.link(*self._free_name(new_path), inode)

    def append(self, path: str, data: bytes) -> None:
        """Append data to a regular file."""
        with self._changing(path) as changes:
            inode = changes.inode(self.inode(path).number)
            changes.resize(inode, inode.size, data)

    def truncate(self, path: str, size: int) -> None:
        """Truncate a regular file at size bytes, or extend it with a hole. Raises ValueError for a negative size."""
        if size < 0:
            raise ValueError(f"a size of {size} bytes is not possible; expected 0 or more")
        with self._changing(path) as changes:
            changes.resize(changes.inode(self.inode(path).number), size)

    def chmod(self, path: str, mode: int) -> None:
        """Change the permission bits, and with them those of an ACL."""
        with self._changing(path) as changes:
            changes.set_mode(changes.inode(self.inode(path).number), mode)

    def chown(self, path: str, uid: int, gid: int, *, follow_symlinks: bool = True) -> None:
        """Change only owner and group: bits and capabilities that chown(2) would clear stay.

        Raises ValueError for a number that is not from 0 to 4294967295.
        """
        with self._changing(path) as changes:
            inode = changes.inode(self.inode(path, follow_symlinks=follow_symlinks).number)
            changes.set_owner(inode, uid, gid)

    def utime(self, path: str, *, atime_ns: int, mtime_ns: int, follow_symlinks: bool = True) -> None:
        """Change the times of the last access and modification, in nanoseconds since 1970."""
        with self._changing(path) as changes:
            inode = changes.inode(self.inode(path, follow_symlinks=follow_symlinks).number)
            changes.set_times(inode, atime_ns, mtime_ns)

    def set_attribute(self, path: str, name: str, value: bytes, *, follow_symlinks: bool = True) -> None:
        """Set an extended attribute; an ACL also changes the permission bits."""
        with self._changing(path):
            self._dress(self.inode(path, follow_symlinks=follow_symlinks), {name: value})

    def remove_attribute(self, path: str, name: str, *, follow_symlinks: bool = True) -> None:
        """Remove an extended attribute; StorageError (ENODATA) if there is none of this name."""
        with self._changing(path) as changes:
            inode = changes.inode(self.inode(path, follow_symlinks=follow_symlinks).number)
            changes.set_attribute(inode, os.fsencode(name), None)

    def error(self, path: str, text: str, number: int) -> StorageError:
        """Return the error with a text about the file at path."""
        error = super().error(path, text, number)
        if number == errno.EEXIST:
            return ExistingPathError(str(error), errno=number, filename=error.filename)
        if number == errno.ENOSPC:
            return NoSpaceError(str(error), errno=number, filename=error.filename, device=0)
        return error

    def _batch(self) -> ChangeBatch:
        self._release_orphans()
        return ChangeBatch(self._transaction, self._changes, is_together=self._is_together)

    @contextmanager
    def _errors(self, path: str) -> Iterator[None]:
        """Do as errors() does, and also for a full file system."""
        with self.errors(path):
            try:
                yield
            except OutOfSpaceError as error:
                raise RefusedError(f"cannot be written: {error}", errno.ENOSPC) from error

    @contextmanager
    def _changing(self, path: str) -> Iterator[FileChanges]:
        """Commit the changes in the block, or undo them all."""
        if not path.startswith("/"):
            raise ValueError(f"{quoted(path)} is not absolute; paths in a guest's tree start at its root")
        with self._lock:
            transaction, is_outermost = self._transaction, not self._is_together
            self._release_orphans()
            savepoint = transaction.savepoint()
            try:
                with self._errors(path):
                    yield self._changes
                    if is_outermost:
                        transaction.commit()
            except BaseException:
                transaction.restore(savepoint)
                raise
            finally:
                self.files = ExtFiles(transaction.fs)

    def _release_orphans(self) -> None:
        """Delete or truncate the inodes that a crash left, before the first change."""
        if not self._has_orphans:
            return
        with self._errors("/"):
            release_orphans(self._transaction, self._changes)
        self._has_orphans, self.files = False, ExtFiles(self._transaction.fs)

    def _located(self, path: str, *, follow_symlinks: bool = False) -> tuple[StoredInode, bytes, StoredInode | None]:
        """Return the directory, the last name of path in it, and the file there."""
        name = os.fsencode(path).rstrip(b"/").rpartition(b"/")[2]
        if not name:
            raise RefusedError("is the root directory, which cannot be moved or removed", errno.EBUSY)
        if name in (b".", b".."):
            raise RefusedError("ends in . or ..; name the directory by its own name", errno.EINVAL)
        if b"\0" in name:
            raise RefusedError("is not a valid file name", errno.EINVAL)
        steps, missing = self.walked(path.rstrip("/"), follow_symlinks=follow_symlinks, below_file=errno.ENOTDIR)
        if missing is not None:
            return self._changes.inode(steps[-1].inode.number), missing, None
        if len(steps) == 1:
            raise RefusedError("leads to the root directory, which cannot be moved or removed", errno.EBUSY)
        above, found = steps[-2:]
        return self._changes.inode(above.inode.number), found.name, self._changes.inode(found.inode.number)

    def _free_name(self, path: str) -> tuple[StoredInode, bytes]:
        """Return the directory and the name of a file to be made."""
        parent, name, inode = self._located(path)
        if inode is not None:
            raise RefusedError("cannot be made: a file of this name already exists", errno.EEXIST)
        return parent, name

    def _made(self, parent: StoredInode, name: bytes, mode: int, attributes: Mapping[str, bytes] | None) -> StoredInode:
        return self._dress(self._changes.make(parent, name, mode), attributes)

    def _dress(self, inode: StoredInode, attributes: Mapping[str, bytes] | None) -> StoredInode:
        for name, value in (attributes or {}).items():
            inode = self._changes.set_attribute(self._changes.inode(inode.number), os.fsencode(name), value)
        return inode


def made_of(entries: Iterable[Entry], make: Callable[[Entry], None]) -> tuple[int, int]:
    """Make files of all entries; return how many, and the bytes of the regular files among them."""
    count = total = 0
    for entry in entries:
        make(entry)
        count += 1
        total += entry.size if entry.kind == layout.REGULAR_FILE else 0
    return count, total


def _file_name(name: str) -> bytes:
    encoded = os.fsencode(name)
    if encoded in (b"", b".", b"..") or b"/" in encoded or b"\0" in encoded:
        raise RefusedError("is not a valid file name", errno.EINVAL)
    return encoded
