# SPDX-License-Identifier: MIT
"""Which processes use a directory's file systems and so keep them from being unmounted, found in /proc (proc(5)).

A use is recognised by the mount's id (a bind mount of /dev below the directory has its own), by the device number for
mapped files and for mount namespaces of other processes, and by the path if the directory is not a mount point. Files
are never opened through another process: one on a dead network file system would block.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass

from pydiskimg.linux.mounts import mount_entries
from pydiskimg.text import printable

_MAPPING = re.compile(r"\S+ \S+ \S+ ([0-9a-f]+):([0-9a-f]+) \d+ *(.*)")
_LINKS = (("cwd", "working directory"), ("root", "root directory"), ("exe", "program"))


@dataclass(frozen=True, slots=True)
class Holder:
    """A process, the command it runs, and what it uses: "working directory /mnt/home"."""

    pid: int
    command: str
    use: str

    def __str__(self) -> str:
        return f"process {self.pid} ({self.command}: {self.use})"


@dataclass(frozen=True, slots=True)
class _Wanted:
    """How a use is recognised; path is empty when the directory is a mount point."""

    devices: frozenset[tuple[int, int]]
    mounts: frozenset[int]
    path: str
    namespace: str

    def below(self, path: str) -> bool:
        return bool(self.path) and (path == self.path or path.startswith(self.path.rstrip("/") + "/"))


def holders(target: str, *, ourselves: bool = False) -> list[Holder]:
    """Return the processes that use the file system at target or one mounted below it; this one with ourselves.

    Processes that this one may not examine are left out; as root there are none.
    """
    wanted = _wanted(os.path.realpath(target))
    pids = sorted(int(name) for name in os.listdir("/proc") if name.isdigit())
    uses = ((pid, _use(str(pid), wanted)) for pid in pids if ourselves or pid != os.getpid())
    return [Holder(pid, _command(str(pid)), use) for pid, use in uses if use]


def _wanted(target: str) -> _Wanted:
    mounts = mount_entries()
    inside = [mount for mount in mounts if f"{mount.mount_point}/".startswith(f"{target.rstrip('/')}/")]
    elsewhere = {mount.device for mount in mounts if mount not in inside}
    devices = {mount.device for mount in inside} - elsewhere
    status = os.stat(target)
    is_mount_point = any(mount.mount_point == target for mount in inside)
    if is_mount_point and devices:  # on btrfs, files have another device number than the mount
        devices.add((os.major(status.st_dev), os.minor(status.st_dev)))
        devices -= elsewhere
    return _Wanted(
        frozenset(devices),
        frozenset(mount.mount_id for mount in inside),
        "" if is_mount_point else target,
        os.readlink("/proc/self/ns/mnt"),
    )


def _use(process: str, wanted: _Wanted) -> str:
    """Return the first use that the process makes of it, or nothing."""
    for find in (_links, _files, _mappings, _namespace):
        try:
            use = find(process, wanted)
        except OSError:  # the process ended meanwhile
            continue
        if use:
            return use
    return ""


def _links(process: str, wanted: _Wanted) -> str:
    for name, meaning in _LINKS:
        link = f"/proc/{process}/{name}"
        try:
            path = os.readlink(link)
            if wanted.below(path) or _mount_id(link) in wanted.mounts:
                return f"{meaning} {path}"
        except OSError:  # a kernel thread has no executable
            continue
    return ""


def _mount_id(path: str) -> int:
    fd = os.open(path, os.O_PATH | os.O_CLOEXEC)
    try:
        return _mount_id_in(f"/proc/self/fdinfo/{fd}")
    finally:
        os.close(fd)


def _mount_id_in(path: str) -> int:
    with open(path, encoding="ascii", errors="replace") as file:
        for line in file:
            if line.startswith("mnt_id:"):
                return int(line.split()[1])
    return -1


def _files(process: str, wanted: _Wanted) -> str:
    for name in os.listdir(f"/proc/{process}/fd"):
        link = f"/proc/{process}/fd/{name}"
        try:
            path = os.readlink(link)
            if wanted.below(path) or _mount_id_in(f"/proc/{process}/fdinfo/{name}") in wanted.mounts:
                return f"open file {printable(path)}"
        except OSError:  # closed meanwhile
            continue
    return ""


def _mappings(process: str, wanted: _Wanted) -> str:
    with open(f"/proc/{process}/maps", encoding="utf-8", errors="surrogateescape") as file:
        for line in file:
            match = _MAPPING.match(line)
            if match is None:
                continue
            major, minor, path = match.groups()
            if (int(major, 16), int(minor, 16)) in wanted.devices or wanted.below(path):
                return f"mapped file {printable(path)}"
    return ""


def _namespace(process: str, wanted: _Wanted) -> str:
    if os.readlink(f"/proc/{process}/ns/mnt") == wanted.namespace:
        return ""
    for mount in mount_entries(process):
        if mount.device in wanted.devices:
            return f"mount namespace of its own with {printable(mount.mount_point)}"
    return ""


def _command(process: str) -> str:
    """Return the command line, shortened; the short name if there is none."""
    try:
        with open(f"/proc/{process}/cmdline", "rb") as file:
            words = file.read(4096).rstrip(b"\0").split(b"\0")
        text = b" ".join(words)
        if not text:
            with open(f"/proc/{process}/comm", "rb") as file:
                text = file.read().strip()
    except OSError:
        return "ended since"
    return printable(text, limit=80)
