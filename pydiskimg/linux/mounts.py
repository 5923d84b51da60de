# SPDX-License-Identifier: MIT
"""mount(2), umount2(2), syncfs(2) and the kernel's list of mounts; failures are OSError."""

from __future__ import annotations

import ctypes
import os
import re
from dataclasses import dataclass

from pydiskimg.linux import libc

# linux/mount.h
MS_RDONLY = 1
MS_NOSUID = 2
MS_NODEV = 4
MS_NOEXEC = 8
MS_REC = 0x4000
MS_SLAVE = 1 << 19
UMOUNT_NOFOLLOW = 8


def mount(source: str | None, target: str, fs_type: str | None, flags: int, options: str = "") -> None:
    """Mount, or change a mount, as mount(2) does. options are the file system's own, separated by commas."""
    libc.call("mount", _text(source), _text(target), _text(fs_type), ctypes.c_ulong(flags), _text(options or None))


def unmount(target: str) -> None:
    """Unmount the uppermost mount on target, now and completely. EBUSY: a process uses it."""
    libc.call("umount2", _text(target), UMOUNT_NOFOLLOW)


def sync_file_system(fd: int) -> None:
    """Write the whole file system of fd to stable storage (errors are reported since Linux 5.8)."""
    libc.call("syncfs", fd)


def _text(value: str | None) -> ctypes.c_char_p:
    return ctypes.c_char_p(None if value is None else os.fsencode(value))


@dataclass(frozen=True, slots=True)
class MountEntry:
    """One mount of a process's namespace, as /proc/PID/mountinfo shows it; device is its major and minor number."""

    mount_id: int
    device: tuple[int, int]
    mount_point: str
    source: str


def mount_entries(process: str = "self") -> list[MountEntry]:
    """Every mount of a process's namespace in the kernel's order: a later one on the same directory covers the others.

    Raises OSError for a process that has ended or may not be examined.
    """
    with open(f"/proc/{process}/mountinfo", "rb") as file:
        return [_entry(line) for line in file]


def _entry(line: bytes) -> MountEntry:
    # proc_pid_mountinfo(5): id parent major:minor root mount-point options [optional]... - type source options
    before, _, after = line.partition(b" - ")
    left, right = before.split(b" "), after.split(b" ")
    major, minor = left[2].split(b":")
    return MountEntry(int(left[0]), (int(major), int(minor)), _unescaped(left[4]), _unescaped(right[1]))


def _unescaped(field: bytes) -> str:
    # Blank, tab, newline and backslash are written as three octal digits.
    return os.fsdecode(re.sub(rb"\\([0-7]{3})", lambda match: bytes([int(match.group(1), 8) & 0xFF]), field))
