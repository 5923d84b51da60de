# SPDX-License-Identifier: MIT
"""Put entries into an existing file system, as files/writer.py makes them below a directory.

A new file is written to an inode without a name, and gets its name with others in the next commit. A file that replaces
a file keeps the old inode, with all its fields new: the change is atomic even without a journal.
"""

from __future__ import annotations

import errno
import stat
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace

from pydiskimg.errors import DiskImageError, NoSpaceError, StorageError
from pydiskimg.files.acl import AclNames, mode_with
from pydiskimg.files.attributes import ACL_ACCESS, ACLS, AttributesLeftOut
from pydiskimg.files.entry import Entry, check_entry
from pydiskimg.files.resolve import UnsafePathError, check_length
from pydiskimg.files.writer import Wording
from pydiskimg.fs.ext4 import layout
from pydiskimg.fs.ext4.change.allocation import OutOfSpaceError
from pydiskimg.fs.ext4.change.attributes import outlined, stored_attributes, with_attributes
from pydiskimg.fs.ext4.change.batch import ChangeBatch
from pydiskimg.fs.ext4.change.inodes import store
from pydiskimg.fs.ext4.change.names import InodeSet
from pydiskimg.fs.ext4.change.pending_files import PendingFiles
from pydiskimg.fs.ext4.change.put_inode import with_contents, with_flags, with_metadata, without_flags
from pydiskimg.fs.ext4.change.put_paths import PutPaths
from pydiskimg.fs.ext4.change.transaction import Transaction, WriteOrder
from pydiskimg.fs.ext4.file_system import NotBelievedError
from pydiskimg.fs.ext4.inode_fields import possible_flags
from pydiskimg.fs.ext4.inodes import StoredInode
from pydiskimg.fs.ext4.populate.entry_attributes import access_control_lists, possible_attributes
from pydiskimg.fs.ext4.tree.entries import entry_of
from pydiskimg.fs.ext4.tree.entry_paths import NewName
from pydiskimg.fs.ext4.tree.files import ExtFiles, RefusedError
from pydiskimg.fs.ext4.tree.tree import ExtTree
from pydiskimg.fs.ext4.xattr_writer import stored_name
from pydiskimg.fs.ext4.xattrs import StoredName
from pydiskimg.text import printable

_MISSING_MODE = 0o755
_LATER_BYTES = 50 << 20  # of ACLs and attributes that wait for the last entry
_ACL_ENTRY_BYTES = 250
_NO_FILE = (errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.EISDIR, errno.EINVAL)
_STORED_ACLS = [stored_name(name) for name in ACLS]


class EntryWriter:
    """Makes entries below a directory, a path from the root.

    An entry replaces an existing file of its path, but a directory is kept; if the entry is a directory, a symlink to a
    directory counts as that directory (/lib -> usr/lib). Call finish() after the last entry. After an error, files made
    since the last commit do not exist, and no further ones can be made. left_out counts the attributes that the file
    system cannot hold, flags_left_out the files whose flags it does not support. acl_names has the numbers of names in
    ACLs.
    """

    def __init__(self, transaction: Transaction, batch: ChangeBatch, directory: str, wording: Wording) -> None:
        self.left_out = AttributesLeftOut()
        self.flags_left_out = 0
        self._transaction = transaction
        self._batch = batch
        self._changes, self._names = batch.changes, batch.names
        self._wording = wording
        self._files = ExtFiles(transaction.fs)
        self._pending = PendingFiles(batch, self._files)
        self._directory = directory
        steps = [inode.number for inode in ExtTree(self._files).steps(directory)]
        self._paths = PutPaths(batch, steps, self._files.target, self._make_missing)
        self.acl_names = AclNames(self._read_path)
        self._later: dict[int, Entry] = {}
        self._later_bytes = 0
        self._with_flags: dict[int, InodeSet] = {}  # directories, by the flags that wait for their files

    def make(self, entry: Entry, *, at: bytes | None = None) -> None:
        """Make a file of an entry. Raises as its contents do, the wording's errors, and StorageError.

        at is a path without symlinks that is used instead of its own; a symlink there is replaced, too.
        """
        with self.errors(entry), self._batch.change(entry.size):
            check_entry(entry)
            check_length(entry.path)
            name = self._paths.locate(entry.path if at is None else at)
            if name is None:
                self._own_top(entry)
            elif entry.is_directory:
                self._make_directory(entry, name, follows=at is None)
            elif entry.is_hard_link:
                self._link(entry.link, name)
            else:
                self._make_file(entry, name)

    def finish(self) -> None:
        """Set the ACLs with names and the flags of directories, and commit."""
        self._batch.commit()
        for number, entry in self._later.items():
            with self.errors(entry), self._batch.change():
                self._set_acls(number, entry)
        for flags, numbers in self._with_flags.items():
            for number in numbers:
                with self._batch.change():
                    store(self._transaction, with_flags(self._changes.inode(number), flags))
        self._batch.commit()

    @property
    def files(self) -> PendingFiles:
        """The files as they will be after the next commit."""
        return self._pending

    def entry(self, number: int, path: bytes) -> Entry:
        """Return a file as an entry of this path, after a commit, including attributes that it has yet to get."""
        self._batch.commit()
        fs = self._transaction.fs
        found = entry_of(ExtFiles(fs), self._changes.inode(number), path, f"{fs.name}, {printable(path)}")
        waiting = self._later.get(number)
        return found if waiting is None else replace(found, acls=waiting.acls)

    @contextmanager
    def errors(self, entry: Entry) -> Iterator[None]:
        """Turn errors in the block into errors that name the entry."""
        try:
            yield
        except ValueError as error:
            raise self._wording.refused(entry, error) from error
        except RefusedError as error:
            where = self._wording.where(entry)
            raise StorageError(f"{where}: {error}", errno=error.number, filename=where) from error
        except OutOfSpaceError as error:
            where = self._wording.where(entry)
            hint = self._wording.hints.get(self._transaction.fs.name, "make room, or enlarge the file system")
            text = f"{where}: cannot be {self._wording.done}: {error}" + (f"; {hint}" if hint else "")
            raise NoSpaceError(text, errno=errno.ENOSPC, filename=where, device=0) from error
        except NotBelievedError as error:
            text = f"{error.where}: the file system is damaged: {error.reason}; check it (fsck)"
            raise StorageError(text, errno=errno.EUCLEAN, filename=error.where) from error
        except DiskImageError:
            raise
        except OSError as error:
            raise self._wording.failed(entry, error) from error

    def _own_top(self, entry: Entry) -> None:
        if not entry.is_directory:
            raise UnsafePathError(
                "it has the path of the directory that the archive is unpacked into, but is not a directory"
            )
        self._own_directory(self._changes.inode(self._paths.top), entry)

    def _make_directory(self, entry: Entry, name: NewName, *, follows: bool) -> None:
        found = self._paths.as_directory(entry.path, name) if follows else self._paths.found(name)
        if found is None or found.kind != layout.DIRECTORY:
            self._clear(name)
            found = self._new_directory(name, 0o700)
        self._own_directory(found, entry)

    def _own_directory(self, inode: StoredInode, entry: Entry) -> None:
        """Give a directory the attributes of the entry; its attributes of other names stay, and its flags."""
        self._changes.check_changeable(inode)
        self._names.with_times.add(inode.number)
        had = stored_attributes(self._transaction, inode)
        kept = {name: value for name, value in had.items() if name not in _STORED_ACLS}
        store(self._transaction, self._with_all(inode, entry, kept), order=WriteOrder.LAST)
        self.flags_left_out += possible_flags(entry.kind, entry.flags) != entry.flags
        if flags := possible_flags(entry.kind, entry.flags):
            self._forget_flags(inode.number)
            self._with_flags.setdefault(flags, InodeSet()).add(inode.number)

    def _forget_flags(self, number: int) -> None:
        for numbers in self._with_flags.values():
            numbers.discard(number)

    def _new_directory(self, name: NewName, mode: int) -> StoredInode:
        """Make a directory, whose blocks and name are written with the next commit."""
        parent = self._changes.inode(name.directory)
        self._changes.check_changeable(parent)
        inode = self._changes.new(parent, layout.DIRECTORY | mode)
        store(self._transaction, inode, order=WriteOrder.LAST)
        self._names.begin(inode, name.directory, name.name)
        return inode

    def _make_missing(self, name: NewName) -> int:
        return self._new_directory(name, _MISSING_MODE).number

    def _make_file(self, entry: Entry, name: NewName) -> None:
        inode = self._inode_in(name, entry.kind)
        inode = with_contents(self._transaction, inode, entry)
        inode = with_flags(self._with_all(inode, entry, {}), entry.flags)
        store(self._transaction, inode, order=WriteOrder.LAST)
        self._names.put(*name, inode)
        if entry.kind == stat.S_IFLNK:
            self._paths.made_symlink(inode.number)
        for path in entry.names:
            further = self._paths.locate(path)
            if further is None:
                raise UnsafePathError("one of its names is the directory that the archive is unpacked into")
            self._link(entry.path, further)
        self.flags_left_out += inode.flags & entry.flags != entry.flags

    def _inode_in(self, name: NewName, kind: int) -> StoredInode:
        """Return the inode for a file: the existing one of its path, or a new one that replaces it."""
        found = self._paths.found(name)
        parent = self._changes.inode(name.directory)
        self._changes.check_changeable(parent)
        if found is None or found.kind != kind or found.links > 1:
            inode = self._changes.new(parent, kind)
            self._clear(name)
            return inode
        self._changes.check_changeable(found)
        if kind == stat.S_IFLNK:
            self._paths.forget()
        return without_flags(outlined(self._transaction, found))

    def _clear(self, name: NewName) -> None:
        """Remove the file of a name, so that another can take its place."""
        found = self._paths.found(name)
        if found is None:
            return
        self._changes.check_changeable(found)
        if found.number == layout.LOST_FOUND_INODE:
            raise UnsafePathError("it would replace the directory lost+found, which every ext file system has")
        if found.kind == layout.DIRECTORY:
            if not self._names.is_empty(found.number):
                raise UnsafePathError("it would replace a directory that is not empty")
            found = self._changes.inode(found.number)
            self._names.remove_directory(found.number, *name)
            self._forget_flags(found.number)
        else:
            self._names.remove(*name)
        if found.kind in (layout.DIRECTORY, layout.SYMLINK):
            self._paths.forget()
        if found.links == 1 or found.kind == layout.DIRECTORY:
            self._later.pop(found.number, None)
        self._changes.drop(found)
        self._batch.gave_back = True

    def _link(self, link: bytes, name: NewName) -> None:
        """Add a name to the file at the path link."""
        check_length(link)
        linked = printable(link)
        try:
            first = self._paths.locate(link, make=False)
        except FileNotFoundError:
            found = None
        else:
            if first is None:
                raise UnsafePathError("it is a hard link to the directory that the archive is unpacked into")
            found = self._paths.found(first)
        if found is None:
            raise UnsafePathError(f"it is a hard link to {linked}, which does not exist")
        if found.kind == layout.DIRECTORY:
            raise UnsafePathError(f"it is a hard link to the directory {linked}")
        if self._names.find(*name) != found.number:
            self._clear(name)
            parent = self._changes.inode(name.directory)
            self._changes.check_changeable(parent)
            self._names.put(*name, self._changes.one_more_link(found))

    def _with_all(self, inode: StoredInode, entry: Entry, kept: dict[StoredName, bytes]) -> StoredInode:
        """Return an inode with owner, mode, times and attributes of an entry, and the kept ones of its previous
        attributes.
        """
        mode = entry.kind | (0o777 if entry.kind == stat.S_IFLNK else entry.mode & 0o7777)
        acls = access_control_lists(entry)
        if ACL_ACCESS in acls:
            mode = mode_with(mode, acls[ACL_ACCESS])
        had = stored_attributes(self._transaction, inode)
        inode = with_metadata(inode, entry, mode, self._changes.time())
        self._later.pop(inode.number, None)
        if entry.acls_have_names:
            self._set_later(inode.number, entry)
            acls = {}
        attributes = {**kept, **self._stored(possible_attributes(entry, acls, self.acl_names.number, self.left_out))}
        return with_attributes(self._transaction, inode, attributes) if attributes or had else inode

    def _set_later(self, number: int, entry: Entry) -> None:
        """Keep an entry until all entries are there, because its ACL has names in it."""
        self._later_bytes += sum(map(len, entry.acls.values())) * _ACL_ENTRY_BYTES
        if self._later_bytes > _LATER_BYTES:
            raise UnsafePathError("the archive has more ACLs than can be kept in memory until everything is unpacked")
        self._later[number] = replace(entry, names=(), contents=(), xattrs={})

    def _set_acls(self, number: int, entry: Entry) -> None:
        inode = self._changes.inode(number)
        acls = possible_attributes(entry, access_control_lists(entry), self.acl_names.number, None)
        attributes = {**stored_attributes(self._transaction, inode), **self._stored(acls)}
        store(self._transaction, with_attributes(self._transaction, inode, attributes))

    @staticmethod
    def _stored(attributes: Mapping[bytes, bytes]) -> dict[StoredName, bytes]:
        return {stored: value for name, value in attributes.items() if (stored := stored_name(name)) is not None}

    def _read_path(self, path: str, limit: int) -> bytes:
        """Return a file's contents by its path below the directory, or else below the image; nothing if it is not a
        file.
        """
        tree = ExtTree(ExtFiles(self._transaction.fs))
        for top in (self._directory.rstrip("/"), ""):
            try:
                return tree.read(f"{top}/{path}", limit=limit)
            except StorageError as error:
                if error.errno not in _NO_FILE:
                    raise
        return b""
