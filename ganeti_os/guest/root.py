# SPDX-License-Identifier: MIT
"""Find the root file system of an installed guest by examining each volume, not by its number.

An ext2, ext3 or ext4 is read here; others are mounted, unless that is not allowed (ADR 0125).
"""

from __future__ import annotations

import logging
import posixpath
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, islice

from ganeti_os.guest.device_names import names_volume
from ganeti_os.guest.mounted_volume import mounted_volume, volume_device
from pydiskimg.disks.deferred_head import HEAD_SIZE
from pydiskimg.errors import DiskImageError, StorageError
from pydiskimg.files.mounted_tree import open_mounted_tree
from pydiskimg.fs.ext4.tree import open_ext_tree
from pydiskimg.host.mount import enter_private_namespace
from pydiskimg.partitions.partition import SECTOR_SIZES
from pydiskimg.protocols import ShownDisk, Source
from pydiskimg.system import fstab
from pydiskimg.units import format_size
from pydiskimg.volumes.find import Volume, find_volumes, volume_readings
from pydiskimg.volumes.root import is_root

log = logging.getLogger(__name__)

# Subvolumes of a btrfs whose default subvolume is not a root: Ubuntu and SuSE; Fedora; Debian.
_SUBVOLUMES = ("/@", "/root", "/@rootfs", "/@/.snapshots/1/snapshot", "/@root")
# Directories at which a guest may mount other file systems, and which are read or written here: files written below
# them in the root would be hidden when the guest runs. A parent precedes its subdirectories.
_INSIDE = ("/home", "/root", "/usr", "/usr/local", "/var", "/var/lib")
_MOST_MOUNT_POINTS = 100  # volumes of a guest, whose fstab may name any number
_DEVICES = ("/dev/", "UUID=", "LABEL=", "PARTUUID=", "PARTLABEL=")
# It becomes an option of mount(2), where a comma would begin another one.
_SUBVOLUME = re.compile(r"(?:subvol=/*+(?P<path>[\w@./+:-]{1,255})|(?P<id>subvolid=[0-9]{1,20}))")


class NoRootError(DiskImageError):
    """No file system on the disk looks like the root of a Linux system."""


class LeftAloneError(NoRootError):
    """A possible root of a Linux system cannot be read here and must not be mounted (GUEST_MOUNT=no)."""


_Found = tuple[Volume, list[fstab.FstabLine]]


@dataclass(frozen=True, slots=True)
class Guest:
    """The root volume, and those that its fstab mounts on /boot and /boot/efi, if they are on the same disk.

    inside are those that it mounts on other directories of the system, /var for example, in the order of mounting: a
    subvolume of the root's own btrfs, or another volume of the disk. closed are the mount points of file systems that
    are not opened here.
    """

    root: Volume
    boot: Volume | None
    efi: Volume | None
    inside: tuple[tuple[str, Volume], ...] = ()
    closed: tuple[str, ...] = ()

    @property
    def is_ext(self) -> bool:
        """True if the root and all that its fstab mounts are ext2, ext3 or ext4, except /boot/efi."""
        volumes = [self.root, *([self.boot] if self.boot else []), *(volume for _, volume in self.inside)]
        return all(volume.is_ext for volume in volumes)


def has_mounts_inside(entries: Sequence[fstab.FstabLine]) -> bool:
    """True if an fstab mounts file systems, perhaps of the same disk, at /boot or the directories of Guest.inside."""
    points = {"/boot", *_INSIDE}
    return any(posixpath.normpath(line.mount_point) in points and line.spec.startswith(_DEVICES) for line in entries)


def holds_mountable(source: Source) -> bool:
    """True if a volume on a disk or in its image may be the root of a Linux system."""
    return any(volume.is_mountable for volume in chain.from_iterable(volume_readings(source, SECTOR_SIZES, [])))


def read_guest(source: Source) -> tuple[Guest | None, bool]:
    """Find the guest on a disk or in its image, without the kernel; None if its root is not an ext that can be read.

    Also return whether find_guest() would mount volumes to look for it.
    """
    has_others = False
    for found in volume_readings(source, SECTOR_SIZES, [], tell=lambda _text: None):
        unclear: dict[Volume, str] = {}
        root = _read_root(source, found, unclear)
        if root is not None:
            return _guest(found, root), False
        has_others |= bool(_to_mount(found, unclear))
    return None, has_others


def _to_mount(found: Sequence[Volume], unclear: Mapping[Volume, str]) -> list[Volume]:
    """Return the volumes that must be mounted to be examined: those without an ext, and each ext that is unclear."""
    return [volume for volume in found if volume.is_mountable and (not volume.is_ext or volume in unclear)]


def find_guest(disk: ShownDisk, *, may_mount: bool = True) -> Guest:
    """Read each ext, then mount each other file system read-only, in private, until one is a root.

    Only mounting needs root. Raises NoRootError, which lists the volumes; LeftAloneError if a volume would have to be
    mounted and must not be.
    """
    found = find_volumes(disk)
    unclear: dict[Volume, str] = {}
    root = _read_root(disk, found, unclear)
    others = _to_mount(found, unclear)
    if root is None and may_mount and others:
        enter_private_namespace()  # first, because the lack of root is not specific to one file system
        root = _mounted_root(disk, others, unclear)
    if root is not None:
        log.debug("the root file system is on %s", root[0])
        return _guest(found, root)
    if _begins_with_zeros(disk):
        raise NoRootError(
            f"{disk.name}: no root file system was found: the first {format_size(HEAD_SIZE)} are zeros; either nothing "
            "was installed on the disk, or an installation or import of it has failed"
        )
    if others and not may_mount:
        left = "; ".join(unclear.get(volume, str(volume)) for volume in others)
        raise LeftAloneError(f"{disk.name}: GUEST_MOUNT=no, so these were not examined: {left}")
    hint = "" if unclear else "; set NOMOUNT=yes for a system without one"  # it does not help with unclear ones
    told = "; ".join(_told(volume, unclear) for volume in found)
    raise NoRootError(f"{disk.name}: no root file system was found among: {told}{hint}")


def _told(volume: Volume, unclear: Mapping[Volume, str]) -> str:
    if volume in unclear:
        return f"{volume}: {unclear[volume]}"
    return f"{volume}: no /etc of a Linux system" if volume.is_mountable else str(volume)


def _read_root(source: Source, found: Sequence[Volume], unclear: dict[Volume, str]) -> _Found | None:
    """Return the first ext that is a root, with its fstab; unreadable ones are added to unclear."""
    for volume in (each for each in found if each.is_ext):
        try:
            with open_ext_tree(volume.region(source)) as tree:
                if is_root(tree):
                    return volume, fstab.read_entries(tree)
                tree.exists("/etc")  # damage is reported rather than taken for a file system without /etc
        except DiskImageError as error:
            unclear[volume] = str(error)
    return None


def _mounted_root(disk: ShownDisk, volumes: Sequence[Volume], unclear: dict[Volume, str]) -> _Found | None:
    """Return the first of the volumes that is a root when it is mounted."""
    for volume in volumes:
        try:
            root = _root_on(disk, volume)
        except DiskImageError as error:
            unclear[volume] = str(error)
            continue
        unclear.pop(volume, None)
        if root is not None:
            return root
    return None


def _guest(found: Sequence[Volume], root: _Found) -> Guest:
    volume, entries = root
    boot = _volume_at("/boot", found, entries, taken=[volume])
    efi = _volume_at("/boot/efi", found, entries, taken=[volume, *([boot] if boot else [])])
    taken = [volume, *filter(None, (boot, efi))]
    inside = tuple(_volumes_inside(found, volume, entries, taken))
    opened = {"/", *(["/boot"] if boot else []), *(["/boot/efi"] if efi else []), *(point for point, _ in inside)}
    return Guest(volume, boot, efi, inside, tuple(islice(_mount_points(entries, opened), _MOST_MOUNT_POINTS)))


def _mount_points(entries: Sequence[fstab.FstabLine], opened: Collection[str]) -> Iterator[str]:
    """Yield the mount points of an fstab at boot, except those that are opened."""
    for entry in entries:
        point = posixpath.normpath(entry.mount_point)
        if point.startswith("/") and point not in opened and "noauto" not in entry.options.split(","):
            yield point


def _begins_with_zeros(disk: ShownDisk) -> bool:
    """True if the disk is as DeferredHead leaves it when its data were incomplete."""
    beginning = bytearray(min(HEAD_SIZE, disk.size))
    disk.read_into(0, beginning)
    return not beginning.strip(b"\0")


def _root_on(disk: ShownDisk, volume: Volume) -> _Found | None:
    """Return the volume with the options that show a root, and its fstab; None if it has no root."""
    assert volume.content is not None
    entries = _fstab_of_root(disk, volume)
    if entries is not None:
        return volume, entries
    if volume.content.type != "btrfs":
        return None
    for subvolume in _SUBVOLUMES:
        inside = volume.replaced(options=f"subvol={subvolume}")
        try:
            entries = _fstab_of_root(disk, inside)
        except StorageError as error:
            log.debug("%s", error)  # most likely there is no such subvolume
            continue
        if entries is not None:
            return inside, entries
    return None


def _fstab_of_root(disk: ShownDisk, volume: Volume) -> list[fstab.FstabLine] | None:
    """Return the fstab entries if the volume is a root, otherwise None."""
    with (
        volume_device(disk, volume, read_only=True) as loop,
        mounted_volume(disk, loop.path, volume, read_only=True) as target,
        open_mounted_tree(target, name=f"{disk.name}, {volume.location}") as tree,
    ):
        return fstab.read_entries(tree) if is_root(tree) else None


def _volume_at(
    mount_point: str, found: Sequence[Volume], entries: Sequence[fstab.FstabLine], *, taken: Sequence[Volume]
) -> Volume | None:
    """Return the volume that fstab mounts there, except those in taken, because each may be mounted only once."""
    specs = {posixpath.normpath(entry.mount_point): entry.spec for entry in reversed(entries)}  # the first one applies
    spec = specs.get(mount_point)
    if spec is None:
        return None
    for volume in found:
        free = not any(_overlap(volume, other) for other in taken)
        if volume.is_mountable and free and names_volume(spec, volume, root_spec=specs.get("/", "")):
            return volume
    log.warning("fstab mounts %s on %s, which is on none of: %s", spec, mount_point, ", ".join(map(str, found)))
    return None


def _volumes_inside(
    found: Sequence[Volume], root: Volume, entries: Sequence[fstab.FstabLine], taken: list[Volume]
) -> Iterator[tuple[str, Volume]]:
    """Yield the volumes of this disk that fstab mounts on each of _INSIDE."""
    first = {posixpath.normpath(entry.mount_point): entry for entry in reversed(entries)}  # the first one applies
    root_spec = first["/"].spec if "/" in first else ""
    for mount_point in _INSIDE:
        entry = first.get(mount_point)
        if entry is None or not entry.spec.startswith(_DEVICES):
            continue
        if entry.fs_type == "btrfs" and names_volume(entry.spec, root, root_spec=root_spec):
            options = _subvolume(entry)
            if options not in ("", root.options):
                yield mount_point, root.replaced(options=options)
            continue
        volume = _volume_at(mount_point, found, entries, taken=taken)
        if volume is not None:
            taken.append(volume)
            yield mount_point, volume.replaced(options=_subvolume(entry) if entry.fs_type == "btrfs" else "")


def _subvolume(entry: fstab.FstabLine) -> str:
    """Return the option that mounts the entry's subvolume; empty if there is none that can be given to mount(2)."""
    for option in entry.options.split(","):
        match = _SUBVOLUME.fullmatch(option)
        if match is not None and ".." not in (match["path"] or "").split("/"):
            return f"subvol=/{match['path']}" if match["path"] else match["id"]
    return ""


def _overlap(one: Volume, other: Volume) -> bool:
    first, second = sorted((one.partition, other.partition), key=lambda partition: partition.start)
    return first.start + first.length > second.start
