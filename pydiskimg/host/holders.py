# SPDX-License-Identifier: MIT
"""Find out who holds a block device, for the message that refuses it."""

from __future__ import annotations

import os
import stat

from pydiskimg.linux.fileio import device_directory, device_number, system_names, system_text
from pydiskimg.linux.mounts import mount_entries


def device_holder(path: str) -> str:
    """Return in a few words who holds the block device, a partition of it, or the disk that it is a partition of.

    That is its mount points, a device on top, swap space, or else a process.
    """
    try:
        number = os.stat(path).st_rdev
    except OSError:
        return "unknown holder"
    if held := _held(number):
        return held
    directory = device_directory(number)
    for name in system_names(directory):
        if os.path.exists(f"{directory}/{name}/partition") and (held := _held_in(f"{directory}/{name}")):
            return f"partition {name} is {held}"
    if os.path.exists(f"{directory}/partition"):
        disk = os.path.dirname(os.path.realpath(directory))
        if held := _held_in(disk):
            return f"the whole disk, {os.path.basename(disk)}, is {held}"
    return "another process has opened it exclusively"


def _held_in(directory: str) -> str:
    """Return who holds the device with this directory in /sys as a whole, or nothing."""
    try:
        return _held(device_number(directory))
    except OSError:  # it has gone
        return ""


def _held(number: int) -> str:
    """Return who holds this device as a whole, or nothing."""
    if points := _mount_points(number):
        return "mounted on " + ", ".join(points)
    if on_top := system_names(f"{device_directory(number)}/holders"):
        return "part of " + ", ".join(on_top)
    return "swap space" if number in _swap_devices() else ""


def _mount_points(number: int) -> list[str]:
    """Return where the device is mounted; btrfs has a number of its own there, so that only the name tells."""
    device = os.major(number), os.minor(number)
    try:
        entries = mount_entries()
    except OSError:
        return []
    return [entry.mount_point for entry in entries if entry.device == device or _block_device(entry.source) == number]


def _swap_devices() -> list[int | None]:
    try:
        lines = system_text("/proc/swaps").splitlines()[1:]
    except OSError:  # a kernel without swap
        return []
    return [_block_device(line.split()[0]) for line in lines]


def _block_device(path: str) -> int | None:
    """Return the number of the block device of this name, or None for any other name."""
    if not path.startswith("/"):
        return None
    try:
        status = os.stat(path)
    except OSError:
        return None
    return status.st_rdev if stat.S_ISBLK(status.st_mode) else None
