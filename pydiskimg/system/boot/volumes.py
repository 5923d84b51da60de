# SPDX-License-Identifier: MIT
"""Where a new system's boot loader finds its files, and which root it hands to the kernel."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

_BOOT = "/boot"


@dataclass(frozen=True, slots=True, kw_only=True)
class BootVolumes:
    """root_uuid is the root file system's; boot_uuid that of /boot where it is a file system of its own, else None.

    root_partuuid is the root partition's, by which a kernel without an initial RAM disk finds it: has_initrd is False.
    """

    root_uuid: str
    boot_uuid: str | None = None
    root_partuuid: str | None = None
    has_initrd: bool = True

    @property
    def uuid(self) -> str:
        """The UUID of the file system with the kernels."""
        return self.boot_uuid or self.root_uuid

    @property
    def root(self) -> str:
        """The kernel's root= argument."""
        if self.has_initrd or self.root_partuuid is None:
            return f"root=UUID={self.root_uuid}"
        return f"root=PARTUUID={self.root_partuuid}"

    def for_kernel(self, *, has_initrd: bool) -> BootVolumes:
        """Return the same for a kernel with or without an initial RAM disk."""
        return replace(self, has_initrd=has_initrd)

    @property
    def prefix(self) -> str:
        """What a path on the file system with the kernels has before the name of a file in /boot."""
        return "" if self.boot_uuid else _BOOT

    def loader_path(self, path: str) -> str:
        """Return a path of the guest below /boot as the boot loader has it."""
        return self.prefix + path.removeprefix(_BOOT)

    def moved(self, path: str, is_file: Callable[[str], bool]) -> str | None:
        """Return a path of the old machine's boot loader as it is here; None where no such file is in /boot.

        There it began with /boot, with nothing (a /boot of its own) or with a btrfs subvolume (/@/boot).
        """
        _, _, below = path.rpartition(f"{_BOOT}/")
        name = "/" + below.lstrip("/")
        return self.prefix + name if is_file(_BOOT + name) else None
