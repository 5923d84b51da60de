# SPDX-License-Identifier: MIT
"""Who holds a disk: for the sentence that says why it was refused."""

from __future__ import annotations

import os
import stat


def device_holder(path: str) -> str:
    """Return in a few words what holds the block device: its mount points, a device on top, or a process."""
    try:
        number = os.stat(path).st_rdev
    except OSError:
        return "unknown holder"
    device = f"{os.major(number)}:{os.minor(number)}"
    points = _mount_points(device)
    if points:
        return "mounted on " + ", ".join(points)
    on_top = _names(f"/sys/dev/block/{device}/holders")
    if on_top:
        return "part of " + ", ".join(on_top)
    return "another process has opened it exclusively"


def loop_over_file(fd: int) -> str | None:
    """Return the loop device that the regular file behind fd is attached to, if there is one."""
    ours = os.fstat(fd)
    for name in _names("/sys/block"):
        if not name.startswith("loop"):
            continue
        try:
            found = os.stat(_text(f"/sys/block/{name}/loop/backing_file").rstrip("\n"))
        except (OSError, ValueError):  # detached meanwhile, deleted, or in another mount namespace
            continue
        if os.path.samestat(found, ours):
            return f"/dev/{name}"
    return None


def is_same_file(path: str, fd: int) -> bool:
    """True when path names the file or block device that fd is open on."""
    named, opened = os.stat(path), os.fstat(fd)
    if stat.S_ISBLK(named.st_mode) and stat.S_ISBLK(opened.st_mode):
        return named.st_rdev == opened.st_rdev
    return os.path.samestat(named, opened)


def _mount_points(device: str) -> list[str]:
    try:
        lines = _text("/proc/self/mountinfo").splitlines()
    except OSError:
        return []
    # proc(5): mount ID, parent ID, major:minor, root, mount point, ...
    fields = (line.split(" ") for line in lines)
    return [field[4] for field in fields if len(field) > 4 and field[2] == device]


def _text(path: str) -> str:
    with open(path, encoding="utf-8", errors="surrogateescape") as file:
        return file.read()


def _names(directory: str) -> list[str]:
    try:
        return sorted(os.listdir(directory))
    except OSError:
        return []
