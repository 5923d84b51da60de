# SPDX-License-Identifier: MIT
"""What a probe says, and how bytes that a guest wrote become text."""

from __future__ import annotations

import uuid
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class FileSystemKind:
    """What lies on a disk or partition, spelled as blkid spells it.

    type is ext2, ext3, ext4, xfs, btrfs, vfat, swap, swsuspend (a swap area with a hibernated system), LVM2_member or
    crypto_LUKS. uuid is as in /etc/fstab: lower case in five groups, ABCD-1234 for vfat, six groups of letters and
    digits for LVM; None when it was never set. label is None when it is empty.
    """

    type: str
    uuid: str | None = None
    label: str | None = None


def uuid_text(raw: bytes) -> str | None:
    """Return the 16 bytes as text; all zero is none."""
    return str(uuid.UUID(bytes=raw)) if any(raw) else None


def label_text(raw: bytes) -> str | None:
    """Return a label up to its first zero byte and without trailing blanks; nothing left is none.

    It is arbitrary bytes of a guest. What is not UTF-8, not printable, or a backslash comes out as \\xNN for each of
    its bytes, so that it is safe in messages and says exactly what is there.
    """
    text = raw.split(b"\0", 1)[0].rstrip(b" \t\n\v\f\r").decode("utf-8", "surrogateescape")
    return "".join(_shown(character) for character in text) or None


def _shown(character: str) -> str:
    if character.isprintable() and character != "\\":
        return character
    return "".join(f"\\x{byte:02x}" for byte in character.encode("utf-8", "surrogateescape"))
