# SPDX-License-Identifier: MIT
"""The result of a probe, and how bytes that a guest wrote become text."""

from __future__ import annotations

from pydiskimg.startup import ValueObject

EXT_TYPES = ("ext2", "ext3", "ext4")
MOUNTABLE_TYPES = (*EXT_TYPES, "xfs", "btrfs", "vfat")


class FileSystemKind(ValueObject):
    """What a disk or partition holds, spelled as blkid spells it. probe() returns it.

    type is ext2, ext3, ext4, xfs, btrfs, vfat, swap, swsuspend (swap with a hibernated system), LVM2_member or
    crypto_LUKS. uuid is as in /etc/fstab, ABCD-1234 for vfat, and None if it was never set. label is None when it is
    empty; a label may be any text that a guest has written.

    >>> from pydiskimg import MemoryDisk, make_ext, probe
    >>> disk = MemoryDisk(16 << 20)
    >>> made = make_ext(disk, label="data")
    >>> probe(disk) == type(probe(disk))("ext4", str(made.uuid), "data")
    True
    """

    __slots__ = ("label", "type", "uuid")

    def __init__(self, type: str, uuid: str | None = None, label: str | None = None) -> None:  # noqa: A002
        self.type = type
        self.uuid = uuid
        self.label = label

    @property
    def is_ext(self) -> bool:
        """Whether it is an ext2, ext3 or ext4, which are read and changed without a mount."""
        return self.type in EXT_TYPES

    @property
    def is_mountable(self) -> bool:
        """Whether it is a file system, rather than swap or a part of something else."""
        return self.type in MOUNTABLE_TYPES


def uuid_text(raw: bytes) -> str | None:
    """Return the 16 bytes as text; None if all are zero."""
    if not any(raw):
        return None
    digits = raw.hex()  # by hand: importing the module uuid takes longer than reading a small file
    return "-".join((digits[:8], digits[8:12], digits[12:16], digits[16:20], digits[20:]))


def label_text(raw: bytes) -> str | None:
    """Return a label up to its first zero byte and without trailing blanks; None if nothing is left.

    A label is arbitrary bytes of a guest; the text is safe in messages: see printable(), exact.
    """
    label = raw.split(b"\0", 1)[0].rstrip(b" \t\n\v\f\r")
    if not label:
        return None
    from pydiskimg.text import printable  # imported here: many file systems have no label

    return printable(label, exact=True)
