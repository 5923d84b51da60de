# SPDX-License-Identifier: MIT
"""Make an ext2, ext3 or ext4 file system with files in it, from a stream of entries, in one pass over the disk.

No mount and no privileges are needed. The superblock is written last, as by make.py.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from uuid import UUID

from pydiskimg.files.attributes import AttributesLeftOut
from pydiskimg.files.entry import Entry
from pydiskimg.files.writer import Wording
from pydiskimg.fs.ext4.new_file_system import ExtInfo, NewExt
from pydiskimg.fs.ext4.populate.filling import Added, Filling
from pydiskimg.protocols import Disk


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
    filling = Filling(root)
    return _populated(filling, filling.add(entries, wording=wording, replacing=replacing))


def populate_joined(
    root: NewExt,
    inside: NewExt,
    entries: Iterable[Entry],
    *,
    mount_point: str = "/boot",
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
    filling = Filling(root, inside)
    filling.join(mount_point)
    return _populated(filling, filling.add(entries, wording=wording, replacing=replacing))


def _populated(filling: Filling, added: Added) -> Populated:
    root, *others = filling.complete()
    return Populated(root, added.entries, added.bytes, added.left_out, added.flags_left_out, *others)
