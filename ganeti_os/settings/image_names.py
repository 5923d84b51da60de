# SPDX-License-Identifier: MIT
"""What the name of an image's file says: whether it is a whole file name, its IMAGE_TYPE, its architecture."""

from __future__ import annotations

COMPRESSIONS = (".xz", ".gz", ".zst", ".bz2")  # of a disk image, which is installed as it is decompressed
_DISKS = (".img", ".raw", ".qcow2", ".disk")
_TARBALLS = (
    *(f".tar{ending}" for ending in ("", *COMPRESSIONS, ".lz", ".lz4", ".lzma")),
    *(".tgz", ".txz", ".tzst", ".tbz", ".tbz2"),
)
ROOT_DUMP, BOOT_DUMP = "-root.dump", "-boot.dump"
_DUMPS = (ROOT_DUMP, ".dump")

# Every spelling of an architecture that distributions publish images under; the first is what uname(2) says, or x86.
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
    """Tell whether the name ends as files of images do, so that it is a whole file name."""
    return type_by_ending(name) is not None


def type_by_ending(name: str) -> str | None:
    """Return the IMAGE_TYPE of a file of this name; None where the name does not tell."""
    lower = name.lower()
    if lower.endswith(_TARBALLS):
        return "tarball"
    if lower.endswith(_DUMPS):
        return "dump"
    for compression in COMPRESSIONS:
        lower = lower.removesuffix(compression)
    return "qemu" if lower.endswith(_DISKS) else None


def is_disk_in_tarball(path: str) -> bool:
    """Tell whether the first file of a tarball is a disk image: Debian's and Google's disk.raw, at the top of it."""
    name = path.removeprefix("./")
    return "/" not in name and name.lower().endswith(_DISKS)


def spellings(arch: str) -> list[str]:
    """Return the names of an architecture, the given one first; it alone where it is not known."""
    names = next((names for names in SPELLINGS if arch in names), ())
    return [arch, *(name for name in names if name != arch)]
