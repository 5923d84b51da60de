# SPDX-License-Identifier: MIT
"""Keeping the kernel from joining a guest's btrfs with other devices (ADR 0054).

The kernel takes every device that it was ever shown and that carries one fsid for one file system, and opens all of
them to mount any. A guest can write another file system's fsid onto its disk.
"""

from __future__ import annotations

import os
import struct
import uuid

from pydiskimg.errors import FileSystemError, storage_error

# systemd-udevd shows each btrfs that it finds to the kernel, and notes here what it found; nothing else lists them.
UDEV_DATA = "/run/udev/data"

_OFFSET = 64 << 10
_MAGIC = b"_BHRfS_M"
# btrfs on-disk format, "Superblock"; little-endian.
_SUPERBLOCK = struct.Struct(
    "<"
    "32x"  #    0  csum
    "16s"  #   32  fsid
    "16x"  #   48
    "8s"  #    64  magic
    "64x"  #   72
    "Q"  #    136  num_devices
    "57x"  #  144
    "66x"  #  201  dev_item, up to its uuid
    "16s"  #  267  dev_item.uuid
)
assert _SUPERBLOCK.size == 283


def require_single_device(device_path: str, *, name: str) -> None:
    """Raise FileSystemError unless the btrfs on the device is the only member of its file system that is known.

    What is no btrfs passes: the kernel refuses it. Other devices with the same bytes (the disk below a partition, a
    snapshot) are no other members. name is what messages call the device.
    """
    try:
        fd = os.open(device_path, os.O_RDONLY | os.O_NONBLOCK)
        try:
            block = os.pread(fd, _SUPERBLOCK.size, _OFFSET)
        finally:
            os.close(fd)
    except OSError as error:
        raise storage_error(error, name, f"cannot read the superblock at offset {_OFFSET}") from error
    if len(block) < _SUPERBLOCK.size:
        return
    raw_fsid, magic, num_devices, raw_device = _SUPERBLOCK.unpack(block)
    if magic != _MAGIC:
        return
    if num_devices != 1:
        text = f"the btrfs spans {num_devices} devices; one of a single device is expected"
        raise FileSystemError(f"{name}: {text}, because the kernel would open the others too")
    other = _other_member(str(uuid.UUID(bytes=raw_fsid)), str(uuid.UUID(bytes=raw_device)))
    if other is not None:
        text = f"the btrfs has the fsid {uuid.UUID(bytes=raw_fsid)} of another member, block device {other}"
        raise FileSystemError(f"{name}: {text}; it is not mounted, because the kernel would join them")


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
