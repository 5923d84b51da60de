# SPDX-License-Identifier: MIT
"""Finding the root file system of an installed guest: by looking into each, not by its number."""

from __future__ import annotations

import logging
import posixpath
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import chain

from ganeti_os.guest import fstab
from ganeti_os.guest.device_names import names_volume
from ganeti_os.guest.mounted_volume import mounted_volume, volume_device
from pydiskimg.disks.deferred_head import HEAD_SIZE
from pydiskimg.errors import DiskImageError, StorageError
from pydiskimg.files.mounted_tree import open_mounted_tree
from pydiskimg.partitions.layout import SECTOR_SIZES
from pydiskimg.protocols import ShownDisk, Source
from pydiskimg.units import format_size
from pydiskimg.volumes.find import Volume, find_volumes, volume_readings
from pydiskimg.volumes.root import is_root

log = logging.getLogger(__name__)

MOUNTABLE = frozenset({"ext2", "ext3", "ext4", "xfs", "btrfs", "vfat"})
# Of a btrfs whose default subvolume holds no root: Ubuntu and SuSE; Fedora; Debian.
_SUBVOLUMES = ("/@", "/root", "/@rootfs", "/@/.snapshots/1/snapshot", "/@root")
# Where a guest may have other file systems over directories of its root that are read or written here: what is
# written below them in the root would be hidden when the guest runs. A parent comes before what is in it.
_INSIDE = ("/home", "/root", "/usr", "/usr/local", "/var", "/var/lib")
_DEVICES = ("/dev/", "UUID=", "LABEL=", "PARTUUID=", "PARTLABEL=")
# It becomes an option of mount(2), where a comma would begin another one.
_SUBVOLUME = re.compile(r"(?:subvol=/*+(?P<path>[\w@./+:-]{1,255})|(?P<id>subvolid=[0-9]{1,20}))")


class NoRootError(DiskImageError):
    """No file system on the disk looks like the root of a Linux system."""


@dataclass(frozen=True, slots=True)
class Guest:
    """The root volume, and those that its fstab mounts on /boot and /boot/efi, where they are on the same disk.

    inside are those that it mounts on other directories of the system, /var for example, in the order of mounting: a
    subvolume of the root's own btrfs, or another volume of the disk.
    """

    root: Volume
    boot: Volume | None
    efi: Volume | None
    inside: tuple[tuple[str, Volume], ...] = ()


def holds_mountable(source: Source) -> bool:
    """Tell whether anything on a disk or in its image may be the root of a Linux system."""
    return any(map(_is_mountable, chain.from_iterable(volume_readings(source, SECTOR_SIZES, []))))


def _is_mountable(volume: Volume) -> bool:
    return volume.content is not None and volume.content.type in MOUNTABLE


def find_guest(disk: ShownDisk) -> Guest:
    """Mount each file system read-only, in private, until one is a root. Needs root.

    Raises NoRootError, which lists what there is.
    """
    found = find_volumes(disk)
    reasons = []
    hint = "; set NOMOUNT=yes for a system without one"  # no help against what could not be looked into
    for volume in found:
        if not _is_mountable(volume):
            reasons.append(str(volume))
            continue
        try:
            root = _root_on(disk, volume)
        except DiskImageError as error:
            reasons.append(f"{volume}: {error}")
            hint = ""
            continue
        if root is not None:
            log.debug("the root file system is on %s", volume)
            boot = _volume_at("/boot", found, root[1], taken=[volume])
            efi = _volume_at("/boot/efi", found, root[1], taken=[volume, *([boot] if boot else [])])
            taken = [volume, *filter(None, (boot, efi))]
            return Guest(root[0], boot, efi, tuple(_volumes_inside(found, root[0], root[1], taken)))
        reasons.append(f"{volume}: no /etc of a Linux system")
    if _begins_with_zeros(disk):
        raise NoRootError(
            f"{disk.name}: no root file system was found: the first {format_size(HEAD_SIZE)} are zeros; either nothing "
            "was installed on the disk, or an installation or import of it has failed"
        )
    raise NoRootError(f"{disk.name}: no root file system was found; there is: {'; '.join(reasons)}{hint}")


def _begins_with_zeros(disk: ShownDisk) -> bool:
    """Tell whether the disk is as DeferredHead leaves it when what it was to get did not come whole."""
    beginning = bytearray(min(HEAD_SIZE, disk.size))
    disk.read_into(0, beginning)
    return not beginning.strip(b"\0")


def _root_on(disk: ShownDisk, volume: Volume) -> tuple[Volume, list[fstab.FstabLine]] | None:
    """Return the volume with the options that show a root, and its fstab; None when it holds no root."""
    assert volume.content is not None
    entries = _fstab_of_root(disk, volume)
    if entries is not None:
        return volume, entries
    if volume.content.type != "btrfs":
        return None
    for subvolume in _SUBVOLUMES:
        inside = replace(volume, options=f"subvol={subvolume}")
        try:
            entries = _fstab_of_root(disk, inside)
        except StorageError as error:
            log.debug("%s", error)  # most likely there is no such subvolume
            continue
        if entries is not None:
            return inside, entries
    return None


def _fstab_of_root(disk: ShownDisk, volume: Volume) -> list[fstab.FstabLine] | None:
    """Return the fstab entries when the volume holds a root, None when it does not."""
    with (
        volume_device(disk, volume, read_only=True) as loop,
        mounted_volume(disk, loop.path, volume, read_only=True) as target,
        open_mounted_tree(target, name=f"{disk.name}, {volume.location}") as tree,
    ):
        return fstab.read_entries(tree) if is_root(tree) else None


def _volume_at(
    mount_point: str, found: Sequence[Volume], entries: Sequence[fstab.FstabLine], *, taken: Sequence[Volume]
) -> Volume | None:
    """Return the volume that fstab mounts there; none of those taken, since no file system may be mounted twice."""
    specs = {posixpath.normpath(entry.mount_point): entry.spec for entry in reversed(entries)}  # the first one counts
    spec = specs.get(mount_point)
    if spec is None:
        return None
    for volume in found:
        free = not any(_overlap(volume, other) for other in taken)
        if _is_mountable(volume) and free and names_volume(spec, volume, root_spec=specs.get("/", "")):
            return volume
    log.warning("fstab mounts %s on %s, which is on none of: %s", spec, mount_point, ", ".join(map(str, found)))
    return None


def _volumes_inside(
    found: Sequence[Volume], root: Volume, entries: Sequence[fstab.FstabLine], taken: list[Volume]
) -> Iterator[tuple[str, Volume]]:
    """Yield what fstab mounts on each of _INSIDE, as far as it is on this disk."""
    first = {posixpath.normpath(entry.mount_point): entry for entry in reversed(entries)}  # the first one counts
    root_spec = first["/"].spec if "/" in first else ""
    for mount_point in _INSIDE:
        entry = first.get(mount_point)
        if entry is None or not entry.spec.startswith(_DEVICES):
            continue
        if entry.fs_type == "btrfs" and names_volume(entry.spec, root, root_spec=root_spec):
            options = _subvolume(entry)
            if options not in ("", root.options):
                yield mount_point, replace(root, options=options)
            continue
        volume = _volume_at(mount_point, found, entries, taken=taken)
        if volume is not None:
            taken.append(volume)
            yield mount_point, replace(volume, options=_subvolume(entry) if entry.fs_type == "btrfs" else "")


def _subvolume(entry: fstab.FstabLine) -> str:
    """Return the option that mounts the entry's subvolume; empty without one that can be given to mount(2)."""
    for option in entry.options.split(","):
        match = _SUBVOLUME.fullmatch(option)
        if match is not None and ".." not in (match["path"] or "").split("/"):
            return f"subvol=/{match['path']}" if match["path"] else match["id"]
    return ""


def _overlap(one: Volume, other: Volume) -> bool:
    first, second = sorted((one.partition, other.partition), key=lambda partition: partition.start)
    return first.start + first.length > second.start
