# SPDX-License-Identifier: MIT
"""boot.img, the code in the disk's first sector: what is patched in it, and what of the sector stays the disk's own."""

from __future__ import annotations

import struct

from pydiskimg.boot.files import Grub
from pydiskimg.boot.refusal import check

SECTOR = 512
JUMP = b"\xeb\x63"
# The parameter block of a file system that begins here; a disk's own values stay.
_PARAMETERS = slice(0x03, 0x5A)
CODE_END = 0x1B8
_TABLE = slice(CODE_END, 0x1FE)  # disk signature and partition table
_SIGNATURE = b"\x55\xaa"
CORE_SECTOR = struct.Struct("<Q")
CORE_SECTOR_OFFSET = 0x5C
# The address to load to, the core image's sector, the drive (0xff: what the BIOS says), and a check of that.
_FIELDS = slice(0x5A, 0x67)
_UNSET = bytes.fromhex("0080 0100000000000000 ff fa eb")
_DRIVE_CHECK = slice(0x66, 0x68)
_NO_CHECK = b"\x90\x90"  # hard disks only: the number of a floppy's drive needs no correction
MESSAGE = b"GRUB \0Geom\0Hard Disk\0Read\0 Error"
MESSAGE_RANGE = slice(0x100, CODE_END)


def boot_sector(grub: Grub, core_sector: int, old: bytes) -> bytes:
    """Return the first sector of a disk whose core image begins at core_sector; old is the sector as it was.

    Raises BootLoaderError for a boot.img of an unknown GRUB.
    """
    contents, path = grub.file("boot.img"), grub.path("boot.img")
    check(path, "has another size", found=len(contents), expected=SECTOR)
    check(path, "begins with other code", found=contents[: len(JUMP)], expected=JUMP)
    check(path, f"has other bytes at {_FIELDS.start:#x}", found=contents[_FIELDS], expected=_UNSET)
    check(path, "does not end as a boot sector", found=contents[-2:], expected=_SIGNATURE)
    sector = bytearray(contents)
    CORE_SECTOR.pack_into(sector, CORE_SECTOR_OFFSET, core_sector)
    sector[_DRIVE_CHECK] = _NO_CHECK
    for kept in (_PARAMETERS, _TABLE):
        sector[kept] = old[kept]
    return bytes(sector)


def names_core(sector: bytes) -> int | None:
    """Return the sector at which the core image of the GRUB in a disk's first sector begins; None without a GRUB."""
    if sector[: len(JUMP)] != JUMP or MESSAGE not in sector[MESSAGE_RANGE]:
        return None
    (found,) = CORE_SECTOR.unpack_from(sector, CORE_SECTOR_OFFSET)
    return int(found)
