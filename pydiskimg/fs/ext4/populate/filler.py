# SPDX-License-Identifier: MIT
"""Make files of a new file system from entries, as files/writer.py makes them below a directory.

A file's contents, map and attributes are written as it arrives. Directories, which grow until the last entry, and ACLs
with names, whose numbers are in the tree's own lists, are written at the end. Another file system can be mounted at a
directory, as a guest mounts its /boot.
"""

from __future__ import annotations

import errno
from array import array
from collections.abc import Sequence
from dataclasses import replace

from pydiskimg.errors import DiskImageError, NoSpaceError, StorageError
from pydiskimg.files.acl import AclNames
from pydiskimg.files.attributes import AttributesLeftOut
from pydiskimg.files.entry import Entry, check_entry
from pydiskimg.files.resolve import UnsafePathError, check_length
from pydiskimg.files.writer import MOUNT_POINT, NAME_TAKEN, MountPointInTheWayError, NameTakenError, Wording
from pydiskimg.fs.ext4 import layout
from pydiskimg.fs.ext4.directories import LOST_FOUND
from pydiskimg.fs.ext4.directory_writer import DirectoryEntry
from pydiskimg.fs.ext4.inode_fields import possible_flags
from pydiskimg.fs.ext4.populate.inode_record import Stored
from pydiskimg.fs.ext4.populate.names import NameTable
from pydiskimg.fs.ext4.populate.new_files import SECOND, NewFiles
from pydiskimg.fs.ext4.populate.paths import FilledPaths
from pydiskimg.fs.ext4.populate.space import FullError
from pydiskimg.fs.ext4.tree.entry_paths import Named, NewName
from pydiskimg.fs.ext4.tree.files import RefusedError
from pydiskimg.text import printable

_MISSING_MODE = 0o755
_LATER_BYTES = 50 << 20  # of ACLs and attributes that wait for the last entry
_ACL_ENTRY_BYTES = 250
_DIRECTORY = layout.FILE_TYPES[layout.DIRECTORY]
_SYMLINK = layout.FILE_TYPES[layout.SYMLINK]
_REGULAR_FILE = layout.FILE_TYPES[layout.REGULAR_FILE]


class Filler:
    """Fills a new file system, or two; names and paths are the state so far.

    begin() sets how entries are made from then on: an entry replaces an existing file of its path, but a directory is
    kept; without replacing, an existing file is an error, except for lost+found and the mount point of the second file
    system. With keep_links, a symlink to a directory counts as that directory if the entry is one. Inodes of the second
    file system have numbers of their own (NewFiles). Call finish() after the last entry.
    """

    def __init__(self, file_systems: Sequence[NewFiles]) -> None:
        self.left_out = AttributesLeftOut()
        self.flags_left_out = 0
        self.names = NameTable()
        self.paths = FilledPaths(self.names, self._read_link, self._make_missing)
        self.subdirectories: dict[int, int] = {}
        self.file_systems = file_systems
        self._wording = Wording("")
        self._replacing, self._keep_links = True, False
        self._lists = AclNames(self._read_path)
        self._later: dict[int, Entry] = {}
        self._later_bytes = 0
        self._twins: dict[int, int] = {}  # of a file with names in both file systems, each by the other
        self._there_before: set[int] = set()  # directories that one entry each can take
        for files in file_systems:
            self.paths.above[files.root] = files.root
            self._name_directory(NewName(files.root, LOST_FOUND), files.lost_found)
            self._there_before.add(files.lost_found)

    def join(self, path: bytes) -> None:
        """Mount the second file system at a directory of the first, which is made if it is missing."""
        self.paths.begin(self.file_systems[0].root)
        point, root = self.paths.directory(path, make=True), self.file_systems[1].root
        if point == self.paths.top:
            raise UnsafePathError("it leads to the root itself")
        self.paths.join(point, root)
        self._there_before.add(root)

    def begin(self, wording: Wording, *, replacing: bool, keep_links: bool, to_second: bool) -> None:
        """Set how the following entries are made, and count what is left out of them."""
        self.left_out = AttributesLeftOut()
        self.flags_left_out = 0
        self._wording = wording
        self._replacing, self._keep_links = replacing, keep_links
        self.paths.begin(self.file_systems[to_second].root)

    def files_of(self, number: int) -> NewFiles:
        """Return the file system of an inode."""
        return self.file_systems[number >= SECOND]

    def make(self, entry: Entry) -> None:
        """Make a file of an entry. Raises as its contents do, the wording's errors, and as writing does."""
        try:
            check_entry(entry)
            if self._replacing:
                check_length(entry.path)
            name = self.paths.locate(entry.path)
            if name:
                self._make_below(entry, name)
            elif entry.is_directory:
                self._own_directory(self.paths.top, entry)
            else:
                raise UnsafePathError(
                    "it has the path of the directory that the archive is unpacked into, but is not a directory"
                )
        except ValueError as error:
            raise self._wording.refused(entry, error) from error
        except RefusedError as error:
            where = self._wording.where(entry)
            raise StorageError(f"{where}: {error}", errno=error.number, filename=where) from error
        except OSError as error:
            raise self._failed(entry, error) from error

    def finish(self) -> None:
        """Set the attributes of files whose ACLs have names in them."""
        for number, entry in self._later.items():
            try:
                self.files_of(number).put_attributes(number, entry, self._lists.number)
            except ValueError as error:
                raise self._wording.refused(entry, error) from error
            except OSError as error:
                raise self._failed(entry, error) from error
        self._later.clear()
        self._later_bytes = 0

    def directory_failed(self, number: int, error: FullError) -> NoSpaceError:
        """Return the error for a directory that does not fit."""
        path = printable(self._path_of(number))
        return self._full(f"{error.disk}: the directory {path}: cannot be written", error)

    def _failed(self, entry: Entry, error: OSError) -> DiskImageError:
        """Return the error for an entry that could not be made."""
        if not isinstance(error, FullError):
            return self._wording.failed(entry, error)
        onto = f" to {error.disk}" if error.disk not in ("", self._wording.source) else ""
        return self._full(f"{self._wording.where(entry)}: cannot be {self._wording.done}{onto}", error)

    def _full(self, what: str, error: FullError) -> NoSpaceError:
        hint = self._wording.hints.get(error.disk, "use a larger disk")
        text = f"{what}: {error.reason}" + (f"; {hint}" if hint else "")
        return NoSpaceError(text, errno=error.errno, filename=error.disk, device=0)

    def _path_of(self, directory: int) -> bytes:
        """Return the path of a directory."""
        parts: list[bytes] = []
        while (above := self.paths.above[directory]) != directory:
            names = self.names.in_directory(above)
            parts += [name for name, named in names if self.paths.entered(named.inode) == directory]
            directory = above
        return b"/" + b"/".join(reversed(parts))

    def _make_below(self, entry: Entry, name: NewName) -> None:
        if entry.is_directory:
            self._make_directory(entry, name)
        elif entry.is_hard_link:
            self._link(entry.link, name)
        else:
            self._clear(name)
            files = self.files_of(name.directory)
            number = files.allocate(is_directory=False)
            self._put(number, entry, files.store(number, entry))
            self.names.add(*name, number, layout.FILE_TYPES[entry.kind])
            for path in entry.names:
                self._link(entry.path, self._located(path))
            self._count_flags(entry)

    def _make_directory(self, entry: Entry, name: NewName) -> None:
        found = self.names.find(*name)
        if self._keep_links and found is not None and found.file_type == _SYMLINK and self._leads_to_directory(entry):
            return
        if found is None or found.file_type != _DIRECTORY:
            self._clear(name)
            number = self._new_directory(name)
        else:
            number = self.paths.entered(found.inode)
            if not self._replacing and number not in self._there_before:
                raise NameTakenError(NAME_TAKEN)
            self._there_before.discard(number)
        self._own_directory(number, entry)

    def _leads_to_directory(self, entry: Entry) -> bool:
        try:
            self.paths.directory(entry.path, make=False)
        except (FileNotFoundError, UnsafePathError):
            return False
        return True

    def _own_directory(self, number: int, entry: Entry) -> None:
        """Give a directory the attributes of the entry; its attributes of other names stay, and its flags."""
        self._later.pop(number, None)
        self._put(number, self.files_of(number).own_directory(number, entry), Stored())
        self._count_flags(entry)

    def _count_flags(self, entry: Entry) -> None:
        if entry.flags:
            self.flags_left_out += possible_flags(entry.kind, entry.flags) != entry.flags

    def _make_missing(self, name: NewName) -> int:
        number = self._new_directory(name)
        self.files_of(number).put_missing(number, _MISSING_MODE)
        return number

    def _new_directory(self, name: NewName) -> int:
        number = self.files_of(name.directory).allocate(is_directory=True)
        self._name_directory(name, number)
        return number

    def _name_directory(self, name: NewName, number: int) -> None:
        files = self.files_of(number)
        more = self.subdirectories.get(name.directory, 0) + 1
        if files.counts_all and more + 2 > files.most_links:
            raise RefusedError(
                f"is one directory too many: a directory has at most {files.most_links - 2} subdirectories",
                errno.EMLINK,
            )
        self.subdirectories[name.directory] = more
        self.names.add(*name, number, _DIRECTORY)
        self.paths.above[number] = name.directory

    def _link(self, link: bytes, name: NewName) -> None:
        """Add a name to the file at the path link, or to its copy in the name's file system."""
        linked = printable(link)
        found = self._linked(link)
        if found is None:
            raise UnsafePathError(f"it is a hard link to {linked}, which does not exist")
        if found.file_type == _DIRECTORY:
            raise UnsafePathError(f"it is a hard link to the directory {linked}")
        if not self.files_of(name.directory).holds(found.inode):
            if found.inode not in self._twins:
                self._copy(found.inode, link, name)
                return
            found = Named(self._twins[found.inode], found.file_type)
        if self.names.find(*name) == found:
            if not self._replacing:
                raise NameTakenError(NAME_TAKEN)
            return
        self._clear(name)
        self.files_of(found.inode).add_link(found.inode, 1)
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

    def _copy(self, number: int, path: bytes, name: NewName) -> None:
        """Make a copy of a file of the other file system, because hard links cannot cross (ADR 0090)."""
        self._make_below(self.files_of(number).entry(number, path), name)
        made = self.names.find(*name)
        assert made is not None
        self._twins |= {number: made.inode, made.inode: number}
        if number in self._later:
            self._set_later(made.inode, self._later[number])

    def _located(self, path: bytes) -> NewName:
        name = self.paths.locate(path)
        if name is None:
            raise UnsafePathError("one of its names is the directory that the archive is unpacked into")
        return name

    def _clear(self, name: NewName) -> None:
        """Remove the file of a name, so that another can take its place."""
        found = self.names.find(*name)
        if found is None:
            return
        if not self._replacing:
            raise NameTakenError(NAME_TAKEN)
        number, is_directory = found.inode, found.file_type == _DIRECTORY
        if self.paths.entered(number) != number:
            raise MountPointInTheWayError(MOUNT_POINT)
        if is_directory and next(self.names.in_directory(number), None):
            raise UnsafePathError("it would replace a directory that is not empty")
        files = self.files_of(number)
        if number == files.lost_found:
            raise UnsafePathError("it would replace the directory lost+found, which every ext file system has")
        if is_directory or found.file_type == _SYMLINK:
            self.paths.forget()
        self.names.remove(*name)
        if not is_directory and files.links(number) > 1:
            files.add_link(number, -1)
            return
        files.remove(number, found.file_type)
        self._later.pop(number, None)
        self._twins.pop(self._twins.pop(number, 0), None)
        if is_directory:
            self.subdirectories[name.directory] -= 1
            del self.paths.above[number]

    def _put(self, number: int, entry: Entry, stored: Stored) -> None:
        if not self.files_of(number).put(number, entry, stored, self._lists.number, self.left_out):
            self._set_later(number, replace(entry, names=(), contents=()))

    def _set_later(self, number: int, entry: Entry) -> None:
        self._later_bytes += sum(map(len, entry.acls.values())) * _ACL_ENTRY_BYTES
        self._later_bytes += sum(map(len, entry.xattrs.values()))
        if self._later_bytes > _LATER_BYTES:
            raise UnsafePathError("the archive has more ACLs than can be kept in memory until everything is unpacked")
        self._later[number] = entry

    def _read_link(self, number: int) -> bytes:
        return self.files_of(number).target(number)

    def _read_path(self, path: str, limit: int) -> bytes:
        found = self.paths.led(path.encode())
        if found is None or found.file_type != _REGULAR_FILE:
            return b""
        return self.files_of(found.inode).read(found.inode, limit)


class EntriesInDirectory:
    """The entries of a directory in the order of their arrival, with the numbers of their files."""

    def __init__(self, names: NameTable, directory: int, files: NewFiles) -> None:
        self._names = names
        self._local = files.local
        self._units = array("I", names.units(directory))
        self._units.reverse()

    def __len__(self) -> int:
        return len(self._units)

    def __getitem__(self, index: int, /) -> DirectoryEntry:
        name, inode, file_type = self._names.at(self._units[index])
        return self._local(inode), name, file_type
