# SPDX-License-Identifier: MIT
"""build_system(): make a bootable disk from a system's files in one pass, without root and without a mount.

plan ─ wipe the ends ─ swap ─ file system, filled ─ fstab, host name, GRUB ─ partition table with the boot code
"""

from __future__ import annotations

import logging
import stat
import time
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from itertools import chain, islice
from uuid import UUID, uuid4, uuid5

from pydiskimg.boot import read_grub
from pydiskimg.disks.wipe import wipe_partition_table
from pydiskimg.errors import ArchiveError, DiskImageError
from pydiskimg.files.entry import Entry
from pydiskimg.files.tree import ReadableTree, Tree
from pydiskimg.files.writer import Wording
from pydiskimg.fs.ext4.change.joined import JoinedTree
from pydiskimg.fs.ext4.change.tree import open_changed_tree
from pydiskimg.fs.ext4.new_file_system import NewExt
from pydiskimg.fs.ext4.populate.populate import Populated, populate, populate_joined
from pydiskimg.fs.swap import check_swap, make_swap
from pydiskimg.partitions.identifiers import with_identifiers
from pydiskimg.protocols import Disk
from pydiskimg.system import fstab, hosts
from pydiskimg.system.boot.kernels import find_kernels
from pydiskimg.system.boot.serial_console import configure_serial_console
from pydiskimg.system.boot_loader import NO_GRUB, install_grub, reason_against_bios
from pydiskimg.system.edits.draft import Draft
from pydiskimg.system.edits.renaming import Renaming
from pydiskimg.system.hostname import change_host_name, check_host_name, host_names
from pydiskimg.system.layout import Layout, NewUuids, fstab_entries, partition_region, plan_layout
from pydiskimg.text import quoted

_log = logging.getLogger(__name__)

_NO_KERNEL = "the system has no kernel in /boot; add one, such as Debian's linux-image-amd64"


@dataclass(frozen=True, slots=True)
class SystemOptions:
    """Options of build_system(); sizes are bytes.

    kind is "ext2", "ext3" or "ext4". boot_size None keeps /boot in the root; swap_size None makes no swap. table is
    "mbr", "gpt", or None for an MBR below 2 TiB and a GPT from there on. boot_loader=False leaves booting alone.
    host_name, with or without a domain, replaces the names in the system. kernel_args are further kernel arguments;
    serial_console puts the kernel's messages, GRUB and a login on the first serial line.

    uuid is that of the root file system, from which all other identifiers are derived; now is the time of all that is
    made, in seconds since 1970. Both are new unless given; with them the same entries give the same bytes.

    >>> from pydiskimg import SystemOptions
    >>> SystemOptions(swap_size=512 << 20, host_name="web1.example.org").kind
    'ext4'
    """

    kind: str = "ext4"
    boot_size: int | None = None
    swap_size: int | None = None
    table: str | None = None
    boot_loader: bool = True
    host_name: str = ""
    kernel_args: str = ""
    serial_console: bool = False
    uuid: UUID | None = None
    now: int | None = None


@dataclass(frozen=True, slots=True)
class BuiltSystem:
    """A disk that build_system() made: its layout, the UUIDs, and what was filled into the root (populated).

    uuids has those of root, boot and swap. not_bootable says why no boot loader was written; it is empty where one was
    written or none was wanted.

    >>> from pydiskimg import MemoryDisk, SystemOptions, build_system, open_tar
    >>> with open_tar("debian.tar.gz") as entries:
    ...     made = build_system(MemoryDisk(64 << 20), entries, SystemOptions(boot_loader=False))
    >>> made.not_bootable, made.uuids.swap
    ('', None)
    """

    layout: Layout
    uuids: NewUuids
    populated: Populated
    not_bootable: str


def build_system(
    disk: Disk, entries: Iterable[Entry], options: SystemOptions | None = None, *, wording: Wording | None = None
) -> BuiltSystem:
    """Make a disk with a partition table, swap, file systems with the files of entries, and GRUB for a BIOS.

    All that the disk held is lost. fstab, the host name and GRUB's menu are written into the new file system; GRUB
    comes from the system's own files (Debian's grub-pc-bin). Nothing is mounted and no root privileges are needed. The
    partition table is written last and is durable on return: an interrupted run leaves a disk without one. wording
    words messages about entries. The disk stays the caller's. Needs pyparted.

    Raises DoesNotFitError, PartitionError and ValueError for options that cannot be met, before the first write; what
    populate() and reading entries raise; ArchiveError for entries without /etc; BootLoaderError for a GRUB that is not
    known.

    >>> from pydiskimg import SystemOptions, build_system, new_image, open_tar
    >>> with open_tar("debian.tar.gz") as entries, new_image("web1.qcow2", 64 << 20, format="qcow2") as disk:
    ...     made = build_system(disk, entries, SystemOptions(host_name="web1.example.org"))
    >>> made.not_bootable or "boots by itself"
    'boots by itself'
    """
    options = options or SystemOptions()
    if options.host_name:
        check_host_name(options.host_name)
    uuid = options.uuid or uuid4()
    now = int(time.time()) if options.now is None else options.now
    wording = wording or Wording(disk.name)
    entries = iter(entries)
    try:
        first = list(islice(entries, 1))  # a file that is not an archive is refused before the disk's contents are lost
    except DiskImageError as error:
        error.add_what_is_left("nothing was written")
        raise
    layout, uuids = _planned(disk, options, uuid)
    new = _new_file_systems(disk, layout, uuids, options.kind, now)
    wipe_partition_table(disk)
    if layout.swap is not None:
        make_swap(partition_region(disk, layout.swap), uuid=uuids.swap)
    populated = _filled(new, chain(first, entries), wording)
    with _changed_tree(new, now) as tree:
        _require_system(tree, wording)
        fstab.write_entries(tree, fstab_entries(uuids, options.kind))
        _name(tree, options)
        booting, reason = _with_boot_loader(disk, tree, layout, uuids, options)
    booting.table.write(disk)
    return BuiltSystem(booting, uuids, populated, reason)


def _planned(disk: Disk, options: SystemOptions, uuid: UUID) -> tuple[Layout, NewUuids]:
    labels = {"mbr": "dos", "gpt": "gpt", None: None}
    if options.table not in labels:
        raise ValueError(f"the partition table {quoted(str(options.table))} is not known; expected 'mbr' or 'gpt'")
    label = labels[options.table]
    layout = plan_layout(disk, boot_size=options.boot_size, swap_size=options.swap_size, label=label)
    if layout.swap is not None:
        check_swap(partition_region(disk, layout.swap))
    boot, swap = (uuid5(uuid, name) if part else None for name, part in (("boot", layout.boot), ("swap", layout.swap)))
    return layout.with_table(with_identifiers(layout.table, uuid)), NewUuids(uuid, boot, swap)


def _new_file_systems(disk: Disk, layout: Layout, uuids: NewUuids, kind: str, now: int) -> list[NewExt]:
    """Return the file systems of the root and of /boot; this raises the errors of impossible options early."""
    found = []
    for partition, uuid in ((layout.root, uuids.root), (layout.boot, uuids.boot)):
        if partition is not None and uuid is not None:
            region = partition_region(disk, partition)
            new = NewExt(disk=region, kind=kind, uuid=uuid, hash_seed=uuid5(uuid, "hash seed"), now=now)
            new.allocated(journal_first=True)
            found.append(new)
    return found


def _filled(new: list[NewExt], entries: Iterable[Entry], wording: Wording) -> Populated:
    root, *inside = new
    if inside:
        hints = {inside[0].disk.name: "make the partition of /boot larger", **wording.hints}
        return populate_joined(root, inside[0], entries, wording=replace(wording, hints=hints))
    return populate(
        root.disk,
        entries,
        kind=root.kind,
        uuid=root.uuid,
        hash_seed=root.hash_seed,
        now=root.now,
        wording=wording,
    )


@contextmanager
def _changed_tree(new: list[NewExt], now: int) -> Iterator[Tree]:
    """Give the new system's files for changes that take effect together when the block ends."""
    with ExitStack() as stack:
        root, *inside = (stack.enter_context(open_changed_tree(ext.disk, now=now * 10**9)) for ext in new)
        tree = JoinedTree(root)
        stack.enter_context(root.together())
        for boot in inside:
            tree.join("/boot", boot)
            stack.enter_context(boot.together())
        yield tree


def _require_system(tree: ReadableTree, wording: Wording) -> None:
    if not (tree.exists("/etc") and stat.S_ISDIR(tree.stat("/etc").st_mode)):
        raise ArchiveError(f"{wording.source}: has no directory /etc, so it is not the root of a Linux system")


def _name(tree: Tree, options: SystemOptions) -> None:
    """Give the system its host name and a login on the serial line, if wanted."""
    draft = Draft(tree)
    if options.host_name:
        renaming = Renaming.of(options.host_name, host_names(draft))
        hosts.change_hosts(draft, renaming, {}, own_address=hosts.OWN_ADDRESS)
        change_host_name(draft, renaming)
    if options.serial_console:
        configure_serial_console(draft)
    draft.write(lambda _: 0)


def _with_boot_loader(
    disk: Disk, tree: Tree, layout: Layout, uuids: NewUuids, options: SystemOptions
) -> tuple[Layout, str]:
    """Write GRUB and the files that it reads; return the layout with its boot code, or the reason why there is none."""
    if not options.boot_loader:
        return layout, ""
    reason = reason_against_bios(disk)
    if not reason and not find_kernels(Draft(tree)):
        reason = _NO_KERNEL
    if not reason and read_grub(tree) is None:
        reason = NO_GRUB
    if reason:
        _log.info("%s: no boot loader is written: %s", disk.name, reason)
        return layout, reason
    booting = install_grub(
        disk, tree, layout, uuids, kernel_args=options.kernel_args, serial_console=options.serial_console
    )
    return booting or layout, ""
