# SPDX-License-Identifier: MIT
"""The meaning of an image file's name: whether it is a whole file name, its IMAGE_TYPE, its architecture."""

from __future__ import annotations

COMPRESSIONS = (".xz", ".gz", ".zst", ".bz2")  # for a disk image, which is installed while it is decompressed
_DISKS = (".img", ".raw", ".qcow2", ".disk")
_TARBALLS = (
    *(f".tar{ending}" for ending in ("", *COMPRESSIONS, ".lz", ".lz4", ".lzma")),
    *(".tgz", ".txz", ".tzst", ".tbz", ".tbz2"),
)
ROOT_DUMP, BOOT_DUMP = "-root.dump", "-boot.dump"
_DUMPS = (ROOT_DUMP, ".dump")

# Every spelling of an architecture in published image names; the first is uname(2)'s, or x86.
SPELLINGS = (
    ("x86_64", "amd64", "x64"),
    ("x86", "i386", "i486", "i586", "i686"),
    ("aarch64", "arm64"),
    ("armv7l", "armhf", "armv7", "armv7hl"),
    ("ppc64le", "ppc64el", "powerpc64le"),
    ("riscv64",),
    ("s390x",),
    ("loongarch64", "loong64"),
)


def is_file_name(name: str) -> bool:
    """True if the name has the ending of an image file, so that it is a whole file name."""
    return type_by_ending(name) is not None


def type_by_ending(name: str) -> str | None:
    """Return the IMAGE_TYPE of a file of this name; None if the name does not determine it."""
    lower = name.lower()
    if lower.endswith(_TARBALLS):
        return "tarball"
    if lower.endswith(_DUMPS):
        return "dump"
    for compression in COMPRESSIONS:
        lower = lower.removesuffix(compression)
    return "qemu" if lower.endswith(_DISKS) else None


def is_disk_in_tarball(path: str) -> bool:
    """True if the first file of a tarball is a disk image: Debian's and Google's disk.raw, at its top level."""
    name = path.removeprefix("./")
    return "/" not in name and name.lower().endswith(_DISKS)


def spellings(arch: str) -> list[str]:
    """Return the names of an architecture, the given one first; only that if it is unknown."""
    names = next((names for names in SPELLINGS if arch in names), ())
    return [arch, *(name for name in names if name != arch)]
