# SPDX-License-Identifier: MIT
"""Make an ext2, ext3 or ext4 file system with files in it, from a stream of entries, in one pass over the disk.

    | superblock, descriptors, tables | journal | files as they arrive ... | directories | free

No mount and no privileges are needed. The superblock is written last, as by make.py.
"""

from __future__ import annotations

import logging
import stat
from collections.abc import Iterable
from dataclasses import dataclass
from uuid import UUID

from pydiskimg.errors import NoSpaceError
from pydiskimg.files.attributes import AttributesLeftOut
from pydiskimg.files.entry import Entry
from pydiskimg.files.writer import Wording
from pydiskimg.fs.ext4 import layout
from pydiskimg.fs.ext4.directories import lost_found_blocks
from pydiskimg.fs.ext4.directory_hash import DirectoryHash
from pydiskimg.fs.ext4.directory_writer import DirectoryWriter, NewDirectory
from pydiskimg.fs.ext4.features import Compat
from pydiskimg.fs.ext4.groups import Groups
from pydiskimg.fs.ext4.make import ExtInfo, ext_info
from pydiskimg.fs.ext4.new_file_system import NewFileSystem, new_identity
from pydiskimg.fs.ext4.plan import plan_geometry
from pydiskimg.fs.ext4.populate.filler import MOST_LINKS, Filler, entries_of
from pydiskimg.fs.ext4.populate.inode_record import size_fields
from pydiskimg.fs.ext4.populate.space import FullError
from pydiskimg.fs.wipe import wipe_signatures
from pydiskimg.protocols import Disk
from pydiskimg.text import printable
from pydiskimg.units import format_size

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Populated:
    """A file system that was made and filled: entries, and the bytes of the regular files among them, with holes.

    left_out is the extended attributes that it cannot hold, flags_left_out counts files whose flags it does not have.
    """

    file_system: ExtInfo
    entries: int
    bytes: int
    left_out: AttributesLeftOut
    flags_left_out: int


def populate(  # noqa: PLR0913 - each option is independent, optional and named
    disk: Disk,
    entries: Iterable[Entry],
    *,
    kind: str = "ext4",
    label: str = "",
    uuid: UUID | None = None,
    block_size: int | None = None,
    bytes_per_inode: int | None = None,
    reserved_percent: float = 5.0,
    now: int | None = None,
    hash_seed: UUID | None = None,
    wording: Wording | None = None,
    replacing: bool = True,
) -> Populated:
    """Make a file system over the whole disk with the files of entries, and return what was made.

        with open_tar("root.tar.gz") as entries:
            populate(disk, entries, label="root")

    The options of the file system are make_ext()'s, and so is its division; the same entries with the same uuid,
    hash_seed and now give the same bytes. Owners, modes, times, links, devices, holes, extended attributes and ACLs
    come out as the entries have them; attributes of other systems are left out and counted. A later entry replaces an
    earlier one of its name (replacing; without it that is an error), except that a directory stays one. Symlinks in an
    entry's path lead inside the file system only. The disk is read where a file was, only when it is replaced, or is a
    list that ACLs with names need. Memory is some 25 bytes and the name for each entry, and 35 MiB.

    wording says how messages about entries read; else they begin with the disk's name. Raises what make_ext() and
    reading entries raise, ArchiveError for an entry that cannot be made faithfully and safely, NoSpaceError when no
    block or inode is left, StorageError when the disk refuses. There is no file system on the disk then.
    """
    identity = new_identity(disk.name, uuid, hash_seed, label, now)
    geometry = plan_geometry(
        disk.size,
        kind=kind,
        where=disk.name,
        sector_size=disk.sector_size,
        block_size=block_size,
        bytes_per_inode=bytes_per_inode,
        reserved_percent=reserved_percent,
    )
    new = NewFileSystem(disk, geometry, identity)
    new.allocate(journal_first=True)
    wipe_signatures(disk)
    tables_are_zero = disk.reads_as_zero
    Groups(geometry, new.placement, new.checksums, new.writer, tables_are_zero=tables_are_zero).zero_tables()
    filler = Filler(new, wording or Wording(disk.name), replacing=replacing)
    count = total = 0
    for entry in entries:
        filler.make(entry)
        count += 1
        total += entry.size if entry.kind == stat.S_IFREG else 0
    filler.finish()
    filler.names.forget_lookups()
    _write_directories(new, filler)
    free_blocks = _complete(new, filler, tables_are_zero=tables_are_zero)
    _log.info("%s: made %s of %s with %d files", disk.name, kind, format_size(geometry.size), count)
    info = ext_info(new, kind, label, free_blocks)
    return Populated(info, count, total, filler.left_out, filler.flags_left_out)


def _write_directories(new: NewFileSystem, filler: Filler) -> None:
    """Write the blocks of all directories, in the order of their inodes."""
    hashing = None
    if Compat.DIR_INDEX in new.geometry.features:
        hashing = DirectoryHash(new.identity.hash_seed.bytes, is_signed=True)
    writer = DirectoryWriter(new.geometry.block_size, new.checksums, hashing)
    for number, above in sorted(filler.paths.above.items()):
        entries = entries_of(filler.names, number)
        if number == layout.LOST_FOUND_INODE:
            least = lost_found_blocks(new.geometry.block_size)
            directory = NewDirectory(writer.linear(number, above, entries, least), is_indexed=False)
        else:
            directory = writer.directory(number, above, entries)
        _write_directory(filler, number, directory, new.disk.name)


def _write_directory(filler: Filler, number: int, directory: NewDirectory, disk_name: str) -> None:
    """Write the blocks of one directory and its inode's fields. Raises NoSpaceError, and as writing does."""
    try:
        stored = filler.blocks.write_blocks(number, directory.blocks)
    except FullError as error:
        where = f"{disk_name}: the directory {printable(filler.path_of(number))}"
        text = f"{where}: cannot be written: {error.reason}; use a larger disk"
        raise NoSpaceError(text, errno=error.errno, filename=disk_name, device=0) from error
    fields = layout.INODE.unpack(filler.inodes.get(number))
    links = 2 + filler.subdirectories.get(number, 0)
    sectors = stored.blocks * filler.blocks.block_size // 512 + fields["i_blocks_lo"]
    values = {
        **size_fields(stored.size, sectors),
        "i_block": stored.i_block,
        "i_links_count": links if links <= MOST_LINKS else 1,
        "i_flags": fields["i_flags"] | stored.flags | (layout.INDEX_FLAG if directory.is_indexed else 0),
    }
    filler.inodes.patch(number, values)


def _complete(new: NewFileSystem, filler: Filler, *, tables_are_zero: bool) -> int:
    """Write all that says what is where, the superblock last; return how many blocks are free."""
    filler.blocks.flush()
    filler.inodes.save()
    filler.blocks.space.settle()
    groups = Groups(
        new.geometry,
        new.placement,
        new.checksums,
        new.writer,
        tables_are_zero=tables_are_zero,
        inode_use=filler.inodes.use(),
    )
    groups.write()
    new.write_journal()
    new.writer.write_all(new.contents)
    return new.write_superblocks(groups.metadata_blocks, used_inodes=filler.inodes.used)
