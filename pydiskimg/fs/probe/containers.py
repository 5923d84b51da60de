# SPDX-License-Identifier: MIT
"""Devices that hold other block devices: LVM physical volumes and LUKS."""

from __future__ import annotations

import zlib

from pydiskimg.fs.luks import LUKS2, MAGIC
from pydiskimg.fs.probe.kind import FileSystemKind, label_text
from pydiskimg.records import Record

# LVM2 label, in one of the first four sectors (LVM2 source, label.h and format_text/layout.h); little-endian
_SECTOR = 512
LVM_LABEL = Record("label_header and pv_header", "<", 64, """
    00 8s  id                  LABELONE
    08 Q   sector_xl           the number of this sector
    10 I   crc_xl              of the sector from offset_xl on
    14 I   offset_xl           of the physical volume's header: 32
    18 8s  type                LVM2 001
    20 32s pv_uuid             letters and digits
""")  # fmt: skip
_LVM_CRC_START = 0xF597A6CF
_LVM_GROUPS = (6, 4, 4, 4, 4, 4, 6)


def lvm2(head: bytes) -> FileSystemKind | None:
    """Return the LVM physical volume whose label is in head, the first bytes of a source."""
    for number in range(4):
        sector = head[number * _SECTOR : (number + 1) * _SECTOR]
        if len(sector) < _SECTOR:
            break
        label = LVM_LABEL.unpack(sector)
        is_label = (label["id"], label["sector_xl"], label["type"]) == (b"LABELONE", number, b"LVM2 001")
        if is_label and label["crc_xl"] == _lvm_crc(sector[LVM_LABEL.offsets["offset_xl"] :]):
            return FileSystemKind("LVM2_member", _lvm_uuid(label["pv_uuid"]))
    return None


def _lvm_crc(data: bytes) -> int:
    """CRC-32 with its own start value and without the final inversion; zlib's inverts at both ends."""
    return zlib.crc32(data, _LVM_CRC_START ^ 0xFFFFFFFF) ^ 0xFFFFFFFF


def _lvm_uuid(raw: bytes) -> str | None:
    if not raw.isalnum():
        return None
    text, groups, at = raw.decode("ascii"), [], 0
    for length in _LVM_GROUPS:
        groups.append(text[at : at + length])
        at += length
    return "-".join(groups)


def luks(head: bytes) -> FileSystemKind | None:
    """Return the LUKS device whose primary header is in head, the first bytes of a source."""
    if len(head) < LUKS2.size:
        return None
    header = LUKS2.unpack(head)
    if header["magic"] != MAGIC or header["version"] not in (1, 2):
        return None
    label = label_text(header["label"]) if header["version"] == 2 else None
    return FileSystemKind("crypto_LUKS", label_text(header["uuid"]), label)
