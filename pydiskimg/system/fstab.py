# SPDX-License-Identifier: MIT
"""fstab(5): which file system the guest mounts where."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from pydiskimg.files.tree import ReadableTree, Tree
from pydiskimg.system.edits.selinux import attributes_of_new

PATH = "/etc/fstab"
_HEADER = (
    "# /etc/fstab: static file system information; see fstab(5).\n"
    "#\n"
    "# <file system> <mount point> <type> <options> <dump> <pass>\n"
)
# A line with one of these would name a device of the system that the tarball was made from.
_DEVICE_PREFIXES = ("/dev/", "UUID=", "LABEL=", "PARTUUID=", "PARTLABEL=", "ID=")


@dataclass(frozen=True, slots=True)
class FstabLine:
    """One line: spec is UUID=... or another name of a device, mount_point is "none" for swap."""

    spec: str
    mount_point: str
    fs_type: str
    options: str = "defaults"
    dump: int = 0
    check_pass: int = 0

    def __str__(self) -> str:
        return f"{self.spec} {self.mount_point} {self.fs_type} {self.options} {self.dump} {self.check_pass}"


def parse(text: str) -> Iterator[FstabLine]:
    """Yield the entries of an fstab; other lines (comments, too few fields) are skipped."""
    for line in text.splitlines():
        fields = line.split()
        if len(fields) >= 3 and not fields[0].startswith("#"):
            spec, mount_point, fs_type = fields[:3]
            options = fields[3] if len(fields) > 3 else "defaults"
            yield FstabLine(spec, mount_point, fs_type, options, _number(fields, 4), _number(fields, 5))


def _number(fields: list[str], index: int) -> int:
    return int(fields[index]) if len(fields) > index and fields[index].isdecimal() and len(fields[index]) < 4 else 0


def read_entries(tree: ReadableTree) -> list[FstabLine]:
    """Return the entries of the guest's fstab; none when it has no fstab."""
    if not tree.exists(PATH):
        return []
    return list(parse(tree.read(PATH).decode("utf-8", "surrogateescape")))


def write_entries(tree: Tree, entries: Iterable[FstabLine]) -> None:
    """Write the guest's fstab: the entries, then the system's own lines without devices (tmpfs, proc, NFS)."""
    made = list(entries)
    ours = {entry.mount_point for entry in made}
    kept = [
        entry
        for entry in read_entries(tree)
        if not entry.spec.startswith(_DEVICE_PREFIXES) and entry.mount_point not in ours and entry.fs_type != "swap"
    ]
    text = _HEADER + "".join(f"{entry}\n" for entry in [*made, *kept])
    tree.write(PATH, text.encode("utf-8", "surrogateescape"), attributes=attributes_of_new(tree, PATH))
