# SPDX-License-Identifier: MIT
"""Which processes keep a mount busy, from /proc alone."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Holder:
    """A process that uses a mount; command is the kernel's short name of it (15 bytes)."""

    pid: int
    command: str

    def __str__(self) -> str:
        return f"{self.command} (process {self.pid})"


def holders(mount_point: str, mount_id: int) -> list[Holder]:
    """Return the processes whose working directory, root, program, open files or mappings lie on the mount.

    mount_id is that of /proc/self/mountinfo. Nothing on the mount is opened or looked up, so a dead file system
    cannot make this wait. Processes that end meanwhile, or that we may not look at, are left out.
    """
    found = []
    for name in os.listdir("/proc"):
        if not name.isdigit():
            continue
        base = f"/proc/{name}"
        try:
            if any(_uses(base, os.path.realpath(mount_point), mount_id)):
                found.append(Holder(int(name), _first_line(f"{base}/comm")))
        except OSError:
            continue
    return sorted(found, key=lambda holder: holder.pid)


def _uses(base: str, mount_point: str, mount_id: int) -> Iterator[bool]:
    for link in ("cwd", "root", "exe"):
        yield _link_below(f"{base}/{link}", mount_point)
    for name in _names(f"{base}/fdinfo"):
        yield _fd_mount_id(f"{base}/fdinfo/{name}") == mount_id
    yield _maps_below(f"{base}/maps", mount_point)


def _below(path: str, mount_point: str) -> bool:
    return path == mount_point or path.startswith(mount_point.rstrip("/") + "/")


def _link_below(link: str, mount_point: str) -> bool:
    try:
        return _below(os.readlink(link), mount_point)
    except OSError:  # kernel threads have none
        return False


def _names(directory: str) -> list[str]:
    try:
        return os.listdir(directory)
    except OSError:
        return []


def _fd_mount_id(path: str) -> int | None:
    try:
        with open(path, encoding="ascii", errors="replace") as file:
            return next((int(line.split()[1]) for line in file if line.startswith("mnt_id:")), None)
    except OSError:
        return None


def _maps_below(path: str, mount_point: str) -> bool:
    # proc_pid_maps(5): range, access, offset, device, inode and the path, which may hold blanks
    with open(path, encoding="utf-8", errors="surrogateescape") as file:
        return any(_below(line.rstrip("\n").split(maxsplit=5)[5], mount_point) for line in file if "/" in line)


def _first_line(path: str) -> str:
    with open(path, encoding="utf-8", errors="backslashreplace") as file:
        return file.readline().rstrip("\n")
