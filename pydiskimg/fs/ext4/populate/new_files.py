# SPDX-License-Identifier: MIT
"""The files of one new file system by their inodes: attributes from entries, and contents."""

from __future__ import annotations

import errno
import os
import stat
from dataclasses import replace

from pydiskimg.files.acl import Lookup, mode_with
from pydiskimg.files.attributes import ACL_ACCESS, AttributesLeftOut
from pydiskimg.files.entry import Entry
from pydiskimg.fs.ext4 import layout
from pydiskimg.fs.ext4.features import RoCompat
from pydiskimg.fs.ext4.inode_fields import device_pointer, largest_file, possible_flags
from pydiskimg.fs.ext4.inodes import StoredInode
from pydiskimg.fs.ext4.new_file_system import NewFileSystem
from pydiskimg.fs.ext4.populate.attributes import NO_ATTRIBUTES, encoded
from pydiskimg.fs.ext4.populate.blocks import FileBlocks
from pydiskimg.fs.ext4.populate.entry_attributes import access_control_lists
from pydiskimg.fs.ext4.populate.inode_record import Owned, Stored, inode_record
from pydiskimg.fs.ext4.populate.inode_table import NewInodeTable
from pydiskimg.fs.ext4.tree.files import RefusedError
from pydiskimg.records import Value

SECOND = 1 << 31
"""The offset of the inode numbers of a second file system that is filled together with the first.

Each used inode has a name, and names take at least 16 bytes of at most 16 GiB, so that there are fewer inodes.
"""
MOST_LINKS = 65000  # of a file, and of a directory, which with dir_nlink is then no longer counted
_OLD_MOST_LINKS = 32000  # ext2 and ext3
_FAST_SYMLINK = 60  # bytes; shorter ones are in the inode
_PATH_MAX = 4096


class NewFiles:
    """Makes the files of one new file system, whose inodes it numbers from first on; it begins with root and
    lost+found.

    Raises FullError if it is full, RefusedError and OSError for operations that Linux would refuse, UnsafePathError for
    attributes that cannot be kept, and as reading contents and writing do.
    """

    def __init__(self, new: NewFileSystem, first: int = 0) -> None:
        self.new = new
        self.root, self.lost_found = first + layout.ROOT_INODE, first + layout.LOST_FOUND_INODE
        self.blocks = FileBlocks(new)
        self.inodes = NewInodeTable(new.disk, new.placement, new.checksums, new.writer)
        self.counts_all = RoCompat.DIR_NLINK not in new.geometry.features
        self.most_links = _OLD_MOST_LINKS if self.counts_all else MOST_LINKS
        self._first = first
        self._now = new.identity.now
        self._largest = largest_file(new.geometry.features, self.blocks.block_size)
        self._begin()

    def holds(self, number: int) -> bool:
        """True if the inode is in this file system."""
        return self._first <= number < self._first + SECOND

    def local(self, number: int) -> int:
        """Return the number of an inode in the file system itself."""
        return number - self._first

    def allocate(self, *, is_directory: bool) -> int:
        return self.inodes.new(is_directory=is_directory) + self._first

    def store(self, number: int, entry: Entry) -> Stored:
        """Write the contents of an entry and return their location."""
        if entry.kind == stat.S_IFREG:
            if entry.size > self._largest:
                raise RefusedError(f"has {entry.size} bytes, and a file here at most {self._largest}", errno.EFBIG)
            return self.blocks.write_file(self.local(number), entry.contents, entry.size)
        if entry.kind == stat.S_IFLNK:
            return self._store_target(number, entry.link)
        if entry.kind not in (stat.S_IFCHR, stat.S_IFBLK):
            return Stored()
        return Stored(device_pointer(*entry.device))

    def _store_target(self, number: int, target: bytes) -> Stored:
        if not target:
            raise OSError(errno.ENOENT, os.strerror(errno.ENOENT))
        longest = min(self.blocks.block_size, _PATH_MAX) - 1
        if len(target) > longest:
            text = f"has a target of {len(target)} bytes, and a symlink here at most {longest}"
            raise RefusedError(text, errno.ENAMETOOLONG)
        if len(target) < _FAST_SYMLINK:
            return Stored(target, len(target))
        return self.blocks.write_file(self.local(number), [(0, memoryview(target))], len(target))

    def put(self, number: int, entry: Entry, stored: Stored, lookup: Lookup, left_out: AttributesLeftOut) -> bool:
        """Put an inode with all attributes of an entry whose contents were written.

        False: its ACLs have names in them, and put_attributes() must follow once the tree's own lists exist.
        """
        kind_and_mode = entry.kind | (0o777 if entry.kind == stat.S_IFLNK else entry.mode & 0o7777)
        flags = possible_flags(entry.kind, entry.flags)
        owned = Owned(kind_and_mode, entry.uid, entry.gid, entry.atime_ns, entry.mtime_ns, flags)
        if not entry.xattrs and not entry.acls:
            self._put(number, owned, stored)
            return True
        acls = access_control_lists(entry)
        if ACL_ACCESS in acls:
            owned.mode = mode_with(owned.mode, acls[ACL_ACCESS])
        found = encoded(entry, {} if entry.acls_have_names else acls, lookup, self.blocks.block_size, left_out)
        if entry.acls_have_names:
            found = NO_ATTRIBUTES
        block = self.blocks.write_attributes(found.block) if found.block else 0
        record = inode_record(owned, stored, 1, found, block, self._now, self.blocks.block_size)
        self.inodes.put(self.local(number), record)
        return not entry.acls_have_names

    def put_attributes(self, number: int, entry: Entry, lookup: Lookup) -> None:
        """Set the attributes and ACLs of an entry on an inode that put() has put."""
        found = encoded(entry, access_control_lists(entry), lookup, self.blocks.block_size, None)
        values: dict[str, Value] = {"i_xattrs": found.in_inode}
        inode = layout.INODE.unpack(self.inodes.get(self.local(number)))
        if found.block:
            block = self.blocks.write_attributes(found.block)
            sectors = inode["i_blocks_lo"] | inode["i_blocks_high"] << 32
            sectors += self.blocks.block_size // 512
            values |= {"i_file_acl_lo": block & 0xFFFFFFFF, "i_file_acl_high": block >> 32}
            values |= {"i_blocks_lo": sectors & 0xFFFFFFFF, "i_blocks_high": sectors >> 32}
        self.inodes.patch(self.local(number), values)

    def put_missing(self, number: int, mode: int) -> None:
        """Put the inode of a directory without an entry; it belongs to root and has the present time."""
        now = self._now * 10**9
        self._put(number, Owned(layout.DIRECTORY | mode, 0, 0, now, now), Stored())

    def own_directory(self, number: int, entry: Entry) -> Entry:
        """Free the attributes of a directory; return its entry with those attributes that have other names."""
        inode = self.inodes.get(self.local(number))
        if not any(inode):  # it is new
            return entry
        had = self.blocks.attributes(self.local(number), inode)
        fields = layout.INODE.unpack(inode)
        self.blocks.give_back_attributes(int(fields["i_file_acl_lo"] | fields["i_file_acl_high"] << 32))
        return replace(entry, xattrs={**had, **entry.xattrs}) if had else entry

    def add_link(self, number: int, more: int) -> None:
        """Count one name of a file more, or less. Raises RefusedError if it has as many as it can."""
        links = self.links(number)
        if more > 0 and links >= self.most_links:
            raise RefusedError(f"its file already has {links} names, the most possible", errno.EMLINK)
        self.inodes.patch(self.local(number), {"i_links_count": links + more})

    def links(self, number: int) -> int:
        return int(layout.INODE.unpack(self.inodes.get(self.local(number)))["i_links_count"])

    def remove(self, number: int, file_type: int) -> None:
        """Free an inode and its blocks."""
        inode = self.inodes.get(self.local(number))
        is_symlink = file_type == layout.FILE_TYPES[layout.SYMLINK]
        has_block = is_symlink and layout.INODE.unpack(inode)["i_size_lo"] >= _FAST_SYMLINK
        is_mapped = file_type == layout.FILE_TYPES[layout.REGULAR_FILE] or has_block
        self.blocks.give_back(self.local(number), inode, is_mapped=is_mapped)
        self.inodes.give_back(self.local(number), is_directory=file_type == layout.FILE_TYPES[layout.DIRECTORY])

    def target(self, number: int) -> bytes:
        """Return the target of a symlink."""
        inode = self.inodes.get(self.local(number))
        fields = layout.INODE.unpack(inode)
        size = int(fields["i_size_lo"])
        if size < _FAST_SYMLINK:
            return bytes(fields["i_block"][:size])
        return self.blocks.read(self.local(number), inode, _PATH_MAX)

    def read(self, number: int, limit: int) -> bytes:
        """Return the contents of a regular file, at most limit bytes."""
        return self.blocks.read(self.local(number), self.inodes.get(self.local(number)), limit)

    def stored(self, number: int) -> StoredInode:
        """Return an inode to be read, with its number here."""
        local = self.local(number)
        found = self.blocks.stored(local, self.inodes.get(local))
        return StoredInode(number, found.block, found.offset, found.raw, found.seed)

    def entry(self, number: int, path: bytes) -> Entry:
        """Return a file that is not a directory as an entry of this path."""
        return self.blocks.entry(self.local(number), self.inodes.get(self.local(number)), path)

    def _begin(self) -> None:
        for number, inode in self.new.inodes:
            if any(inode):
                self.inodes.put(number, inode)
                # the inode of bad blocks has none
                self.inodes.patch(number, {"i_extra_isize": layout.INODE_EXTRA_SIZE})
        for number in (layout.ROOT_INODE, layout.LOST_FOUND_INODE):
            self.inodes.count_directory(number, 1)
        self.put_missing(self.root, 0o755)
        self.put_missing(self.lost_found, 0o700)

    def _put(self, number: int, owned: Owned, stored: Stored) -> None:
        record = inode_record(owned, stored, 1, NO_ATTRIBUTES, 0, self._now, self.blocks.block_size)
        self.inodes.put(self.local(number), record)
