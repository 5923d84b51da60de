# SPDX-License-Identifier: MIT
"""What holds other block devices: LVM physical volumes and LUKS."""

from __future__ import annotations

import struct
import zlib

from pydiskimg.fs.probe.kind import FileSystemKind, label_text

# LVM2 label, in one of the first four sectors (LVM2 source, label.h and format_text/layout.h); little-endian
_SECTOR = 512
LVM_LABEL = struct.Struct(
    "<"
    "8s"  #  0  id           LABELONE
    "Q"  #   8  sector_xl    the number of this sector
    "I"  #  16  crc_xl       of the sector from byte 20 on
    "I"  #  20  offset_xl    of the physical volume's header: 32
    "8s"  # 24  type         LVM2 001
    "32s"  # 32 pv_uuid      letters and digits
)
assert LVM_LABEL.size == 64
_LVM_CRC_START = 0xF597A6CF
_LVM_GROUPS = (6, 4, 4, 4, 4, 4, 6)

# LUKS header, versions 1 and 2 up to what both share (LUKS1 and LUKS2 On-Disk Format Specification); big-endian
LUKS_HEADER = struct.Struct(
    ">"
    "6s"  #    0  magic
    "H"  #     6  version
    "16x"  #   8  version 1: cipher_name; version 2: hdr_size, seqid
    "48s"  #  24  version 2: label
    "96x"  #  72
    "40s"  # 168  uuid       as text
)
assert LUKS_HEADER.size == 208
_LUKS_MAGIC = b"LUKS\xba\xbe"


def lvm2(head: bytes) -> FileSystemKind | None:
    """Return the LVM physical volume whose label is in head, the first bytes of a source."""
    for number in range(4):
        sector = head[number * _SECTOR : (number + 1) * _SECTOR]
        if len(sector) < _SECTOR:
            break
        identifier, own_number, checksum, _offset, kind, uuid = LVM_LABEL.unpack_from(sector)
        if (identifier, own_number, kind) == (b"LABELONE", number, b"LVM2 001") and checksum == _lvm_crc(sector[20:]):
            return FileSystemKind("LVM2_member", _lvm_uuid(uuid))
    return None


def _lvm_crc(data: bytes) -> int:
    """CRC-32 from a start value of its own and without the final inversion, which zlib's does at both ends."""
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
    if len(head) < LUKS_HEADER.size:
        return None
    magic, version, label, uuid = LUKS_HEADER.unpack_from(head)
    if magic != _LUKS_MAGIC or version not in (1, 2):
        return None
    return FileSystemKind("crypto_LUKS", label_text(uuid), label_text(label) if version == 2 else None)
