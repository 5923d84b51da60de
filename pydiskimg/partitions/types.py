# SPDX-License-Identifier: MIT
"""Partition types by the names that sfdisk and parted use, with the type of each in an MBR and in a GPT."""

from __future__ import annotations

import re
from collections import namedtuple

from pydiskimg.errors import PartitionError
from pydiskimg.startup import TYPE_CHECKING
from pydiskimg.text import printable

if TYPE_CHECKING:
    from typing import Literal, TypeAlias

    Label: TypeAlias = Literal["dos", "gpt"]

_Fields = namedtuple("_Fields", ("name", "mbr", "guid", "others"))


class PartitionType(_Fields):
    """A name, its byte in an MBR, its GUID in a GPT (capitals), and other names; None if a table lacks the type."""

    __slots__ = ()


_BASIC_DATA = "EBD0A0A2-B9E5-4433-87C0-68B6B72699C7"
TYPES = (
    PartitionType("linux", 0x83, "0FC63DAF-8483-4772-8E79-3D69D8477DE4", ("l", "ext4")),
    PartitionType("swap", 0x82, "0657FD6D-A4AB-43C4-84E5-0933C84B4F4F", ("s", "linux-swap")),
    PartitionType("esp", 0xEF, "C12A7328-F81F-11D2-BA4B-00A0C93EC93B", ("u", "uefi", "efi")),
    PartitionType("bios-boot", None, "21686148-6449-6E6F-744E-656564454649", ("bios_grub", "bios_boot")),
    PartitionType("extended", 0x0F, None, ("e", "ex")),
    PartitionType("root-x86-64", None, "4F68BCE3-E8CD-4DB1-96E7-FBCAF984B709", ("linux-root-x86-64",)),
    PartitionType("root-x86", None, "44479540-F297-41B2-9AF7-D131D5F0458A", ("linux-root-x86",)),
    PartitionType("root-arm64", None, "B921B045-1DF0-41C3-AF44-4C6F280D3FAE", ("linux-root-arm64",)),
    PartitionType("root-arm", None, "69DAD710-2CE4-4E3C-B16C-21A1D49ABED3", ("linux-root-arm",)),
    PartitionType("root-riscv64", None, "72EC70A6-CF74-40E6-BD49-4BDA08E8F224", ("linux-root-riscv64",)),
    PartitionType("root-ppc64le", None, "C31C45E6-3F39-412E-80FB-4809C4980599", ("linux-root-ppc64le",)),
    PartitionType("root-s390x", None, "5EEAD9A9-FE09-4A1E-A1D7-520D00531306", ("linux-root-s390x",)),
    PartitionType("home", None, "933AC7E1-2EB4-4F13-B844-0E14E2AEF915", ("h", "linux-home")),
    PartitionType("lvm", 0x8E, "E6D6D379-F507-44C2-A23C-238F2A3DF928", ("v",)),
    PartitionType("raid", 0xFD, "A19D880F-05FC-4D3B-A006-743F0F84911E", ("r",)),
    PartitionType("prep", 0x41, "9E1A2D38-C612-4316-AA26-8B49521E5A8B", ()),
    PartitionType("fat32", 0x0C, _BASIC_DATA, ("msftdata",)),
    PartitionType("ntfs", 0x07, _BASIC_DATA, ()),
)
_GUID = re.compile(r"[0-9A-F]{8}(-[0-9A-F]{4}){3}-[0-9A-F]{12}")
_BYTE = re.compile(r"(?:0x)?([0-9a-f]{1,2})")


def type_named(text: str, label: Label) -> str:
    """Return the type that text names, as in Partition.type: 0x83 for an MBR ("dos"), a GUID in capitals for a GPT.

    text is one of the names of TYPES in any case, a byte of an MBR in hexadecimal, or a GUID. Raises PartitionError for
    a type that is unknown, or that does not exist in such a table.
    """
    word = text.lower()
    for known in TYPES:
        if word == known.name or word in known.others:
            found = known.mbr if label == "dos" else known.guid
            if found is None:
                raise PartitionError(f"the partition type {known.name} does not exist in {_TABLES[label]}")
            return found if isinstance(found, str) else f"{found:#04x}"
    if label == "gpt" and _GUID.fullmatch(text.upper()):
        return text.upper()
    byte = _BYTE.fullmatch(word)
    if label == "dos" and byte is not None and int(byte[1], 16):
        return f"{int(byte[1], 16):#04x}"
    number = "a GUID" if label == "gpt" else "a number such as 83"
    names = ", ".join(known.name for known in TYPES if (known.mbr if label == "dos" else known.guid) is not None)
    raise PartitionError(
        f"{printable(text)} is not a partition type of {_TABLES[label]}; expected {names}, or {number}"
    )


def name_of(partition_type: str) -> str | None:
    """Return the name of a type that Partition.type has; None if it has no name here."""
    for known in TYPES:
        if partition_type in (known.guid, f"{known.mbr:#04x}" if known.mbr is not None else None):
            return str(known.name)
    return "extended" if partition_type in ("0x05", "0x85") else None


_TABLES = {"dos": "an MBR", "gpt": "a GPT"}
