# SPDX-License-Identifier: MIT
"""Partition types by the names that sfdisk and parted use, with the type of each in an MBR and in a GPT."""

from __future__ import annotations

import re
from collections import namedtuple

from pydiskimg.errors import PartitionError
from pydiskimg.startup import TYPE_CHECKING
from pydiskimg.text import printable

if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Literal, TypeAlias

    Label: TypeAlias = Literal["dos", "gpt"]

_Fields = namedtuple("_Fields", ("name", "mbr", "guid", "others"))


class PartitionType(_Fields):
    """A name, its byte in an MBR, its GUID in a GPT (capitals), and other names; None if a table lacks the type."""

    __slots__ = ()


_BASIC_DATA = "EBD0A0A2-B9E5-4433-87C0-68B6B72699C7"
# The GUIDs of / and /usr of each architecture, by the Discoverable Partitions Specification.
_OF_ARCHITECTURES = {
    "x86-64": ("4F68BCE3-E8CD-4DB1-96E7-FBCAF984B709", "8484680C-9521-48C6-9C11-B0720656F69E"),
    "x86": ("44479540-F297-41B2-9AF7-D131D5F0458A", "75250D76-8CC6-458E-BD66-BD47CC81A812"),
    "arm64": ("B921B045-1DF0-41C3-AF44-4C6F280D3FAE", "B0E01050-EE5F-4390-949A-9101B17104E9"),
    "arm": ("69DAD710-2CE4-4E3C-B16C-21A1D49ABED3", "7D0359A3-02B3-4F0A-865C-654403E70625"),
    "riscv64": ("72EC70A6-CF74-40E6-BD49-4BDA08E8F224", "BEAEC34B-8442-439B-A40B-984381ED097D"),
    "riscv32": ("60D5A7FE-8E7D-435C-B714-3DD8162144E1", "B933FB22-5C3F-4F91-AF90-E2BB0FA50702"),
    "ppc64le": ("C31C45E6-3F39-412E-80FB-4809C4980599", "15BB03AF-77E7-4D4A-B12B-C0D084F7491C"),
    "ppc64": ("912ADE1D-A839-4913-8964-A10EEE08FBD2", "2C9739E2-F068-46B3-9FD0-01C5A9AFBCCA"),
    "ppc": ("1DE3F1EF-FA98-47B5-8DCD-4A860A654D78", "7D14FEC5-CC71-415D-9D6C-06BF0B3C3EAF"),
    "s390x": ("5EEAD9A9-FE09-4A1E-A1D7-520D00531306", "8A4F5770-50AA-4ED3-874A-99B710DB6FEA"),
    "s390": ("08A7ACEA-624C-4A20-91E8-6E0FA67D23F9", "CD0F869B-D0FB-4CA0-B141-9EA87CC78D66"),
    "loongarch64": ("77055800-792C-4F94-B39A-98C91B762BB6", "E611C702-575C-4CBE-9A46-434FA0BF7E3F"),
    "alpha": ("6523F8AE-3EB1-4E2A-A05A-18B695AE656F", "E18CF08C-33EC-4C0D-8246-C6C6FB3DA024"),
    "arc": ("D27F46ED-2919-4CB8-BD25-9531F3C16534", "7978A683-6316-4922-BBEE-38BFF5A2FECC"),
    "ia64": ("993D8D3D-F80E-4225-855A-9DAF8ED7EA97", "4301D2A6-4E3B-4B2A-BB94-9E0B2C4225EA"),
    "mips32-le": ("37C58C8A-D913-4156-A25F-48B1B64E07F0", "0F4868E9-9952-4706-979F-3ED3A473E947"),
    "mips64-le": ("700BDA43-7A34-4507-B179-EEB93D7A7CA3", "C97C1F32-BA06-40B4-9F22-236061B08AA8"),
    "parisc": ("1AACDB3B-5444-4138-BD9E-E5C2239B2346", "DC4A4480-6917-4262-A4EC-DB9384949F25"),
    "tilegx": ("C50CDD70-3862-4CC3-90E1-809A8C93EE2C", "55497029-C7C1-44CC-AA39-815ED1558630"),
}
ARCHITECTURES = tuple(_OF_ARCHITECTURES)
_BY_SFDISK = {"parisc": "hppa-parisc"}  # where sfdisk has another name than the specification


def _of_architectures() -> Iterator[PartitionType]:
    for name, (root, usr) in _OF_ARCHITECTURES.items():
        other = _BY_SFDISK.get(name, name)
        yield PartitionType(f"root-{name}", None, root, (f"linux-root-{other}",))
        yield PartitionType(f"usr-{name}", None, usr, (f"linux-usr-{other}",))


# Names of sfdisk and parted follow ours, without the characters that _plain() leaves out.
TYPES = (
    PartitionType("linux", 0x83, "0FC63DAF-8483-4772-8E79-3D69D8477DE4", ("l", "ext4", "linux filesystem")),
    PartitionType("swap", 0x82, "0657FD6D-A4AB-43C4-84E5-0933C84B4F4F", ("s", "linux-swap", "linux swap / solaris")),
    PartitionType(
        "esp",
        0xEF,
        "C12A7328-F81F-11D2-BA4B-00A0C93EC93B",
        ("u", "uefi", "efi", "efi system", "efi (fat-12/16/32)"),
    ),
    PartitionType("bios-boot", None, "21686148-6449-6E6F-744E-656564454649", ("bios_grub",)),
    PartitionType("extended", 0x0F, None, ("e", "ex", "w95 ext'd (lba)")),
    PartitionType("linux-extended", 0x85, None, ("x", "linuxex")),
    PartitionType("xbootldr", 0xEA, "BC13C2FF-59E6-4262-A352-B275FD6F7172", ("linux extended boot", "bls_boot")),
    PartitionType("home", None, "933AC7E1-2EB4-4F13-B844-0E14E2AEF915", ("h", "linux-home")),
    PartitionType("srv", None, "3B8F8425-20E0-4F3B-907F-1A25A76F98E8", ("linux server data",)),
    PartitionType("var", None, "4D21B016-B534-45C2-A9FB-5C16E091FD2D", ("linux variable data",)),
    PartitionType("tmp", None, "7EC6F557-3BC5-4ACA-B293-16EF5DF639D1", ("linux temporary data",)),
    PartitionType("lvm", 0x8E, "E6D6D379-F507-44C2-A23C-238F2A3DF928", ("v", "linux lvm")),
    PartitionType("raid", 0xFD, "A19D880F-05FC-4D3B-A006-743F0F84911E", ("r", "linux raid", "linux raid autodetect")),
    PartitionType("prep", 0x41, "9E1A2D38-C612-4316-AA26-8B49521E5A8B", ("powerpc prep boot", "ppc prep boot")),
    PartitionType("fat32", 0x0C, _BASIC_DATA, ("msftdata", "microsoft basic data", "w95 fat32 (lba)")),
    PartitionType("ntfs", 0x07, _BASIC_DATA, ("hpfs/ntfs/exfat",)),
    *_of_architectures(),
)
_GUID = re.compile(r"[0-9A-F]{8}(-[0-9A-F]{4}){3}-[0-9A-F]{12}")
_BYTE = re.compile(r"(?:0x)?([0-9a-f]{1,2})")


def type_named(text: str, label: Label) -> str:
    """Return the type that text names, as in Partition.type: 0x83 for an MBR ("dos"), a GUID in capitals for a GPT.

    text is one of the names of TYPES, compared by its letters and digits in any case, a byte of an MBR in hexadecimal,
    or a GUID. Raises PartitionError for a type that is unknown, or that does not exist in such a table.
    """
    word = text.lower()
    plain = _plain(text)
    for known in TYPES:
        if plain and plain in map(_plain, (known.name, *known.others)):
            found = _value(known, label)
            if found is None:
                raise PartitionError(f"the partition type {known.name} does not exist in {_TABLES[label]}")
            return found if isinstance(found, str) else f"{found:#04x}"
    if label == "gpt" and _GUID.fullmatch(text.upper()):
        return text.upper()
    byte = _BYTE.fullmatch(word)
    if label == "dos" and byte is not None and int(byte[1], 16):
        return f"{int(byte[1], 16):#04x}"
    from difflib import get_close_matches  # imported here: it takes long to import

    names = [known.name for known in TYPES if _value(known, label) is not None]
    meant = "".join(f"; did you mean {name}?" for name in get_close_matches(word, names, 1))
    expected = f"{names_for(label)}, or {'a GUID' if label == 'gpt' else 'a number such as 83'}"
    raise PartitionError(f"{printable(text)} is not a partition type of {_TABLES[label]}; expected {expected}{meant}")


def names_for(label: Label | None = None) -> str:
    """Return our names of the types that such a table has, or any, for a message or --help."""
    firsts = [known.name for known in TYPES[: -2 * len(ARCHITECTURES)] if label is None or _value(known, label)]
    by_architecture = f"root-ARCH, usr-ARCH (ARCH: {', '.join(ARCHITECTURES)})"
    return ", ".join(firsts if label == "dos" else [*firsts, by_architecture])


def _value(known: PartitionType, label: Label) -> int | str | None:
    found: int | str | None = known.mbr if label == "dos" else known.guid
    return found


def _plain(text: str) -> str:
    """Return the part of a name that counts to sfdisk: letters and digits, in one case."""
    return "".join(filter(str.isalnum, text.lower()))


def name_of(partition_type: str) -> str | None:
    """Return the name of a type that Partition.type has; None if it has no name here."""
    for known in TYPES:
        if partition_type in (known.guid, f"{known.mbr:#04x}" if known.mbr is not None else None):
            return str(known.name)
    return "extended" if partition_type in ("0x05", "0x85") else None


_TABLES = {"dos": "an MBR", "gpt": "a GPT"}
