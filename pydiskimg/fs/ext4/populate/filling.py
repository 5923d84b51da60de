# SPDX-License-Identifier: MIT
"""Fill new file systems step by step, from several streams of entries; files can be read in between.

| superblock, descriptors, tables | journal | files as they arrive ... | directories | free
"""

from __future__ import annotations

import logging
import stat
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import combinations

from pydiskimg.errors import FileSystemError
from pydiskimg.files.attributes import AttributesLeftOut
from pydiskimg.files.entry import Entry
from pydiskimg.files.resolve import UnsafePathError
from pydiskimg.files.writer import Wording
from pydiskimg.fs.ext4 import layout
from pydiskimg.fs.ext4.directories import lost_found_blocks
from pydiskimg.fs.ext4.directory_hash import DirectoryHash
from pydiskimg.fs.ext4.directory_writer import DirectoryWriter, NewDirectory
from pydiskimg.fs.ext4.features import Compat
from pydiskimg.fs.ext4.groups import Groups
from pydiskimg.fs.ext4.new_file_system import ExtInfo, NewExt, NewFileSystem
from pydiskimg.fs.ext4.populate.filled_files import FilledFiles
from pydiskimg.fs.ext4.populate.filler import EntriesInDirectory, Filler
from pydiskimg.fs.ext4.populate.inode_record import stored_fields
from pydiskimg.fs.ext4.populate.new_files import MOST_LINKS, SECOND, NewFiles
from pydiskimg.fs.ext4.populate.space import FullError
from pydiskimg.fs.ext4.tree.tree import ExtTree
from pydiskimg.fs.wipe import wipe_signatures
from pydiskimg.regions.overlap import overlap

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Added:
    """The result of adding entries to a file system: entries, and the bytes of regular files, including holes.

    left_out counts the extended attributes that it cannot hold, flags_left_out the files whose flags it does not
    support.
    """

    entries: int
    bytes: int
    left_out: AttributesLeftOut
    flags_left_out: int


class Filling:
    """One or two new file systems while several streams of entries fill them; populate() for more than one stream.

    join() mounts the second file system at a directory of the first, add() adds the files of a stream, tree is the
    files that were added so far (an ExtTree), and complete() writes the superblocks: the disks hold no file systems
    before it. The methods raise what populate() raises.

    >>> from pydiskimg import DirectoryReader, Filling, MemoryDisk, NewExt, open_tar
    >>> filling = Filling(NewExt(disk=MemoryDisk(64 << 20)))
    >>> with open_tar("files.tar.gz") as entries:
    ...     added = filling.add(entries)
    >>> filling.tree.read("/etc/motd")
    b'hello\\n'
    >>> (made,) = filling.complete()
    """

    def __init__(self, *wanted: NewExt) -> None:
        """Plan one or two file systems, and then wipe their disks. Raises ValueError for disks that share bytes."""
        for one, other in combinations((ext.disk for ext in wanted), 2):
            if overlap(one, other):
                raise ValueError(f"{other.name}: overlaps {one.name}, which is for another file system")
        self._wanted = wanted
        made = [ext.allocated(journal_first=True) for ext in wanted]
        self._are_zero = [_begin(new) for new in made]
        self._files = [NewFiles(new, first) for new, first in zip(made, (0, SECOND), strict=False)]
        self._filler = Filler(self._files)

    @property
    def tree(self) -> ExtTree:
        """The files added to the first file system, and to the second one if it is mounted, to be read."""
        return ExtTree(FilledFiles(self._filler))

    def join(self, path: str) -> None:
        """Mount the second file system at a directory of the first from now on; the directory is made if it is missing.

        An entry of that path is then the root of the second one. Raises FileSystemError if the path is not a directory,
        or is the root itself.
        """
        try:
            self._filler.join(path.encode())
        except (UnsafePathError, OSError) as error:
            name = self._wanted[0].disk.name
            raise FileSystemError(
                f"{name}, {path}: cannot be a mount point: it does not lead to a directory"
            ) from error

    def add(
        self,
        entries: Iterable[Entry],
        *,
        wording: Wording | None = None,
        replacing: bool = True,
        keep_links: bool = False,
        to_second: bool = False,
    ) -> Added:
        """Make files of entries and return the result.

        Paths begin at the root of the first file system, or with to_second at the root of the second one. With
        keep_links, a symlink to a directory counts as that directory if the entry is one (/lib -> usr/lib). All else is
        as in populate().
        """
        count = total = 0
        self._filler.begin(
            wording or Wording(self._wanted[to_second].disk.name),
            replacing=replacing,
            keep_links=keep_links,
            to_second=to_second,
        )
        for entry in entries:
            self._filler.make(entry)
            count += 1
            total += entry.size if entry.kind == stat.S_IFREG else 0
        self._filler.finish()
        return Added(count, total, self._filler.left_out, self._filler.flags_left_out)

    def complete(self) -> list[ExtInfo]:
        """Write all metadata, the first file system's superblock last; return the result."""
        self._filler.names.forget_lookups()
        for files in self._files:
            _write_directories(files, self._filler)
        infos: list[ExtInfo] = []
        for ext, files, is_zero in reversed([*zip(self._wanted, self._files, self._are_zero, strict=True)]):
            infos.insert(0, ext.made(files.new, _complete(files, tables_are_zero=is_zero)))
        return infos


def _begin(new: NewFileSystem) -> bool:
    """Wipe the disk; return whether inode tables and bitmaps read as zero without being written."""
    wipe_signatures(new.disk)
    tables_are_zero = new.disk.reads_as_zero
    Groups(new.geometry, new.placement, new.checksums, new.writer, tables_are_zero=tables_are_zero).zero_tables()
    return tables_are_zero


def _write_directories(files: NewFiles, filler: Filler) -> None:
    """Write the blocks of a file system's directories, in the order of their inodes."""
    new, hashing = files.new, None
    if Compat.DIR_INDEX in new.geometry.features:
        hashing = DirectoryHash(new.identity.hash_seed.bytes, is_signed=True)
    writer = DirectoryWriter(new.geometry.block_size, new.checksums, hashing)
    for number in sorted(filter(files.holds, filler.paths.above)):
        above = files.root if number == files.root else filler.paths.above[number]
        entries = EntriesInDirectory(filler.names, number, files)
        own, parent = files.local(number), files.local(above)
        if number == files.lost_found:
            least = lost_found_blocks(new.geometry.block_size)
            directory = writer.linear(own, parent, entries, least)
        else:
            directory = writer.directory(own, parent, entries)
        _write_directory(files, filler, number, directory)


def _write_directory(files: NewFiles, filler: Filler, number: int, directory: NewDirectory) -> None:
    """Write the blocks of one directory and its inode's fields. Raises NoSpaceError, and as writing does."""
    local = files.local(number)
    try:
        stored = files.blocks.write_blocks(local, directory.blocks, directory.count)
    except FullError as error:
        raise filler.directory_failed(number, error) from error
    fields = layout.INODE.unpack(files.inodes.get(local))
    links = 2 + filler.subdirectories.get(number, 0)
    sectors = stored.blocks * files.blocks.block_size // 512 + fields["i_blocks_lo"]
    values = {
        **stored_fields(stored.size, sectors),
        "i_block": stored.i_block,
        "i_links_count": links if links <= MOST_LINKS else 1,
        "i_flags": fields["i_flags"] | stored.flags | (layout.INDEX_FLAG if directory.is_indexed else 0),
    }
    files.inodes.patch(local, values)


def _complete(files: NewFiles, *, tables_are_zero: bool) -> int:
    """Write all metadata, the superblock last; return how many blocks are free."""
    new = files.new
    files.blocks.flush()
    files.inodes.save()
    files.blocks.space.settle()
    groups = Groups(
        new.geometry,
        new.placement,
        new.checksums,
        new.writer,
        tables_are_zero=tables_are_zero,
        inode_use=files.inodes.use(),
    )
    groups.write()
    new.write_journal()
    new.writer.write_all(new.contents)
    return new.write_superblocks(groups.metadata_blocks, used_inodes=files.inodes.used)
