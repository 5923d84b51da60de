# SPDX-License-Identifier: MIT
"""The file systems of a new system for its boot loader, and the root for its kernel."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

_BOOT = "/boot"


@dataclass(frozen=True, slots=True, kw_only=True)
class BootVolumes:
    """root_uuid is the root file system's; boot_uuid that of a separate /boot, otherwise None.

    root_partuuid is the root partition's, by which a kernel without an initial RAM disk (has_initrd False) finds it.
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
        """The prefix of paths in /boot on the file system with the kernels."""
        return "" if self.boot_uuid else _BOOT

    def loader_path(self, path: str) -> str:
        """Return a path of the guest below /boot in the boot loader's form."""
        return self.prefix + path.removeprefix(_BOOT)

    def moved(self, path: str, is_file: Callable[[str], bool]) -> str | None:
        """Return the path on this system for a path of the old machine's boot loader; None if no such file is in /boot.

        The old path begins with /boot, with no prefix (a separate /boot) or with a btrfs subvolume (/@/boot).
        """
        _, _, below = path.rpartition(f"{_BOOT}/")
        name = "/" + below.lstrip("/")
        return self.prefix + name if is_file(_BOOT + name) else None
