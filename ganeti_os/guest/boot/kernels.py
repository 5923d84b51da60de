# SPDX-License-Identifier: MIT
"""The kernels in a guest's /boot, each with the initial RAM disk that belongs to it, by distributions' file names."""

from __future__ import annotations

import re
from dataclasses import dataclass

from ganeti_os.guest.draft import Draft
from ganeti_os.guest.network.addresses import natural_order

DIRECTORY = "/boot"
_LIMIT = 256  # kernels; a menu with more is of no use

# Debian, Red Hat, SUSE, Arch, Alpine: vmlinuz-VERSION; Gentoo: kernel-VERSION, too; other machines: vmlinux, Image.
_KERNEL = re.compile(r"(?:vmlinuz|vmlinux|kernel|bzImage|Image)-([A-Za-z0-9][A-Za-z0-9._+~-]*)")
_COPY = re.compile(r"\.(?:old|bak|orig|hmac|sig|gz|dpkg-[a-z]+|rpm[a-z]+|efi\.signed)$")
_RESCUE = re.compile(r"(?:^0-)?rescue\b")
_INITRDS = (
    "initrd.img-{}",  # Debian, Ubuntu
    "initramfs-{}.img",  # Red Hat, Fedora, Arch, Gentoo's dracut
    "initrd-{}",  # SUSE
    "initrd-{}.img",  # Red Hat 5
    "initramfs-{}",  # Alpine
)


@dataclass(frozen=True, slots=True)
class Kernel:
    """Names of files in /boot; initrd is None for a kernel that needs none, or has none."""

    version: str
    image: str
    initrd: str | None

    @property
    def is_rescue(self) -> bool:
        return bool(_RESCUE.search(self.version))


def find_kernels(draft: Draft) -> list[Kernel]:
    """Return the kernels in /boot, the newest first and rescue kernels last."""
    names = draft.names(DIRECTORY)
    found: dict[str, Kernel] = {}
    for name in names:
        match = _KERNEL.fullmatch(name)
        if match and not _COPY.search(name) and draft.is_file(f"{DIRECTORY}/{name}"):
            found.setdefault(match.group(1), Kernel(match.group(1), name, _initrd(match.group(1), names)))
    kernels = sorted(found.values(), key=lambda kernel: natural_order(kernel.version), reverse=True)
    return sorted(kernels, key=lambda kernel: kernel.is_rescue)[:_LIMIT]


def _initrd(version: str, names: list[str]) -> str | None:
    for form in _INITRDS:
        if form.format(version) in names:
            return form.format(version)
    # Gentoo's genkernel puts the machine between: initramfs-genkernel-x86_64-VERSION, initramfs-x86_64-VERSION.
    ending = (f"-{version}", f"-{version}.img")
    return next((name for name in names if name.startswith("initramfs-") and name.endswith(ending)), None)
