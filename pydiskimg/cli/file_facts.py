# SPDX-License-Identifier: MIT
"""The facts of ls and stat about a file, as JSON and as lines."""

from __future__ import annotations

import os
import stat
import time

from pydiskimg.startup import TYPE_CHECKING
from pydiskimg.text import printable

if TYPE_CHECKING:
    from typing import Any

    from pydiskimg.fs.ext4.tree import ExtTree

_KINDS = {
    stat.S_IFREG: "file",
    stat.S_IFDIR: "directory",
    stat.S_IFLNK: "symlink",
    stat.S_IFCHR: "character device",
    stat.S_IFBLK: "block device",
    stat.S_IFIFO: "fifo",
    stat.S_IFSOCK: "socket",
}
_NANOSECONDS = 1_000_000_000
_SECTOR = 512
_UNIT, _UNITS = 1024, "KMGTPE"
_DEVICES = (stat.S_IFCHR, stat.S_IFBLK)


def target_of(tree: ExtTree, path: str, status: os.stat_result) -> str | None:
    """Return the target of the file with this status; None if it is not a symlink."""
    return tree.readlink(path) if stat.S_ISLNK(status.st_mode) else None


def file_facts(path: str, status: os.stat_result, target: str | None) -> dict[str, Any]:
    """Return the facts of one file; target is a symlink's target. A name that is not UTF-8 has \\xNN in it."""
    facts: dict[str, Any] = {
        "path": shown(path),
        "type": _KINDS[stat.S_IFMT(status.st_mode)],
        "mode": f"{stat.S_IMODE(status.st_mode):04o}",
        "uid": status.st_uid,
        "gid": status.st_gid,
        "size": status.st_size,
        "links": status.st_nlink,
        "inode": status.st_ino,
        "modified": time_text(status.st_mtime_ns),
    }
    if target is not None:
        facts["target"] = shown(target)
    if stat.S_IFMT(status.st_mode) in _DEVICES:
        facts["device"] = f"{os.major(status.st_rdev)}:{os.minor(status.st_rdev)}"
    return facts


def other_times(status: os.stat_result) -> dict[str, Any]:
    """Return the times of a file other than that of its contents."""
    return {"accessed": time_text(status.st_atime_ns), "changed": time_text(status.st_ctime_ns)}


def allocated_bytes(status: os.stat_result) -> dict[str, Any]:
    """Return how much space of its file system a file takes."""
    return {"allocated": status.st_blocks * _SECTOR}


def long_line(
    path: str,
    status: os.stat_result,
    target: str | None,
    *,
    in_units: bool = False,
    all_times: bool = False,
    is_extended: bool = False,
) -> str:
    """Return the line of `ls -l` for the file, with times in UTC.

    With in_units the size is as in `ls -h`; with all_times there are the times of its contents, of the last access and
    of its inode; with is_extended its inode and blocks of 512 bytes precede it, as in `ls -is`.
    """
    size = short_size(status.st_size, up=True) if in_units else str(status.st_size)
    if stat.S_IFMT(status.st_mode) in _DEVICES:
        size = f"{os.major(status.st_rdev)}, {os.minor(status.st_rdev)}"
    name = printable(path) + (f" -> {printable(target)}" if target is not None else "")
    more = [status.st_atime_ns, status.st_ctime_ns] if all_times else []
    times = (time_text(time)[:16].replace("T", " ") for time in (status.st_mtime_ns, *more))
    return (
        (f"{status.st_ino:>7} {status.st_blocks:>7} " if is_extended else "")
        + f"{stat.filemode(status.st_mode)} {status.st_nlink:>3} {status.st_uid:>5} {status.st_gid:>5} {size:>10} "
        + f"{' '.join(times)} {name}"
    )


def short_size(size: int, *, up: bool = False) -> str:
    """Return a size (bytes) in three characters and a unit: 512, 1.5K, 10G.

    It is rounded to the nearest, as the virt-* tools do, or up, as `ls -h` does.
    """
    if size < _UNIT:
        return str(size)
    unit, power = _UNIT, 0
    while _divided(size, unit, up=up) >= _UNIT and power < len(_UNITS) - 1:  # 1023.6K is 1.0M
        unit, power = unit * _UNIT, power + 1
    tenths = _divided(10 * size, unit, up=up)
    whole = f"{tenths // 10}.{tenths % 10}" if tenths < 100 else str(_divided(size, unit, up=up))
    return f"{whole}{_UNITS[power]}"


def _divided(size: int, unit: int, *, up: bool) -> int:
    """Return size / unit, rounded; halves to an even number."""
    whole, rest = divmod(size, unit)
    return whole + (rest > 0 if up else 2 * rest + whole % 2 > unit)


def time_text(nanoseconds: int) -> str:
    """Return a time as 2026-11-30T02:25:35.632230983Z."""
    seconds, rest = divmod(nanoseconds, _NANOSECONDS)
    return f"{time.strftime('%Y-%m-%dT%H:%M:%S', time.gmtime(seconds))}.{rest:09}Z"


def shown(name: str) -> str:
    """Return a name for JSON: bytes that are not UTF-8 become \\xNN."""
    return name if name.isprintable() else "".join(_character(character) for character in name)


def _character(character: str) -> str:
    return f"\\x{ord(character) - 0xDC00:02x}" if 0xDC80 <= ord(character) < 0xDD00 else character
