# SPDX-License-Identifier: MIT
"""Create, link, rename and remove files: inodes, entries and link counts together, by inode and name.

Without a journal, the entry of a new file is written before its inode, and an inode is freed before its entry is
removed: e2fsck -p removes an entry whose inode is not in use (ADR 0123).
"""

from __future__ import annotations

import errno
import time
from collections.abc import Mapping

from pydiskimg.fs.ext4 import layout
from pydiskimg.fs.ext4.acl import acl_with_mode, is_minimal_acl, mode_of_acl, stored_acl
from pydiskimg.fs.ext4.change.attributes import (
    inline_data,
    outlined,
    stored_attributes,
    with_attributes,
    without_attributes,
)
from pydiskimg.fs.ext4.change.contents import Contents, Pieces, block_fields, has_map
from pydiskimg.fs.ext4.change.directories import ChangedDirectory
from pydiskimg.fs.ext4.change.inodes import changed, load, new_inode, store, value_references
from pydiskimg.fs.ext4.change.put_inode import with_device, with_target
from pydiskimg.fs.ext4.change.quota import keep_quota
from pydiskimg.fs.ext4.change.transaction import Transaction, WriteOrder
from pydiskimg.fs.ext4.features import RoCompat
from pydiskimg.fs.ext4.inode_fields import owner_fields, size_fields, time_fields
from pydiskimg.fs.ext4.inodes import StoredInode
from pydiskimg.fs.ext4.tree.files import RefusedError
from pydiskimg.fs.ext4.xattr_writer import stored_name
from pydiskimg.fs.ext4.xattrs import StoredName

_DEVICES = (layout.CHARACTER_DEVICE, layout.BLOCK_DEVICE)
_LINK_MAX = 65000
_ACCESS_ACL, _DEFAULT_ACL = (2, b""), (3, b"")
_IS_DIRECTORY = "is a directory", errno.EISDIR
_NO_DIRECTORY = "is not a directory", errno.ENOTDIR
_MAX_DEPTH = 1 << 12  # parents of a directory, as many as a path can have components


class FileChanges:
    """Changes single files of a transaction's file system; now is in nanoseconds since 1970, None: the present.

    Raises RefusedError if a file does not allow a change, OutOfSpaceError for a full file system, NotBelievedError for
    a damaged one, StorageError as reading and writing do. The caller must then restore the transaction.
    """

    def __init__(self, transaction: Transaction, *, now: int | None = None) -> None:
        self._transaction = transaction
        self._fs = transaction.fs
        self._now = now
        keep_quota(transaction)

    def inode(self, number: int) -> StoredInode:
        """Return an inode that may be changed."""
        if number < self._fs.superblock.first_inode and number != layout.ROOT_INODE:
            raise RefusedError(f"is inode {number}, which belongs to the file system itself", errno.EPERM)
        inode = load(self._transaction, number)
        if not inode.links or not inode.kind:
            raise self._fs.not_believed(f"inode {number} is in a directory and not in use")
        return inode

    def make(self, parent: StoredInode, name: bytes, mode: int, *, device: tuple[int, int] = (0, 0)) -> StoredInode:
        """Make an empty file, a directory, a device, a FIFO or a socket; mode includes the type. Return its inode.

        It inherits from the directory: group, project, flags and the default ACL, with the bits of mode.
        """
        inode = self.heir(parent, mode)
        if inode.kind == layout.DIRECTORY:
            directory = ChangedDirectory(self._transaction, inode)
            directory.begin(parent.number)
            inode = directory.inode
        elif inode.kind == layout.REGULAR_FILE:
            inode = Contents(self._transaction, inode).finished(0)
        elif inode.kind in _DEVICES:
            inode = with_device(inode, device)
        self._enter(parent, name, inode)
        return inode

    def heir(self, parent: StoredInode, mode: int) -> StoredInode:
        """Return a new inode with inherited attributes, which has neither blocks nor a name yet and is not stored."""
        inode = self.new(parent, mode)
        inherited = self._inherited(parent, inode)
        return with_attributes(self._transaction, inode, inherited) if inherited else inode

    def write_new(self, parent: StoredInode, mode: int, data: bytes) -> StoredInode:
        """Return heir() as a stored regular file with data."""
        contents = Contents(self._transaction, self.heir(parent, mode))
        contents.add([(0, data)], len(data))
        inode = contents.finished(len(data))
        store(self._transaction, inode, order=WriteOrder.LAST)
        return inode

    def new(self, parent: StoredInode, mode: int) -> StoredInode:
        """Return heir() without ACLs."""
        return new_inode(self._transaction, parent, mode, self.time())

    def _inherited(self, parent: StoredInode, inode: StoredInode) -> dict[StoredName, bytes]:
        default = stored_attributes(self._transaction, parent).get(_DEFAULT_ACL)
        if default is None:
            return {}
        found = {_DEFAULT_ACL: default} if inode.kind == layout.DIRECTORY else {}
        if not is_minimal_acl(default):
            found[_ACCESS_ACL] = acl_with_mode(default, inode.mode)
        return found

    def make_copy(self, parent: StoredInode, name: bytes, old: StoredInode) -> StoredInode:
        """Replace old under one of its names by an empty file with its owner, mode, flags and attributes."""
        self._check_regular(old)
        self.check_changeable(parent)
        inode = self.new(parent, old.mode)
        inode = changed(inode, {"i_mode": old.mode, "i_projid": old.project, **owner_fields(old.uid, old.gid)})
        inode = changed(inode, {"i_flags": old.flags & layout.CHATTR_FLAGS & ~layout.EXTENTS_FLAG})
        inode = with_attributes(self._transaction, inode, stored_attributes(self._transaction, old))
        inode = Contents(self._transaction, inode).finished(0)
        directory = ChangedDirectory(self._transaction, parent)
        directory.point(name, inode)
        self._touch(directory, links=0)
        self.drop(old)
        store(self._transaction, inode, order=WriteOrder.LAST)
        return inode

    def symlink(self, parent: StoredInode, name: bytes, target: bytes) -> StoredInode:
        """Make a symlink and return its inode."""
        inode = with_target(self._transaction, self.new(parent, layout.SYMLINK | 0o777), target)
        self._enter(parent, name, inode)
        return inode

    def set_contents(self, inode: StoredInode, data: Pieces, size: int) -> StoredInode:
        """Replace the contents of a regular file."""
        self._check_regular(inode)
        contents = Contents(self._transaction, outlined(self._transaction, inode))
        contents.cut(0)
        contents.add(data, size)
        return self._stored(contents.finished(size), "i_mtime", "i_ctime")

    def resize(self, inode: StoredInode, size: int, more: bytes = b"") -> StoredInode:
        """Truncate a regular file at size bytes, or extend it with a hole; then append data."""
        self._check_regular(inode)
        if inode.flags & layout.INLINE_DATA_FLAG:
            inside = inode.i_block + inline_data(self._transaction, inode)
            kept_bytes = inside[: min(size, inode.size)]
            return self.set_contents(inode, [(0, kept_bytes), (size, more)], size + len(more))
        contents = Contents(self._transaction, inode)
        kept = min(size, inode.size)
        unit = self._fs.geometry.cluster_blocks * self._fs.geometry.block_size
        tail = contents.cut(kept)
        pieces = [(kept - kept % unit, tail), (size, more)]
        if size // unit == kept // unit:
            pieces = [(kept - kept % unit, tail.ljust(size % unit, b"\0") + more)] if tail or more else []
        contents.add(pieces, size + len(more))
        return self._stored(contents.finished(size + len(more)), "i_mtime", "i_ctime")

    def link(self, parent: StoredInode, name: bytes, inode: StoredInode) -> None:
        """Give a file that is not a directory another name."""
        self._enter(parent, name, self._with_one_more_link(inode))

    def one_more_link(self, inode: StoredInode) -> StoredInode:
        """Count another name of a file, which is added elsewhere."""
        self.check_changeable(inode)
        inode = self._with_one_more_link(inode)
        store(self._transaction, inode)
        return inode

    def _with_one_more_link(self, inode: StoredInode) -> StoredInode:
        if inode.kind == layout.DIRECTORY:
            raise RefusedError("a directory cannot have another name", errno.EPERM)
        if inode.links >= _LINK_MAX:
            raise RefusedError(f"already has {inode.links} names", errno.EMLINK)
        return changed(inode, {"i_links_count": inode.links + 1, **self._times("i_ctime")})

    def unlink(self, parent: StoredInode, name: bytes, *, directory: bool) -> None:
        """Remove a name, and with its last one the file; with directory only an empty directory."""
        above, number = self._entry(parent, name)
        inode = self.inode(number)
        is_directory = inode.kind == layout.DIRECTORY
        if is_directory != directory:
            raise RefusedError(*(_IS_DIRECTORY if is_directory else _NO_DIRECTORY))
        if is_directory:
            self._check_empty(inode)
        self.drop(inode)
        above.remove(name)
        self._touch(above, links=-1 if is_directory else 0)

    def rename(self, parent: StoredInode, name: bytes, target: StoredInode, new_name: bytes) -> None:
        """Rename a file, in the same or another directory, replacing an existing file; as rename(2) does."""
        _, number = self._entry(parent, name)
        inode = self.inode(number)
        self.check_changeable(inode)
        self.check_changeable(target)
        is_directory = inode.kind == layout.DIRECTORY
        if is_directory:
            self._check_not_below(inode, target)
        directory = ChangedDirectory(self._transaction, target)
        old = directory.find(new_name)
        if old == number:
            return
        gone = self._replaceable(old, is_directory=is_directory)
        is_moved = parent.number != target.number
        if not is_moved and not self._transaction.has_journal:
            directory.rename(name, new_name, inode)
            self._touch(directory, links=-1 if gone is not None and is_directory else 0)
            if gone is not None:
                self.drop(gone)
            self._set_parent(self.inode(number), None)
            return
        if gone is None:
            directory.insert(new_name, inode)
        else:
            directory.point(new_name, inode)
            self.drop(gone)
        self._touch(directory, links=(is_directory and is_moved) - (gone is not None and is_directory))
        source = ChangedDirectory(self._transaction, self.inode(parent.number))
        source.remove(name)
        self._touch(source, links=-1 if is_directory and is_moved else 0)
        self._set_parent(self.inode(number), target.number if is_directory and is_moved else None)

    def set_mode(self, inode: StoredInode, mode: int) -> StoredInode:
        """Change the twelve permission bits, and with them those of an ACL, as chmod(2) does."""
        self.check_changeable(inode)
        attributes = stored_attributes(self._transaction, inode)
        acl = attributes.get(_ACCESS_ACL)
        if acl is not None:
            inode = with_attributes(self._transaction, inode, {**attributes, _ACCESS_ACL: acl_with_mode(acl, mode)})
        return self._stored(changed(inode, {"i_mode": inode.kind | mode & 0o7777}), "i_ctime")

    def set_owner(self, inode: StoredInode, uid: int, gid: int) -> StoredInode:
        """Change only owner and group: bits and capabilities that chown(2) would clear stay."""
        self.check_changeable(inode)
        return self._stored(changed(inode, owner_fields(uid, gid)), "i_ctime")

    def set_times(self, inode: StoredInode, atime: int, mtime: int) -> StoredInode:
        """Change the times of the last access and modification, in nanoseconds since 1970."""
        self.check_changeable(inode)
        return self._stored(
            changed(inode, {**time_fields(atime, "i_atime"), **time_fields(mtime, "i_mtime")}), "i_ctime"
        )

    def set_attribute(self, inode: StoredInode, name: bytes, value: bytes | None) -> StoredInode:
        """Set an extended attribute, as Linux shows it; None removes it. An ACL also changes the permission bits."""
        self.check_changeable(inode)
        stored = stored_name(name)
        if stored is None or len(stored[1]) > layout.NAME_MAX or b"\0" in name:
            raise RefusedError("cannot have an extended attribute of this name", errno.EOPNOTSUPP)
        attributes = stored_attributes(self._transaction, inode)
        if value is None and attributes.pop(stored, None) is None:
            raise RefusedError("does not have this extended attribute", errno.ENODATA)
        if value is not None:
            value, mode = self._acl(inode, stored, value) if name.startswith(b"system.") else (value, inode.mode)
            inode = changed(inode, {"i_mode": mode})
            attributes[stored] = value
        if inode.flags & layout.INLINE_DATA_FLAG:
            inode = self._moved_out(inode)
        return self._stored(with_attributes(self._transaction, inode, attributes), "i_ctime")

    def _acl(self, inode: StoredInode, stored: StoredName, value: bytes) -> tuple[bytes, int]:
        """Return an ACL in its stored form, and the mode that it corresponds to."""
        try:
            acl = stored_acl(value)
        except ValueError as error:
            raise RefusedError(f"cannot have this ACL: {error}", errno.EINVAL) from error
        if stored != _ACCESS_ACL:
            if inode.kind != layout.DIRECTORY:
                raise RefusedError("is not a directory, and cannot have a default ACL", errno.EACCES)
            return acl, inode.mode
        return acl, inode.mode & ~0o777 | mode_of_acl(acl)

    def _moved_out(self, inode: StoredInode) -> StoredInode:
        """Move inline contents of an inode into blocks."""
        if inode.kind == layout.DIRECTORY:
            directory = ChangedDirectory(self._transaction, inode)
            directory.move_below(directory.parent())
            return directory.inode
        inside = (inode.i_block + inline_data(self._transaction, inode))[: inode.size]
        contents = Contents(self._transaction, outlined(self._transaction, inode))
        contents.add([(0, inside)], inode.size)
        return contents.finished(inode.size)

    def _set_parent(self, inode: StoredInode, parent: int | None) -> None:
        """Store a renamed inode; parent is its new parent directory, None if that did not change."""
        if parent is None:
            self._stored(inode, "i_ctime")
            return
        moved = ChangedDirectory(self._transaction, inode)
        moved.move_below(parent)
        self._stored(moved.inode, "i_ctime")

    def _replaceable(self, old: int | None, *, is_directory: bool) -> StoredInode | None:
        """Return the inode whose name a renamed file takes over."""
        if old is None:
            return None
        gone = self.inode(old)
        if gone.kind == layout.DIRECTORY:
            if not is_directory:
                raise RefusedError("cannot replace a directory", errno.EISDIR)
            self._check_empty(gone, "cannot replace a directory that is not empty")
        elif is_directory:
            raise RefusedError("is a directory and cannot replace another file", errno.ENOTDIR)
        return gone

    def _check_empty(self, inode: StoredInode, problem: str = "is a directory that is not empty") -> None:
        if not ChangedDirectory(self._transaction, inode).is_empty():
            raise RefusedError(problem, errno.ENOTEMPTY)

    def _check_not_below(self, inode: StoredInode, target: StoredInode) -> None:
        """Refuse to move a directory into one below it."""
        number = target.number
        for _ in range(_MAX_DEPTH):
            if number == inode.number:
                raise RefusedError("would be inside itself", errno.EINVAL)
            if number == layout.ROOT_INODE:
                return
            number = ChangedDirectory(self._transaction, self.inode(number)).parent()
        raise self._fs.not_believed(f"the parents of inode {target.number} do not lead to the root")

    def change_names(
        self,
        directory: int,
        names: Mapping[bytes, StoredInode | None],
        *,
        parent: int | None = None,
        links: int = 0,
        keeps_times: bool = False,
    ) -> None:
        """Change names in a directory as ChangedDirectory does; its link count grows by links, its time is the present.

        The files that the names referred to are handled elsewhere.
        """
        inode = self.inode(directory)
        self.check_changeable(inode)
        changed_directory = ChangedDirectory(self._transaction, inode)
        changed_directory.change(names, parent)
        order = WriteOrder.LAST if None in names.values() else WriteOrder.OTHERS
        self._touch(changed_directory, links=links, keeps_times=keeps_times, order=order)

    def directory(self, inode: StoredInode) -> ChangedDirectory:
        return ChangedDirectory(self._transaction, inode)

    def _enter(self, parent: StoredInode, name: bytes, inode: StoredInode) -> None:
        """Add a file to a directory, and store its inode."""
        self.check_changeable(parent)
        directory = ChangedDirectory(self._transaction, parent)
        directory.insert(name, inode)
        is_new_directory = inode.kind == layout.DIRECTORY
        self._touch(directory, links=1 if is_new_directory else 0)
        store(self._transaction, inode, order=WriteOrder.LAST)

    def _entry(self, parent: StoredInode, name: bytes) -> tuple[ChangedDirectory, int]:
        self.check_changeable(parent)
        directory = ChangedDirectory(self._transaction, parent)
        number = directory.find(name)
        if number is None:
            raise RefusedError("does not exist", errno.ENOENT)
        return directory, number

    def _touch(
        self,
        directory: ChangedDirectory,
        *,
        links: int,
        keeps_times: bool = False,
        order: WriteOrder = WriteOrder.OTHERS,
    ) -> None:
        """Store the inode of a directory whose entries were changed; keeps_times: but for its ctime."""
        inode = directory.inode
        times = self._times("i_ctime") if keeps_times else self._times("i_mtime", "i_ctime")
        inode = changed(inode, {"i_links_count": self.links_with(inode, links), **times})
        store(self._transaction, inode, order=max(order, directory.inode_order))

    def links_with(self, inode: StoredInode, more: int) -> int:
        """Return the link count of a directory's inode after it grows by more."""
        count = inode.links
        if more and count != 1:  # 1: there are more links than the field can count (dir_nlink)
            count += more
        if count < _LINK_MAX:
            return count
        if RoCompat.DIR_NLINK not in self._fs.geometry.features:
            raise RefusedError("would be one subdirectory more than possible there", errno.EMLINK)
        return 1

    def drop(self, inode: StoredInode) -> None:
        """Remove one link of a file, and with its last one the file; a directory has one left without its name."""
        self.check_changeable(inode)
        is_directory = inode.kind == layout.DIRECTORY
        if inode.links > 1 and not is_directory:
            self._stored(changed(inode, {"i_links_count": inode.links - 1}), "i_ctime")
            return
        self.release(inode)

    def release(self, inode: StoredInode) -> None:
        """Free the blocks and the inode of a file that has no name any more."""
        mapped = Contents(self._transaction, inode).given_back() if has_map(inode) else {}
        inode = without_attributes(self._transaction, inode)
        values = {"i_links_count": 0, "i_dtime": self.time() // 1_000_000_000 & 0xFFFFFFFF, **size_fields(0), **mapped}
        values |= block_fields(self._transaction, int(values.get("i_flags", inode.flags)), 0)
        gone = changed(inode, values)
        store(self._transaction, gone)
        self._transaction.usage.released(gone)
        self._transaction.inodes.free(inode.number, is_directory=inode.kind == layout.DIRECTORY)

    def _stored(self, inode: StoredInode, *names: str) -> StoredInode:
        inode = changed(inode, self._times(*names))
        store(self._transaction, inode)
        return inode

    def _check_regular(self, inode: StoredInode) -> None:
        if inode.kind != layout.REGULAR_FILE:
            number = errno.EISDIR if inode.kind == layout.DIRECTORY else errno.EINVAL
            raise RefusedError("is not a regular file", number)
        self.check_changeable(inode)
        value_references(self._transaction.fs, inode)  # raises before contents are written

    def check_changeable(self, inode: StoredInode) -> None:
        """Raise RefusedError for a file that must not be changed."""
        for flag, what in _NOT_CHANGED:
            if inode.flags & flag:
                raise RefusedError(what, errno.EPERM)

    def _times(self, *names: str) -> dict[str, int | bytes]:
        return time_fields(self.time(), *names)

    def time(self) -> int:
        """Return the time of a change, in nanoseconds since 1970."""
        return time.time_ns() if self._now is None else self._now


_NOT_CHANGED = (
    (layout.IMMUTABLE_FLAG, "is immutable (chattr +i)"),
    (layout.APPEND_FLAG, "is append-only (chattr +a)"),
    (layout.ENCRYPT_FLAG, "is encrypted"),
    (layout.VERITY_FLAG, "is protected by fs-verity"),
    (layout.EA_INODE_FLAG, "is the value of an extended attribute"),
)
