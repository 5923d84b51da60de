# SPDX-License-Identifier: MIT
"""A guest's files on its ext file system, read and changed by their paths, without a mount."""

from __future__ import annotations

import errno
import os
import stat
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
    """Return the files of the ext2, ext3 or ext4 that begins where disk begins, to be changed; the caller closes it.

    now is the time of all changes, in nanoseconds since 1970; None: the present. close is called when the tree is
    closed, once or more often. Nothing is written before the first change, which comes after what a crash left to be
    deleted or cut. Until the tree is closed nobody else may write to the disk. Raises FileSystemError for what is
    damaged, was not unmounted cleanly, or is not changed here; StorageError as reading does.
    """
    try:
        return ChangedTree(Transaction(disk, now=now), now=now, close=close)
    except NotBelievedError as error:
        raise FileSystemError(
            f"{disk.name}: the files of its ext file system are not changed: {error.reason}; check it (e2fsck -f)"
        ) from error


@dataclass(frozen=True, slots=True)
class Put:
    """What was put into a tree: entries, and the bytes of the regular files among them, with holes.

    left_out is the extended attributes that the file system cannot hold, flags_left_out counts files whose flags it
    does not have.
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
    NoSpaceError is raised when the file system is full.

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
        self._is_together = False
        self._has_orphans = bool(orphans(transaction.fs))

    def close(self) -> None:
        """Say on the disk that the file system is clean, which may fail as a change may."""
        try:
            self._transaction.close()
        finally:
            super().close()

    def __enter__(self) -> ChangedTree:
        return self

    @contextmanager
    def together(self) -> Iterator[None]:
        """Have all changes within come into force together, when the block ends; none of them after an exception.

        Without a journal an interruption may leave some of them.
        """
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

        The old file keeps owner, mode and attributes. One with several names gets a copy of its own under this name. A
        symlink as the last component is followed, also to a file that does not exist yet.
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
        """Do as write() does with contents of size bytes that come in pieces; what lies between these is a hole.

        Each piece is written when it comes. source_pieces() gives those of a Source.
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
        """Put new files of exactly this mode into a directory, in place of files, symlinks and devices of these names.

        An interruption or an error may leave the first of them alone, each of those whole.
        """
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
        """Put a new file, with what it inherits, in place of what has its name; return the error where that fails."""
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
        """Make the files of entries, with all that belongs to them, below a directory, which is there.

            with open_tar("files.tar.gz") as entries:
                tree.put(entries, "/srv")

        Owner, mode, times, links, devices, holes, extended attributes and ACLs come out as the entries have them, and
        nothing is inherited from the directory but flags, such as for compression. What is in an entry's place is
        replaced, but for a directory in a directory's; a symlink that leads to a directory counts as that directory
        where an entry is one. The symlinks of the guest lead where the guest follows them, those of entries not out of
        directory. Contents are written as they come, whatever their size.

        Many entries are committed some at a time, and all of them when the call returns: an interruption or error may
        leave the first of them, each as a whole; a directory may miss the flags and the ACL with names that it gets
        last. wording says how messages about entries read. Raises what reading entries raises, ArchiveError for an
        entry that cannot be made faithfully and safely, NoSpaceError, StorageError.
        """
        with self.putting(directory, wording or Wording(self.name)) as writer:
            count, total = made_of(entries, writer.make)
        return Put(count, total, writer.left_out, writer.flags_left_out)

    @contextmanager
    def putting(self, directory: str, wording: Wording) -> Iterator[EntryWriter]:
        """Give what makes entries as put() does, all of which are there when the block ends."""
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
        """Make one directory of exactly this mode; the one above it is there."""
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
        """Make a device, of a major and a minor number, a FIFO or a socket; mode has the type, as for mknod(2)."""
        if stat.S_IFMT(mode) not in _NODES:
            raise ValueError(f"{mode:#o} is not the mode of a device, a FIFO or a socket")
        with self._changing(path) as changes:
            self._dress(changes.make(*self._free_name(path), mode, device=device), attributes)

    def symlink(self, path: str, target: str, *, attributes: Mapping[str, bytes] | None = None) -> None:
        """Make a symlink to target, which is the guest's to resolve."""
        with self._changing(path) as changes:
            inode = changes.symlink(*self._free_name(path), os.fsencode(target))
            self._dress(inode, attributes)

    def remove(self, path: str) -> None:
        """Take the name of a file away, or a symlink itself; a directory raises StorageError (EISDIR)."""
        with self._changing(path) as changes:
            parent, name, _ = self._located(path)
            changes.unlink(parent, name, directory=False)

    def remove_directory(self, path: str) -> None:
        """Take an empty directory away."""
        with self._changing(path) as changes:
            parent, name, _ = self._located(path)
            changes.unlink(parent, name, directory=True)

    def remove_tree(self, path: str) -> None:
        """Take a file away, or a directory with everything below it; a symlink itself.

        Of a large directory some files are taken away at a time, and all of them when the call returns: after an
        interruption or error some may be there.
        """
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
        """Give what is at path another path, in place of what is there, as rename(2) does."""
        with self._changing(path) as changes:
            parent, name, _ = self._located(path)
            with self.errors(new_path):
                new = self._located(new_path)
            changes.rename(parent, name, *new[:2])

    def link(self, path: str, new_path: str) -> None:
        """Give the file at path, itself if it is a symlink, one more name."""
        with self._changing(new_path) as changes:
            with self.errors(path):
                inode = changes.inode(self.inode(path, follow_symlinks=False).number)
            changes.link(*self._free_name(new_path), inode)

    def append(self, path: str, data: bytes) -> None:
        """Put data at the end of a regular file."""
        with self._changing(path) as changes:
            inode = changes.inode(self.inode(path).number)
            changes.resize(inode, inode.size, data)

    def truncate(self, path: str, size: int) -> None:
        """Cut a regular file after size bytes, or lengthen it with a hole."""
        with self._changing(path) as changes:
            changes.resize(changes.inode(self.inode(path).number), size)

    def chmod(self, path: str, mode: int) -> None:
        """Change the permission bits, and those of an ACL with them."""
        with self._changing(path) as changes:
            changes.set_mode(changes.inode(self.inode(path).number), mode)

    def chown(self, path: str, uid: int, gid: int, *, follow_symlinks: bool = True) -> None:
        """Change owner and group, and nothing else: bits and capabilities that chown(2) would clear stay."""
        with self._changing(path) as changes:
            inode = changes.inode(self.inode(path, follow_symlinks=follow_symlinks).number)
            changes.set_owner(inode, uid, gid)

    def utime(self, path: str, *, atime_ns: int, mtime_ns: int, follow_symlinks: bool = True) -> None:
        """Change the times of the last access and the last change, in nanoseconds since 1970."""
        with self._changing(path) as changes:
            inode = changes.inode(self.inode(path, follow_symlinks=follow_symlinks).number)
            changes.set_times(inode, atime_ns, mtime_ns)

    def set_attribute(self, path: str, name: str, value: bytes, *, follow_symlinks: bool = True) -> None:
        """Set an extended attribute; an ACL changes the permission bits, too."""
        with self._changing(path):
            self._dress(self.inode(path, follow_symlinks=follow_symlinks), {name: value})

    def remove_attribute(self, path: str, name: str, *, follow_symlinks: bool = True) -> None:
        """Take an extended attribute away; StorageError (ENODATA) where there is none of this name."""
        with self._changing(path) as changes:
            inode = changes.inode(self.inode(path, follow_symlinks=follow_symlinks).number)
            changes.set_attribute(inode, os.fsencode(name), None)

    def error(self, path: str, text: str, number: int) -> StorageError:
        """Return the error that says text of the file at path."""
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
        """Do as errors() does, and for a full file system."""
        with self.errors(path):
            try:
                yield
            except OutOfSpaceError as error:
                raise RefusedError(f"cannot be written: {error}", errno.ENOSPC) from error

    @contextmanager
    def _changing(self, path: str) -> Iterator[FileChanges]:
        """Commit what is changed within, or take it all back."""
        if not path.startswith("/"):
            raise ValueError(f"{quoted(path)} is not absolute; paths in a guest's tree start at its root")
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
        """Do what a crash has left to be done, before the first change."""
        if not self._has_orphans:
            return
        with self._errors("/"):
            release_orphans(self._transaction, self._changes)
        self._has_orphans, self.files = False, ExtFiles(self._transaction.fs)

    def _located(self, path: str, *, follow_symlinks: bool = False) -> tuple[StoredInode, bytes, StoredInode | None]:
        """Return the directory, the name in it that path ends on, and what is there."""
        name = os.fsencode(path).rstrip(b"/").rpartition(b"/")[2]
        if not name:
            raise RefusedError("is the root directory, which stays where it is", errno.EBUSY)
        if name in (b".", b".."):
            raise RefusedError("ends in . or ..; name the directory by its own name", errno.EINVAL)
        if b"\0" in name:
            raise RefusedError("is not a name that a file can have", errno.EINVAL)
        steps, missing = self.walked(path.rstrip("/"), follow_symlinks=follow_symlinks, below_file=errno.ENOTDIR)
        if missing is not None:
            return self._changes.inode(steps[-1].inode.number), missing, None
        if len(steps) == 1:
            raise RefusedError("leads to the root directory, which stays where it is", errno.EBUSY)
        above, found = steps[-2:]
        return self._changes.inode(above.inode.number), found.name, self._changes.inode(found.inode.number)

    def _free_name(self, path: str) -> tuple[StoredInode, bytes]:
        """Return the directory and the name of what is to be made."""
        parent, name, inode = self._located(path)
        if inode is not None:
            raise RefusedError("cannot be made: something has this name already", errno.EEXIST)
        return parent, name

    def _made(self, parent: StoredInode, name: bytes, mode: int, attributes: Mapping[str, bytes] | None) -> StoredInode:
        return self._dress(self._changes.make(parent, name, mode), attributes)

    def _dress(self, inode: StoredInode, attributes: Mapping[str, bytes] | None) -> StoredInode:
        for name, value in (attributes or {}).items():
            inode = self._changes.set_attribute(self._changes.inode(inode.number), os.fsencode(name), value)
        return inode


def made_of(entries: Iterable[Entry], make: Callable[[Entry], None]) -> tuple[int, int]:
    """Make each entry; return how many there are, and the bytes of the regular files among them."""
    count = total = 0
    for entry in entries:
        make(entry)
        count += 1
        total += entry.size if entry.kind == layout.REGULAR_FILE else 0
    return count, total


def _file_name(name: str) -> bytes:
    encoded = os.fsencode(name)
    if encoded in (b"", b".", b"..") or b"/" in encoded or b"\0" in encoded:
        raise RefusedError("is not a name that a file can have", errno.EINVAL)
    return encoded
