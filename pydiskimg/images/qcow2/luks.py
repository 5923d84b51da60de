# SPDX-License-Identifier: MIT
"""The LUKS header that an encrypted qcow2 file holds: what it says about itself; nothing is decrypted.

Layout: the LUKS1 on-disk format specification, section 2.3; where it is: QEMU docs/interop/qcow2, "Full disk
encryption header pointer".
"""

from __future__ import annotations

import struct
from collections.abc import Iterator

from pydiskimg.errors import InvalidImageError
from pydiskimg.images.qcow2 import layout
from pydiskimg.images.qcow2.extensions import extensions_of
from pydiskimg.images.qcow2.header import Header
from pydiskimg.protocols import Source, read_bytes
from pydiskimg.text import printable

HEADER = struct.Struct(
    ">6s"  #   0  magic                    "LUKS" 0xba 0xbe
    "H"  #     6  version
    "32s"  #   8  cipher-name
    "32s"  #  40  cipher-mode
    "32s"  #  72  hash-spec
    "I"  #   104  payload-offset           sectors
    "I"  #   108  key-bytes
    "20s"  # 112  mk-digest
    "32s"  # 132  mk-digest-salt
    "I"  #   164  mk-digest-iter
    "40s"  # 168  uuid
)
assert HEADER.size == 208

KEY_SLOT = struct.Struct(
    ">I"  #    0  active
    "I"  #     4  iterations
    "32s"  #   8  salt
    "I"  #    40  key-material-offset      sectors
    "I"  #    44  stripes
)
assert KEY_SLOT.size == 48

MAGIC = b"LUKS\xba\xbe"
KEY_SLOTS = 8
ACTIVE = 0x00AC71F3


class KeySlot:
    """A place for a key; offset is bytes from the start of the LUKS header. The rest is None where there is no key."""

    __slots__ = ("iterations", "offset", "stripes")

    def __init__(self, offset: int, iterations: int | None, stripes: int | None) -> None:
        self.offset = offset
        self.iterations = iterations
        self.stripes = stripes


class LuksHeader:
    """What the header says: cipher_mode such as xts-plain64, key_bytes, payload_offset in bytes."""

    def __init__(self, raw: bytes) -> None:
        fields = HEADER.unpack_from(raw)
        self.cipher_name, self.cipher_mode, self.hash, self.uuid = (_text(fields[index]) for index in (2, 3, 4, 10))
        self.payload_offset, self.key_bytes, self.iterations = fields[5] * layout.SECTOR, fields[6], fields[9]
        self.slots = list(_key_slots(raw))


def read_luks_header(file: Source, header: Header) -> LuksHeader:
    """Return the LUKS header of an image whose crypt_method is LUKS. Raises InvalidImageError where there is none."""
    head = read_bytes(file, 0, min(header.cluster_size, file.size))
    _, found = extensions_of(head, header.header_length, name=file.name)
    pointer = found.get(layout.EXTENSION_CRYPTO, b"")
    if len(pointer) != layout.CRYPTO_HEADER.size:
        raise _invalid(file, f"the header extension that tells where it is has {len(pointer)} bytes, expected 16")
    offset, length = layout.CRYPTO_HEADER.unpack(pointer)
    size = HEADER.size + KEY_SLOTS * KEY_SLOT.size
    if length < size or offset + size > file.size:
        raise _invalid(file, f"{length} bytes at 0x{offset:x} of a file of {file.size} bytes, expected {size} or more")
    raw = read_bytes(file, offset, size)
    if not raw.startswith(MAGIC):
        raise _invalid(file, f"it starts with {raw[:6].hex(' ')} at 0x{offset:x}, expected {MAGIC.hex(' ')}")
    return LuksHeader(raw)


def _key_slots(raw: bytes) -> Iterator[KeySlot]:
    for active, iterations, _, offset, stripes in KEY_SLOT.iter_unpack(raw[HEADER.size :]):
        in_use = active == ACTIVE
        yield KeySlot(offset * layout.SECTOR, iterations if in_use else None, stripes if in_use else None)


def _text(field: bytes) -> str:
    return printable(field.partition(b"\0")[0])


def _invalid(file: Source, text: str) -> InvalidImageError:
    return InvalidImageError(f"{file.name}: LUKS header: {text}; the image is truncated or corrupt")
