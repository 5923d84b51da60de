# SPDX-License-Identifier: MIT
"""Files made, linked, renamed and removed: inodes, entries and link counts together, by inode and name.

Where there is no journal, an entry for a new file comes before its inode, and an inode is given back before its entry:
of an entry whose inode is not in use e2fsck -p is sure that it goes.
"""

from __future__ import annotations

import errno
import time

from pydiskimg.fs.ext4 import layout
from pydiskimg.fs.ext4.change.contents import Contents, Pieces, has_map, with_blocks
from pydiskimg.fs.ext4.change.directories import ChangedDirectory
from pydiskimg.fs.ext4.change.errors import UnfitFileError
from pydiskimg.fs.ext4.change.inodes import changed, new_inode, size_fields, store, times
from pydiskimg.fs.ext4.change.leaf import Slot
from pydiskimg.fs.ext4.change.refusals import orphans
from pydiskimg.fs.ext4.change.transaction import Transaction
from pydiskimg.fs.ext4.features import RoCompat
from pydiskimg.fs.ext4.inodes import StoredInode, read_inode

_LINK_MAX = 65000
_FAST_SYMLINK = 60
_MAX_DEPTH = 1 << 12  # of directories, as many as a path has components


class FileChanges:
    """Changes single files of a transaction's file system; now is in nanoseconds since 1970, None: the present.

    Raises UnfitFileError where a file does not allow a change, OutOfSpaceError for a full file system, NotBelievedError
    where it is damaged, StorageError as reading and writing do. The transaction is then to be restored.
    """

    def __init__(self, transaction: Transaction, *, now: int | None = None) -> None:
        self._transaction = transaction
        self._fs = transaction.fs
        self._now = now
        self._orphans = orphans(transaction.fs)

    def inode(self, number: int) -> StoredInode:
        """Return an inode that may be changed."""
        first = self._fs.superblock.number("s_first_ino") if self._fs.superblock.number("s_rev_level") else 11
        if number < first and number != layout.ROOT_INODE:
            raise UnfitFileError(f"is inode {number}, which belongs to the file system itself")
        if number in self._orphans:
            raise UnfitFileError(f"is inode {number}, which a crash left to be deleted or cut (e2fsck does that)")
        inode = read_inode(self._fs, number)
        if not inode.links or not inode.kind:
            raise self._fs.not_believed(f"inode {number} is in a directory and not in use")
        return inode

    def make(self, parent: StoredInode, name: bytes, mode: int) -> StoredInode:
        """Make an empty file, a directory, a FIFO or a socket; mode has the type. Return its inode."""
        inode = new_inode(self._transaction, parent, mode, self._time())
        if inode.kind == layout.DIRECTORY:
            directory = ChangedDirectory(self._transaction, inode)
            directory.begin(parent.number)
            inode = directory.inode
        elif inode.kind == layout.REGULAR_FILE:
            inode = Contents(self._transaction, inode).finished(0)
        self._enter(parent, name, inode)
        return inode

    def symlink(self, parent: StoredInode, name: bytes, target: bytes) -> StoredInode:
        """Make a symlink and return its inode."""
        if not target:
            raise UnfitFileError("would have an empty target", errno.ENOENT)
        if len(target) >= min(self._fs.geometry.block_size, 4096):
            raise UnfitFileError(f"would have a target of {len(target)} bytes", errno.ENAMETOOLONG)
        inode = new_inode(self._transaction, parent, layout.SYMLINK | 0o777, self._time())
        if len(target) < _FAST_SYMLINK:
            inode = changed(inode, {"i_block": target.ljust(_FAST_SYMLINK, b"\0"), **size_fields(len(target))})
        else:
            contents = Contents(self._transaction, inode)
            contents.add_metadata(target)
            inode = contents.finished(len(target))
        self._enter(parent, name, inode)
        return inode

    def set_contents(self, inode: StoredInode, data: Pieces, size: int) -> StoredInode:
        """Replace the contents of a regular file."""
        self._check_regular(inode)
        contents = Contents(self._transaction, inode)
        contents.cut(0)
        contents.add(data, size)
        return self._stored(contents.finished(size), "i_mtime", "i_ctime")

    def resize(self, inode: StoredInode, size: int, more: bytes = b"") -> StoredInode:
        """Cut a regular file after size bytes, or lengthen it with a hole; then put more at its end."""
        self._check_regular(inode)
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
        """Give a file that is not a directory one more name."""
        if inode.kind == layout.DIRECTORY:
            raise UnfitFileError("is a directory", errno.EPERM)
        if inode.links >= _LINK_MAX:
            raise UnfitFileError(f"has {inode.links} names already", errno.EMLINK)
        self._enter(parent, name, changed(inode, {"i_links_count": inode.links + 1, **self._times("i_ctime")}))

    def unlink(self, parent: StoredInode, name: bytes) -> None:
        """Take a name away, and with its last one the file; of a directory, which must be empty, also that."""
        directory, slot = self._entry(parent, name)
        inode = self.inode(slot.inode)
        is_directory = inode.kind == layout.DIRECTORY
        if is_directory and not ChangedDirectory(self._transaction, inode).is_empty():
            raise UnfitFileError("is a directory that is not empty", errno.ENOTEMPTY)
        self._drop(inode)
        directory.remove(name)
        self._touch(directory, links=-1 if is_directory else 0)

    def rename(self, parent: StoredInode, name: bytes, target: StoredInode, new_name: bytes) -> None:
        """Give a file another name, in the same or another directory, in place of what has it; as rename(2) does."""
        _, slot = self._entry(parent, name)
        inode = self.inode(slot.inode)
        is_directory = inode.kind == layout.DIRECTORY
        if is_directory:
            self._check_not_below(inode, target)
        old = ChangedDirectory(self._transaction, target).find(new_name)
        if old is not None and old.inode == inode.number:
            return
        gone = self._replaceable(old, is_directory=is_directory)
        is_moved = parent.number != target.number
        directory = ChangedDirectory(self._transaction, target)
        if gone is None:
            directory.insert(new_name, inode)
        else:
            directory.point(new_name, inode)
            self._drop(gone)
        gained = (is_directory and is_moved) - (gone is not None and is_directory)
        self._touch(directory, links=gained)
        source = ChangedDirectory(self._transaction, self.inode(parent.number))
        source.remove(name)
        self._touch(source, links=-1 if is_directory and is_moved else 0)
        inode = self._stored(self.inode(inode.number), "i_ctime")
        if is_directory and is_moved:
            moved = ChangedDirectory(self._transaction, inode)
            moved.point(b"..", target)

    def _replaceable(self, old: Slot | None, *, is_directory: bool) -> StoredInode | None:
        """Return the inode whose name a renamed file takes."""
        if old is None:
            return None
        gone = self.inode(old.inode)
        if gone.kind == layout.DIRECTORY:
            if not is_directory:
                raise UnfitFileError("is a directory", errno.EISDIR)
            if not ChangedDirectory(self._transaction, gone).is_empty():
                raise UnfitFileError("is a directory that is not empty", errno.ENOTEMPTY)
        elif is_directory:
            raise UnfitFileError("is not a directory", errno.ENOTDIR)
        return gone

    def _check_not_below(self, inode: StoredInode, target: StoredInode) -> None:
        """Refuse to move a directory into one below it."""
        number = target.number
        for _ in range(_MAX_DEPTH):
            if number == inode.number:
                raise UnfitFileError("would lie in itself", errno.EINVAL)
            if number == layout.ROOT_INODE:
                return
            slot = ChangedDirectory(self._transaction, self.inode(number)).find(b"..")
            if slot is None:
                break
            number = slot.inode
        raise self._fs.not_believed(f"the directories above inode {target.number} do not end at the root")

    def _enter(self, parent: StoredInode, name: bytes, inode: StoredInode) -> None:
        """Put a file into a directory, and store its inode."""
        self._check_changeable(parent)
        directory = ChangedDirectory(self._transaction, parent)
        directory.insert(name, inode)
        is_new_directory = inode.kind == layout.DIRECTORY
        self._touch(directory, links=1 if is_new_directory else 0)
        store(self._transaction, inode, is_last=True)

    def _entry(self, parent: StoredInode, name: bytes) -> tuple[ChangedDirectory, Slot]:
        self._check_changeable(parent)
        directory = ChangedDirectory(self._transaction, parent)
        slot = directory.find(name)
        if slot is None:
            raise UnfitFileError("does not exist", errno.ENOENT)
        return directory, slot

    def _touch(self, directory: ChangedDirectory, *, links: int) -> None:
        """Store the inode of a directory whose entries were changed."""
        inode = directory.inode
        count = inode.links
        if links and count != 1:  # 1: there are more than the field counts (dir_nlink)
            count += links
        if count >= _LINK_MAX:
            if RoCompat.DIR_NLINK not in self._fs.geometry.features:
                raise UnfitFileError("would be one directory too many there", errno.EMLINK)
            count = 1
        self._stored(changed(inode, {"i_links_count": count}), "i_mtime", "i_ctime")

    def _drop(self, inode: StoredInode) -> None:
        """Take one link of a file away, with its last one the file; a directory has one left when its name goes."""
        self._check_changeable(inode)
        is_directory = inode.kind == layout.DIRECTORY
        if inode.links > 1 and not is_directory:
            self._stored(changed(inode, {"i_links_count": inode.links - 1}), "i_ctime")
            return
        if has_map(inode):
            contents = Contents(self._transaction, inode)
            contents.cut(0)
            inode = contents.finished(0)
        gone = changed(
            with_blocks(self._transaction, inode, 0),
            {"i_links_count": 0, "i_dtime": self._time() // 1_000_000_000 & 0xFFFFFFFF, **size_fields(0)},
        )
        store(self._transaction, gone)
        self._transaction.inodes.free(inode.number, is_directory=is_directory)

    def _stored(self, inode: StoredInode, *names: str) -> StoredInode:
        inode = changed(inode, self._times(*names))
        store(self._transaction, inode)
        return inode

    def _check_regular(self, inode: StoredInode) -> None:
        if inode.kind != layout.REGULAR_FILE:
            number = errno.EISDIR if inode.kind == layout.DIRECTORY else errno.EINVAL
            raise UnfitFileError("is not a regular file", number)
        self._check_changeable(inode)

    def _check_changeable(self, inode: StoredInode) -> None:
        for flag, what in _NOT_CHANGED:
            if inode.flags & flag:
                raise UnfitFileError(what, errno.EPERM)

    def _times(self, *names: str) -> dict[str, int | bytes]:
        return times(self._time(), *names)

    def _time(self) -> int:
        return time.time_ns() if self._now is None else self._now


_NOT_CHANGED = (
    (layout.IMMUTABLE_FLAG, "is immutable (chattr +i)"),
    (layout.APPEND_FLAG, "is append-only (chattr +a)"),
    (layout.ENCRYPT_FLAG, "is encrypted"),
    (layout.VERITY_FLAG, "is protected by fs-verity"),
    (layout.EA_INODE_FLAG, "is the value of an extended attribute"),
)
