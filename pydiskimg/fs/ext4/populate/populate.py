# SPDX-License-Identifier: MIT
"""Make an ext2, ext3 or ext4 file system with files in it, from a stream of entries, in one pass over the disk.

    | superblock, descriptors, tables | journal | files as they arrive ... | directories | free

No mount and no privileges are needed. The superblock is written last, as by make.py.
"""

from __future__ import annotations

import logging
import stat
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from uuid import UUID

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
from pydiskimg.fs.ext4.populate.filler import Filler, entries_of
from pydiskimg.fs.ext4.populate.inode_record import stored_fields
from pydiskimg.fs.ext4.populate.new_files import MOST_LINKS, SECOND, NewFiles
from pydiskimg.fs.ext4.populate.space import FullError
from pydiskimg.fs.wipe import wipe_signatures
from pydiskimg.protocols import Disk
from pydiskimg.units import format_size

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Populated:
    """A file system that was made and filled: entries, and the bytes of the regular files among them, with holes.

    left_out is the extended attributes that it cannot hold, flags_left_out counts files whose flags it does not have.
    inside is the one that lies over a directory of it (populate_joined()).
    """

    file_system: ExtInfo
    entries: int
    bytes: int
    left_out: AttributesLeftOut
    flags_left_out: int
    inside: ExtInfo | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class NewExt:
    """A file system that is to be made over a whole disk; the options are make_ext()'s."""

    disk: Disk
    kind: str = "ext4"
    label: str = ""
    uuid: UUID | None = None
    block_size: int | None = None
    bytes_per_inode: int | None = None
    reserved_percent: float = 5.0
    now: int | None = None
    hash_seed: UUID | None = None

    def planned(self) -> NewFileSystem:
        """Return it with all that it needs allocated, and nothing written."""
        identity = new_identity(self.disk.name, self.uuid, self.hash_seed, self.label, self.now)
        geometry = plan_geometry(
            self.disk.size,
            kind=self.kind,
            where=self.disk.name,
            sector_size=self.disk.sector_size,
            block_size=self.block_size,
            bytes_per_inode=self.bytes_per_inode,
            reserved_percent=self.reserved_percent,
        )
        new = NewFileSystem(self.disk, geometry, identity)
        new.allocate(journal_first=True)
        return new


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
    root = NewExt(
        disk=disk,
        kind=kind,
        label=label,
        uuid=uuid,
        block_size=block_size,
        bytes_per_inode=bytes_per_inode,
        reserved_percent=reserved_percent,
        now=now,
        hash_seed=hash_seed,
    )
    return _populate([root], b"", entries, wording or Wording(disk.name), replacing=replacing)


def populate_joined(
    root: NewExt,
    inside: NewExt,
    entries: Iterable[Entry],
    *,
    mount_point: bytes = b"boot",
    wording: Wording | None = None,
    replacing: bool = True,
) -> Populated:
    """Make two file systems of one stream of entries; the inner one lies over a directory of the root, as /boot does.

        with open_tar("root.tar.gz") as entries:
            populate_joined(NewExt(disk=root), NewExt(disk=boot, label="boot"), entries)

    All is as populate() does it into a root with the inner one mounted at mount_point, an empty directory of mode 0755
    that no entry is for: the entry of its path is the inner one's root. A hard link from one to the other becomes a
    copy, further names of which are links to it. MountPointError, an ArchiveError, is raised for an entry of this path
    that is not a directory. The root is completed last. Memory is 50 MiB instead of 35.
    """
    return _populate([root, inside], mount_point, entries, wording or Wording(root.disk.name), replacing=replacing)


def _populate(
    wanted: Sequence[NewExt], mount_point: bytes, entries: Iterable[Entry], wording: Wording, *, replacing: bool
) -> Populated:
    made = [ext.planned() for ext in wanted]
    are_zero = [_begin(new) for new in made]
    files = [NewFiles(new, first) for new, first in zip(made, (0, SECOND), strict=False)]
    filler = Filler(files[0], wording, replacing=replacing)
    for inner in files[1:]:
        filler.join(mount_point, inner)
    count = total = 0
    for entry in entries:
        filler.make(entry)
        count += 1
        total += entry.size if entry.kind == stat.S_IFREG else 0
    filler.finish()
    filler.names.forget_lookups()
    for one in files:
        _write_directories(one, filler)
    infos: list[ExtInfo] = []
    for ext, one, is_zero in reversed([*zip(wanted, files, are_zero, strict=True)]):
        info = ext_info(one.new, ext.kind, ext.label, _complete(one, tables_are_zero=is_zero))
        _log.info("%s: made %s of %s, UUID %s", ext.disk.name, ext.kind, format_size(info.size), info.uuid)
        infos.insert(0, info)
    return Populated(infos[0], count, total, filler.left_out, filler.flags_left_out, *infos[1:])


def _begin(new: NewFileSystem) -> bool:
    """Take away what was on the disk; return whether inode tables and bitmaps read as zero without being written."""
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
        entries = entries_of(filler.names, number, files)
        own, parent = files.local(number), files.local(above)
        if number == files.lost_found:
            least = lost_found_blocks(new.geometry.block_size)
            directory = NewDirectory(writer.linear(own, parent, entries, least), is_indexed=False)
        else:
            directory = writer.directory(own, parent, entries)
        _write_directory(files, filler, number, directory)


def _write_directory(files: NewFiles, filler: Filler, number: int, directory: NewDirectory) -> None:
    """Write the blocks of one directory and its inode's fields. Raises NoSpaceError, and as writing does."""
    local = files.local(number)
    try:
        stored = files.blocks.write_blocks(local, directory.blocks)
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
    """Write all that says what is where, the superblock last; return how many blocks are free."""
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
