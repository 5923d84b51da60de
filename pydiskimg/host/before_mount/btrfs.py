# SPDX-License-Identifier: MIT
"""Keeping the kernel from joining a guest's btrfs with other devices (ADR 0054).

The kernel takes every device that it was ever shown and that carries one fsid for one file system, and opens all of
them to mount any. A guest can write another file system's fsid onto its disk.
"""

from __future__ import annotations

import os
import uuid

from pydiskimg.fs.probe.btrfs import DEV_ITEM, MAGIC, OFFSET, SUPERBLOCK
from pydiskimg.host.before_mount.btrfs_devices import foreign_device
from pydiskimg.host.before_mount.reading import Reader

# systemd-udevd shows each btrfs that it finds to the kernel, and notes here what it found; nothing else lists them.
UDEV_DATA = "/run/udev/data"

# Flags of a change of the UUID that was interrupted. Before Linux 6.7 the kernel joins such a device with others by
# its metadata_uuid, which udev does not tell us.
_CHANGING_UUID = 1 << 35 | 1 << 36


def refusal(read: Reader, read_only: bool) -> str | None:  # noqa: ARG001 - nothing of it depends on that
    """Return why the file system must not be mounted: it is not the only member of its file system that is known.

    A device without a btrfs passes: the kernel refuses it. Other devices with the same bytes (the disk below a
    partition, a snapshot) are not other members.
    """
    block = read(OFFSET, SUPERBLOCK.size)
    if len(block) < SUPERBLOCK.size:
        return None
    fields = SUPERBLOCK.unpack(block)
    if fields["magic"] != MAGIC:
        return None
    count = fields["num_devices"]
    if count != 1:
        return f"it spans {count} devices; one of a single device is expected, because the kernel would open all"
    if fields["flags"] & _CHANGING_UUID:
        return "a change of its UUID was interrupted; finish it (btrfstune -u)"
    fsid, device = (uuid.UUID(bytes=raw) for raw in (fields["fsid"], DEV_ITEM.unpack(fields["dev_item"])["uuid"]))
    other = _other_member(str(fsid), str(device))
    if other is not None:
        return f"it has the fsid {fsid} of another member, block device {other}, and the kernel would join them"
    return foreign_device(read, fields)


def _other_member(fsid: str, device_uuid: str) -> str | None:
    """Return major:minor of a device with the fsid that is another member than device_uuid."""
    try:
        names = os.listdir(UDEV_DATA)
    except OSError:  # a system without udev
        return None
    for name in names:
        if not name.startswith("b"):
            continue
        try:
            with open(f"{UDEV_DATA}/{name}", encoding="utf-8", errors="replace") as file:
                found = dict(line[2:].rstrip("\n").partition("=")[::2] for line in file if line.startswith("E:"))
        except OSError:  # gone since it was listed
            continue
        same = found.get("ID_FS_TYPE") == "btrfs" and found.get("ID_FS_UUID") == fsid
        if same and found.get("ID_FS_UUID_SUB", device_uuid) != device_uuid:
            return name[1:]
    return None
