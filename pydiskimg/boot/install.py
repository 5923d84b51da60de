# SPDX-License-Identifier: MIT
"""Write GRUB to a disk: the core image, durably, before the first sector that loads it."""

from __future__ import annotations

from pydiskimg.boot.boot_sector import SECTOR, boot_sector
from pydiskimg.boot.core_area import CoreArea, check_core_area, check_sectors, own_ranges
from pydiskimg.boot.core_image import CoreImage
from pydiskimg.boot.files import Grub
from pydiskimg.errors import DoesNotFitError
from pydiskimg.protocols import Disk, read_bytes
from pydiskimg.units import format_bytes


def install_core(disk: Disk, core: CoreImage, area: CoreArea, grub: Grub) -> bytes:
    """Write the core image to its area, flush it, and return the first sector that loads it.

    The sector has the disk's own partition table; nothing boots before the caller writes it. The contents of the area
    are overwritten: see check_core_area(). Raises BootLoaderError for a sector size that no BIOS boots from and for an
    unknown GRUB, and DoesNotFitError, all before the first write; and StorageError.
    """
    check_sectors(disk)
    if core.size > area.length:
        raise DoesNotFitError(
            f"{disk.name}: the boot loader has {format_bytes(core.size)}, {area.name} has "
            f"{format_bytes(area.length)}; nothing was written",
            needed=core.size,
            available=area.length,
        )
    first = area.start // SECTOR
    sector = boot_sector(grub, first, read_bytes(disk, 0, SECTOR))
    disk.write(area.start, core.at(first))
    disk.flush()
    return sector


def write_boot_loader(disk: Disk, core: CoreImage, area: CoreArea, grub: Grub) -> None:
    """Write the core image and then the first sector, on a disk that has its partition table.

    The rest of a replaced GRUB's core image is zeroed. Raises as check_core_area() and install_core().
    """
    check_sectors(disk)
    loader = grub.file("diskboot.img")
    old = list(own_ranges(disk, area, loader=loader))
    check_core_area(disk, area, min(core.size, area.length), loader=loader)
    sector = install_core(disk, core, area, grub)
    end = area.start + core.size
    for first, last in old:
        if last > end:
            disk.zero(max(first, end), last - max(first, end))
    disk.write(0, sector)
    disk.flush()
