# SPDX-License-Identifier: MIT
"""Keep the kernel from joining a guest's btrfs with other devices (ADR 0054).

The kernel takes all devices that it has ever scanned and that have the same fsid for one file system, and opens all of
them to mount any. A guest can write another file system's fsid onto its disk.
"""

from __future__ import annotations

import os
import uuid

from pydiskimg.fs.probe.btrfs import DEV_ITEM, MAGIC, OFFSET, SUPERBLOCK
from pydiskimg.host.before_mount.btrfs_devices import foreign_device
from pydiskimg.host.before_mount.reading import Reader

# systemd-udevd makes the kernel scan each btrfs that it finds, and records it here; there is no other list.
UDEV_DATA = "/run/udev/data"

# Flags of an interrupted change of the UUID. Before Linux 6.7 the kernel joins such a device with others by its
# metadata_uuid, which udev does not record.
_CHANGING_UUID = 1 << 35 | 1 << 36


def refusal(read: Reader, read_only: bool) -> str | None:  # noqa: ARG001 - nothing of it depends on that
    """Return why the file system must not be mounted, if another member of its file system is known.

    A device without a btrfs passes: the kernel refuses it. Other devices with the same bytes (the disk below a
    partition, a snapshot) do not count as other members.
    """
    block = read(OFFSET, SUPERBLOCK.size)
    if len(block) < SUPERBLOCK.size:
        return None
    fields = SUPERBLOCK.unpack(block)
    if fields["magic"] != MAGIC:
        return None
    count = fields["num_devices"]
    if count != 1:
        return f"it spans {count} devices; expected a single one, because the kernel would open all"
    if fields["flags"] & _CHANGING_UUID:
        return "a change of its UUID was interrupted; finish it (btrfstune -u)"
    fsid, device = (uuid.UUID(bytes=raw) for raw in (fields["fsid"], DEV_ITEM.unpack(fields["dev_item"])["uuid"]))
    other = _other_member(str(fsid), str(device))
    if other is not None:
        return f"it has the fsid {fsid} of another member, block device {other}, and the kernel would join them"
    return foreign_device(read, fields)


def _other_member(fsid: str, device_uuid: str) -> str | None:
    """Return major:minor of a device with the fsid that is a member other than device_uuid."""
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
        except OSError:  # removed since it was listed
            continue
        same = found.get("ID_FS_TYPE") == "btrfs" and found.get("ID_FS_UUID") == fsid
        if same and found.get("ID_FS_UUID_SUB", device_uuid) != device_uuid:
            return name[1:]
    return None
