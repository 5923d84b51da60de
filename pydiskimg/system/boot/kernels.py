# SPDX-License-Identifier: MIT
"""The kernels in a guest's /boot with their initial RAM disks, by the distributions' names for them."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from pydiskimg.errors import StorageError
from pydiskimg.system.edits.draft import Draft

DIRECTORY = "/boot"
NAMES_LIMIT = 4096  # in /boot; a system has about a dozen
KERNELS_LIMIT = 64

# Most distributions use vmlinuz-; vmlinux- and Image- are for other machines, bzImage- and kernel- are Gentoo's.
_KERNEL = re.compile(r"(vmlinuz|vmlinux|bzImage|Image|zImage|kernel)(?:-([A-Za-z0-9._+~-]{1,200}))?")
_OTHERS = (".gz", ".xz", ".bz2", ".zst", ".sig", ".sha256", ".hmac", ".config", ".efi.signed")
_INITRDS = (
    "initrd.img-{}",  # Debian, Ubuntu
    "initramfs-{}.img",  # Red Hat, Fedora, Arch, dracut and genkernel
    "initrd-{}",  # SUSE
    "initramfs-{}",  # Alpine, genkernel
    "initrd-{}.img",  # Red Hat 5
)
_NAMELESS_INITRDS = ("initrd.img", "initramfs.img", "initrd", "initramfs")
_OLD = ".old"
_RESCUE = re.compile(r"rescue|(?:^|-)kdump$|\.old$|fallback")
_PART = re.compile(r"[0-9]+|[A-Za-z]+")


@dataclass(frozen=True, slots=True)
class Kernel:
    """Paths in the guest; version is the part after the kernel's name, possibly empty; initrd may be missing."""

    version: str
    path: str
    initrd: str | None

    @property
    def is_rescue(self) -> bool:
        """True for a kernel that is started only if the others fail."""
        return _RESCUE.search(self.version) is not None


def find_kernels(draft: Draft) -> list[Kernel]:
    """Return the kernels in /boot on the file system of /boot itself, newest first, those for a rescue last.

    Raises StorageError. At most KERNELS_LIMIT.
    """
    found = sorted(_kernels(draft), key=_order, reverse=True)
    for preferred in (_is_compressed, _is_versioned):
        found = [kernel for kernel in found if preferred(kernel)] or found
    return found[:KERNELS_LIMIT]


def _is_compressed(kernel: Kernel) -> bool:
    """False for a vmlinux with a vmlinuz of the same version: it is for a debugger, and GRUB does not start it."""
    return not kernel.path.startswith(f"{DIRECTORY}/vmlinux")


def _is_versioned(kernel: Kernel) -> bool:
    """False for /boot/vmlinuz, a symlink to one of the others, if there are any."""
    return bool(kernel.version)


def version_key(version: str) -> list[tuple[int, int, str]]:
    """Return a key that sorts versions as people read them: 6.10 after 6.9, and 6.1-rc1 before 6.1."""
    key = [_part_key(part) for part in _PART.findall(version)]
    return [*key, (1, 0, "")]


def _part_key(part: str) -> tuple[int, int, str]:
    if part[0].isdigit():
        return 3, int(part), ""
    return (0 if part == "rc" else 2), 0, part


def _order(kernel: Kernel) -> tuple[bool, list[tuple[int, int, str]], str]:
    return not kernel.is_rescue, version_key(kernel.version), kernel.path


def _kernels(draft: Draft) -> Iterator[Kernel]:
    names = draft.names(DIRECTORY, limit=NAMES_LIMIT)
    known = set(names)
    for name in names:
        match = _KERNEL.fullmatch(name)
        if match and not name.endswith(_OTHERS) and _is_loadable(draft, f"{DIRECTORY}/{name}"):
            version = match.group(2) or ""
            yield Kernel(version, f"{DIRECTORY}/{name}", _initrd(draft, known, version))


def _initrd(draft: Draft, names: set[str], version: str) -> str | None:
    candidates = [pattern.format(version) for pattern in _INITRDS] if version else [*_NAMELESS_INITRDS]
    if version.endswith(_OLD):  # Gentoo's kernel-V.old and initramfs-V.img.old
        candidates += [pattern.format(version.removesuffix(_OLD)) + _OLD for pattern in _INITRDS]
    paths = [f"{DIRECTORY}/{name}" for name in candidates if name in names]
    return next((path for path in paths if _is_loadable(draft, path)), None)


def _is_loadable(draft: Draft, path: str) -> bool:
    """True if path is a file that GRUB can read: a symlink out of a separate /boot is broken for GRUB."""
    try:
        if not draft.is_file(path):
            return False
    except StorageError:  # a symlink to itself
        return False
    own, boot = draft.stat(path), draft.stat(DIRECTORY)
    return own is not None and boot is not None and own.st_dev == boot.st_dev and own.st_size > 0
