# SPDX-License-Identifier: MIT
"""boot.img, the code in the disk's first sector: which fields are patched, and which bytes of the sector stay."""

from __future__ import annotations

from pydiskimg.boot.files import Grub
from pydiskimg.boot.refusal import check
from pydiskimg.partitions.partition import MBR_SIGNATURE
from pydiskimg.records import Record

SECTOR = 512
# boot.S and boot.h of GRUB 2; little-endian.
BOOT_IMAGE = Record("boot.img", "<", SECTOR, """
    000 2s   jump
    002 1s   nop
    003 87s  bpb                of a file system that begins here; a disk's own values stay
    05a H    kernel_address     to which the core image is loaded
    05c Q    kernel_sector      at which it begins
    064 B    boot_drive         0xff: what the BIOS says
    065 1s   cli
    066 2s   drive_check
    068 152s code
    100 184s messages
    1b8 70s  partition_table    with the disk signature
    1fe 2s   signature
""")  # fmt: skip
JUMP = b"\xeb\x63"
_FIELDS = slice(BOOT_IMAGE.offsets["kernel_address"], BOOT_IMAGE.offsets["drive_check"] + 1)
_UNSET = bytes.fromhex("0080 0100000000000000 ff fa eb")
_NO_CHECK = b"\x90\x90"  # hard disks only: the number of a floppy drive needs no correction
MESSAGE = b"GRUB \0Geom\0Hard Disk\0Read\0 Error"


def boot_sector(grub: Grub, core_sector: int, old: bytes) -> bytes:
    """Return the first sector of a disk whose core image begins at core_sector; old is the previous sector.

    Raises BootLoaderError for a boot.img of an unknown GRUB.
    """
    contents, path = grub.file("boot.img"), grub.path("boot.img")
    check(path, "has another size", found=len(contents), expected=SECTOR)
    check(path, "begins with other code", found=contents[: len(JUMP)], expected=JUMP)
    check(path, f"has other bytes at {_FIELDS.start:#x}", found=contents[_FIELDS], expected=_UNSET)
    check(path, "does not end as a boot sector", found=contents[-2:], expected=MBR_SIGNATURE)
    sector, disk = bytearray(contents), BOOT_IMAGE.unpack(old)
    kept = {name: disk[name] for name in ("bpb", "partition_table")}
    BOOT_IMAGE.put(sector, {"kernel_sector": core_sector, "drive_check": _NO_CHECK, **kept})
    return bytes(sector)


def names_core(sector: bytes) -> int | None:
    """Return the first sector of the core image that the GRUB in a disk's first sector loads; None without a GRUB."""
    fields = BOOT_IMAGE.unpack(sector)
    return int(fields["kernel_sector"]) if fields["jump"] == JUMP and MESSAGE in fields["messages"] else None
