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
    """A file system that was made and filled.

    file_system is its ExtInfo, and inside that of the inner one (populate_joined()) or None. entries counts the
    entries, and bytes is the length of the regular files among them, holes included. left_out describes the extended
    attributes that the file system cannot hold, and flags_left_out counts the files whose flags it does not have.

    >>> from pydiskimg import MemoryDisk, open_tar, populate
    >>> with open_tar("debian.tar.gz") as entries:
    ...     made = populate(MemoryDisk(64 << 20), entries)
    >>> made.file_system.kind, made.flags_left_out, made.inside
    ('ext4', 0, None)
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
    """Make a file system over the whole disk that holds the files of entries, in one pass, and return what was made.

    entries come from open_tar(), a dump or a directory. The other parameters are those of make_ext(); the same entries
    with the same uuid, hash_seed and now give the same bytes. Owners, modes, times, links, devices, holes, extended
    attributes and ACLs are those of the entries; attributes of other systems are left out and counted. A later entry
    replaces an earlier one of its name, except that a directory stays one; replacing=False makes that an error.
    Symbolic links in the path of an entry never lead out of the file system. Memory is 35 MiB, and about 25 bytes and
    the name for each entry.

    wording words messages about entries; by default they begin with the name of the disk. The disk stays the caller's,
    and holds no file system after an error.

    Raises what make_ext() and reading entries raise, ArchiveError for an entry that cannot be stored faithfully and
    safely, NoSpaceError when no block or inode is left, and StorageError when the disk refuses.

    >>> from pydiskimg import new_image, open_tar, populate
    >>> with new_image("root.qcow2", 64 << 20, format="qcow2") as disk, open_tar("debian.tar.gz") as entries:
    ...     made = populate(disk, entries, label="root")
    >>> made.file_system.label
    'root'
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
    """Make two file systems from one stream of entries: one for the root, one for a directory of it, such as /boot.

    mount_point is that directory: in the root it becomes an empty directory of mode 0755, and the entry of its path is
    the root of the inner file system. A hard link from one file system to the other becomes a copy, and further names
    are links to that copy. The root is completed last. Memory is 50 MiB in place of 35; everything else is as for
    populate().

    Raises what populate() raises, and MountPointError (an ArchiveError) for an entry of this path that is not a
    directory.

    >>> from pydiskimg import MemoryDisk, NewExt, open_tar, populate_joined
    >>> root, boot = MemoryDisk(64 << 20), MemoryDisk(32 << 20)
    >>> with open_tar("debian.tar.gz") as entries:
    ...     made = populate_joined(NewExt(disk=root), NewExt(disk=boot, label="boot"), entries)
    >>> made.inside.label
    'boot'
    """
    filling = Filling(root, inside)
    filling.join(mount_point)
    return _populated(filling, filling.add(entries, wording=wording, replacing=replacing))


def _populated(filling: Filling, added: Added) -> Populated:
    root, *others = filling.complete()
    return Populated(root, added.entries, added.bytes, added.left_out, added.flags_left_out, *others)
