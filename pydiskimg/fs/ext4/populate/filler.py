# SPDX-License-Identifier: MIT
"""Entries made into files of a new file system, as files/writer.py makes them below a directory.

A file's contents, map and attributes are written as it arrives; directories, which grow until the last entry, and ACLs
with names, which the tree's own lists have the numbers of, at the end.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Sequence
from dataclasses import replace

from pydiskimg.errors import DiskImageError, NoSpaceError
from pydiskimg.files.acl import AclNames, mode_with
from pydiskimg.files.attributes import ACL_ACCESS, AttributesLeftOut
from pydiskimg.files.entry import Entry
from pydiskimg.files.resolve import UnsafePathError, check_length
from pydiskimg.files.writer import NAME_TAKEN, NameTakenError, Wording
from pydiskimg.fs.ext4 import layout
from pydiskimg.fs.ext4.directories import LOST_FOUND
from pydiskimg.fs.ext4.features import RoCompat
from pydiskimg.fs.ext4.inode_fields import device_pointer, largest_file, possible_flags
from pydiskimg.fs.ext4.new_file_system import NewFileSystem
from pydiskimg.fs.ext4.populate.attributes import NO_ATTRIBUTES, encoded
from pydiskimg.fs.ext4.populate.blocks import FileBlocks
from pydiskimg.fs.ext4.populate.entry_attributes import access_control_lists
from pydiskimg.fs.ext4.populate.inode_record import Owned, Stored, inode_record
from pydiskimg.fs.ext4.populate.inode_table import NewInodeTable
from pydiskimg.fs.ext4.populate.names import Named, NameTable
from pydiskimg.fs.ext4.populate.paths import NewName, PathResolver
from pydiskimg.fs.ext4.populate.space import FullError
from pydiskimg.records import Value
from pydiskimg.text import printable

MOST_LINKS = 65000  # of a file, and with dir_nlink of a directory before it counts no more
_OLD_MOST_LINKS = 32000  # ext2 and ext3
_FAST_SYMLINK = 60  # bytes; shorter ones are in the inode
_PATH_MAX = 4096
_MISSING_MODE = 0o755
_LATER_BYTES = 50 << 20  # of ACLs and attributes that wait for the last entry
_ACL_ENTRY_BYTES = 250
_DIRECTORY = layout.FILE_TYPES[layout.DIRECTORY]
_SYMLINK = layout.FILE_TYPES[layout.SYMLINK]
_MAPPED = {layout.FILE_TYPES[kind] for kind in (layout.REGULAR_FILE, layout.DIRECTORY)}


class Filler:
    """Fills a new file system; blocks, inodes and names are what it has so far.

    What is in an entry's place is replaced, but for a directory in a directory's; without replacing it is an error,
    but for /lost+found. Call finish() after the last entry.
    """

    def __init__(self, new: NewFileSystem, wording: Wording, *, replacing: bool) -> None:
        self.left_out = AttributesLeftOut()
        self.flags_left_out = 0
        self.blocks = FileBlocks(new)
        self.inodes = NewInodeTable(new.disk, new.placement, new.checksums, new.writer)
        self.names = NameTable()
        self.paths = PathResolver(self.names, self._read_link, self._make_missing)
        self.subdirectories: dict[int, int] = {}
        self._now = new.identity.now
        self._wording = wording
        self._replacing = replacing
        self._largest = largest_file(new.geometry.features, self.blocks.block_size)
        self._counts_all = RoCompat.DIR_NLINK not in new.geometry.features
        self._most_links = _OLD_MOST_LINKS if self._counts_all else MOST_LINKS
        self._lists = AclNames(self._read_path)
        self._later: dict[int, Entry] = {}
        self._later_bytes = 0
        self._begin(new)

    def make(self, entry: Entry) -> None:
        """Make one entry. Raises what its contents raise, the wording's errors, and as writing does."""
        try:
            if self._replacing:
                check_length(entry.path)
            name = self.paths.locate(entry.path)
            if name:
                self._make_below(entry, name)
            elif entry.is_directory:
                self._own_directory(layout.ROOT_INODE, entry)
            else:
                raise UnsafePathError("it names the directory that the archive is unpacked into, but is none")
        except ValueError as error:
            raise self._wording.refused(entry, error) from error
        except OSError as error:
            raise self.failed(entry, error) from error

    def finish(self) -> None:
        """Give the files whose ACLs have names in them their attributes."""
        for number, entry in self._later.items():
            try:
                self._finish(number, entry)
            except ValueError as error:
                raise self._wording.refused(entry, error) from error
            except OSError as error:
                raise self.failed(entry, error) from error

    def failed(self, entry: Entry, error: OSError) -> DiskImageError:
        """Return the error for an entry that could not be made."""
        if not isinstance(error, FullError):
            return self._wording.failed(entry, error)
        text = f"{self._wording.where(entry)}: cannot be {self._wording.done}: {error.reason}; use a larger disk"
        return NoSpaceError(text, errno=error.errno, filename=self._wording.where(entry), device=0)

    def path_of(self, directory: int) -> bytes:
        """Return the path of a directory."""
        parts: list[bytes] = []
        while directory != layout.ROOT_INODE:
            above = self.paths.above[directory]
            parts += [name for name, named in self.names.in_directory(above) if named.inode == directory]
            directory = above
        return b"/" + b"/".join(reversed(parts))

    def _begin(self, new: NewFileSystem) -> None:
        for number, inode in new.inodes:
            if any(inode):
                self.inodes.put(number, inode)
                self.inodes.patch(number, {"i_extra_isize": layout.INODE_EXTRA_SIZE})  # that of bad blocks has none
        for number in (layout.ROOT_INODE, layout.LOST_FOUND_INODE):
            self.inodes.count_directory(number, 1)
        owned = Owned(layout.DIRECTORY | 0o755, 0, 0, self._now * 10**9, self._now * 10**9)
        self._put(layout.ROOT_INODE, owned, Stored())
        self._put(layout.LOST_FOUND_INODE, replace(owned, mode=layout.DIRECTORY | 0o700), Stored())
        self._name_directory(NewName(layout.ROOT_INODE, LOST_FOUND), layout.LOST_FOUND_INODE)
        self._lost_found_is_new = True

    def _make_below(self, entry: Entry, name: NewName) -> None:
        if entry.is_directory:
            self._make_directory(entry, name)
        elif entry.is_hard_link:
            self._link(entry.link, name)
        else:
            self._clear(name)
            number = self.inodes.new(is_directory=False)
            self._set(number, entry, self._stored(number, entry))
            self.names.add(*name, number, layout.FILE_TYPES[entry.kind])
            for path in entry.names:
                self._link(entry.path, self._located(path))
            possible = possible_flags(entry.kind, entry.flags)
            self.flags_left_out += possible != entry.flags

    def _stored(self, number: int, entry: Entry) -> Stored:
        if entry.kind == stat.S_IFREG:
            if entry.size > self._largest:
                raise OSError(errno.EFBIG, os.strerror(errno.EFBIG))
            return self.blocks.write_file(number, entry.contents, entry.size)
        if entry.kind == stat.S_IFLNK:
            return self._symlink(number, entry.link)
        if entry.kind not in (stat.S_IFCHR, stat.S_IFBLK):
            return Stored()
        return Stored(device_pointer(*entry.device))

    def _symlink(self, number: int, target: bytes) -> Stored:
        if not target:
            raise OSError(errno.ENOENT, os.strerror(errno.ENOENT))
        if len(target) >= min(self.blocks.block_size, _PATH_MAX):
            raise OSError(errno.ENAMETOOLONG, os.strerror(errno.ENAMETOOLONG))
        if len(target) < _FAST_SYMLINK:
            return Stored(target, len(target))
        return self.blocks.write_file(number, [(0, memoryview(target))], len(target))

    def _make_directory(self, entry: Entry, name: NewName) -> None:
        found = self.names.find(*name)
        if found is None or found.file_type != _DIRECTORY:
            self._clear(name)
            number = self._new_directory(name)
        else:
            number = found.inode
            is_new = number == layout.LOST_FOUND_INODE and self._lost_found_is_new
            if not self._replacing and not is_new:
                raise NameTakenError(NAME_TAKEN)
            self._lost_found_is_new &= not is_new
        self._own_directory(number, entry)

    def _own_directory(self, number: int, entry: Entry) -> None:
        """Give a directory what the entry says; of what it had, attributes of other names stay."""
        inode = self.inodes.get(number)
        if any(inode) and (had := self.blocks.attributes(number, inode)):
            entry = replace(entry, xattrs={**had, **entry.xattrs})
        self.blocks.give_back_attributes(self._xattr_block(number))
        self._later.pop(number, None)
        self._set(number, entry, Stored())
        self.flags_left_out += possible_flags(entry.kind, entry.flags) != entry.flags

    def _make_missing(self, name: NewName) -> int:
        number = self._new_directory(name)
        now = self._now * 10**9
        self._put(number, Owned(layout.DIRECTORY | _MISSING_MODE, 0, 0, now, now), Stored())
        return number

    def _new_directory(self, name: NewName) -> int:
        number = self.inodes.new(is_directory=True)
        self._name_directory(name, number)
        return number

    def _name_directory(self, name: NewName, number: int) -> None:
        more = self.subdirectories.get(name.directory, 0) + 1
        if self._counts_all and more + 2 > self._most_links:
            raise OSError(errno.EMLINK, os.strerror(errno.EMLINK))
        self.subdirectories[name.directory] = more
        self.names.add(*name, number, _DIRECTORY)
        self.paths.above[number] = name.directory

    def _link(self, link: bytes, name: NewName) -> None:
        """Make a name a further one of the file that has the path link."""
        linked = printable(link)
        found = self._linked(link)
        if found is None:
            raise UnsafePathError(f"it is a hard link to {linked}, which is not there")
        if found.file_type == _DIRECTORY:
            raise UnsafePathError(f"it is a hard link to the directory {linked}")
        if self.names.find(*name) == found:
            if not self._replacing:
                raise NameTakenError(NAME_TAKEN)
            return
        self._clear(name)
        links = self._links(found.inode)
        if links >= self._most_links:
            raise OSError(errno.EMLINK, os.strerror(errno.EMLINK))
        self.inodes.patch(found.inode, {"i_links_count": links + 1})
        self.names.add(*name, *found)

    def _linked(self, link: bytes) -> Named | None:
        if self._replacing:
            check_length(link)
        try:
            first = self.paths.locate(link, make=False)
        except FileNotFoundError:
            return None
        if first is None:
            raise UnsafePathError("it is a hard link to the directory that the archive is unpacked into")
        return self.names.find(*first)

    def _located(self, path: bytes) -> NewName:
        name = self.paths.locate(path)
        if name is None:
            raise UnsafePathError("one of its names is the directory that the archive is unpacked into")
        return name

    def _clear(self, name: NewName) -> None:
        """Take away what has a name, so that something else can have it."""
        found = self.names.find(*name)
        if found is None:
            return
        if not self._replacing:
            raise NameTakenError(NAME_TAKEN)
        number, is_directory = found.inode, found.file_type == _DIRECTORY
        if is_directory and next(self.names.in_directory(number), None):
            raise UnsafePathError("a directory that is not empty is in its place")
        if number == layout.LOST_FOUND_INODE:
            raise UnsafePathError("the directory lost+found, which every ext file system has, is in its place")
        if is_directory or found.file_type == _SYMLINK:
            self.paths.forget()
        self.names.remove(*name)
        links = self._links(number)
        if links > 1 and not is_directory:
            self.inodes.patch(number, {"i_links_count": links - 1})
            return
        self._remove(number, found.file_type)
        if is_directory:
            self.subdirectories[name.directory] -= 1
            del self.paths.above[number]

    def _remove(self, number: int, file_type: int) -> None:
        """Give back an inode and its blocks."""
        inode = self.inodes.get(number)
        size = layout.INODE.unpack(inode)["i_size_lo"]
        is_mapped = file_type == layout.FILE_TYPES[layout.REGULAR_FILE] or (
            file_type == _SYMLINK and size >= _FAST_SYMLINK
        )
        self.blocks.give_back(number, inode, is_mapped=is_mapped)
        self.inodes.give_back(number, is_directory=file_type == _DIRECTORY)
        self._later.pop(number, None)

    def _set(self, number: int, entry: Entry, stored: Stored) -> None:
        """Put an inode with all that an entry says; its contents were read."""
        kind_and_mode = entry.kind | (0o777 if entry.kind == stat.S_IFLNK else entry.mode & 0o7777)
        flags = possible_flags(entry.kind, entry.flags)
        owned = Owned(kind_and_mode, entry.uid, entry.gid, entry.atime_ns, entry.mtime_ns, flags)
        if not entry.xattrs and not entry.acls:
            self._put(number, owned, stored)
            return
        acls = access_control_lists(entry)
        if ACL_ACCESS in acls:
            owned.mode = mode_with(owned.mode, acls[ACL_ACCESS])
        is_later = entry.acls_have_names
        found = encoded(entry, {} if is_later else acls, self._lists.number, self.blocks.block_size, self.left_out)
        if is_later:
            self._set_later(number, entry)
            found = NO_ATTRIBUTES
        block = self.blocks.write_attributes(found.block) if found.block else 0
        record = inode_record(owned, stored, 1, found, block, self._now, self.blocks.block_size)
        self.inodes.put(number, record)

    def _set_later(self, number: int, entry: Entry) -> None:
        self._later_bytes += sum(map(len, entry.acls.values())) * _ACL_ENTRY_BYTES
        self._later_bytes += sum(map(len, entry.xattrs.values()))
        if self._later_bytes > _LATER_BYTES:
            raise UnsafePathError("the archive has more ACLs than can be kept in memory until everything is unpacked")
        self._later[number] = replace(entry, names=(), contents=())

    def _finish(self, number: int, entry: Entry) -> None:
        found = encoded(entry, access_control_lists(entry), self._lists.number, self.blocks.block_size, None)
        values: dict[str, Value] = {"i_xattrs": found.in_inode}
        inode = layout.INODE.unpack(self.inodes.get(number))
        if found.block:
            block = self.blocks.write_attributes(found.block)
            sectors = inode["i_blocks_lo"] | inode["i_blocks_high"] << 32
            sectors += self.blocks.block_size // 512
            values |= {"i_file_acl_lo": block & 0xFFFFFFFF, "i_file_acl_high": block >> 32}
            values |= {"i_blocks_lo": sectors & 0xFFFFFFFF, "i_blocks_high": sectors >> 32}
        self.inodes.patch(number, values)

    def _put(self, number: int, owned: Owned, stored: Stored) -> None:
        record = inode_record(owned, stored, 1, NO_ATTRIBUTES, 0, self._now, self.blocks.block_size)
        self.inodes.put(number, record)

    def _links(self, number: int) -> int:
        return int(layout.INODE.unpack(self.inodes.get(number))["i_links_count"])

    def _xattr_block(self, number: int) -> int:
        fields = layout.INODE.unpack(self.inodes.get(number))
        return int(fields["i_file_acl_lo"] | fields["i_file_acl_high"] << 32)

    def _read_link(self, number: int) -> bytes:
        inode = self.inodes.get(number)
        fields = layout.INODE.unpack(inode)
        size = int(fields["i_size_lo"])
        if size < _FAST_SYMLINK:
            return bytes(fields["i_block"][:size])
        return self.blocks.read(number, inode, _PATH_MAX)

    def _read_path(self, path: str, limit: int) -> bytes:
        found = self.paths.find(path.encode())
        if found is None or found.file_type != layout.FILE_TYPES[layout.REGULAR_FILE]:
            return b""
        return self.blocks.read(found.inode, self.inodes.get(found.inode), limit)


def entries_of(names: NameTable, directory: int) -> Sequence[tuple[int, bytes, int]]:
    """Return the entries of a directory in the order in which they arrived."""
    found = [(named.inode, name, named.file_type) for name, named in names.in_directory(directory)]
    found.reverse()
    return found
