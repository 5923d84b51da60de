# SPDX-License-Identifier: MIT
"""The LUKS header of an encrypted qcow2 file: its description of itself; nothing is decrypted.

Its location: QEMU docs/interop/qcow2, "Full disk encryption header pointer".
"""

from __future__ import annotations

from pydiskimg.errors import InvalidImageError
from pydiskimg.fs.luks import ACTIVE, KEY_SLOT, KEY_SLOTS, LUKS1, MAGIC
from pydiskimg.images.qcow2 import layout
from pydiskimg.protocols import read_bytes
from pydiskimg.records import Record
from pydiskimg.startup import TYPE_CHECKING
from pydiskimg.text import printable

if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

    from pydiskimg.images.qcow2.header import Header
    from pydiskimg.protocols import Source

# Section "Full disk encryption header pointer"
CRYPTO_HEADER = Record(
    "full disk encryption header pointer",
    ">",
    16,
    """
     0  Q   offset
     8  Q   length
    """,
)


class KeySlot:
    """A key slot; offset is bytes from the start of the LUKS header. The rest is None if the slot has no key."""

    __slots__ = ("iterations", "offset", "stripes")

    def __init__(self, offset: int, iterations: int | None, stripes: int | None) -> None:
        self.offset = offset
        self.iterations = iterations
        self.stripes = stripes


class LuksHeader:
    """The fields of the header: cipher_mode such as xts-plain64, key_bytes, payload_offset in bytes."""

    def __init__(self, raw: bytes) -> None:
        fields = LUKS1.unpack(raw)
        self.cipher_name, self.cipher_mode, self.hash, self.uuid = (
            _text(fields[name]) for name in ("cipher-name", "cipher-mode", "hash-spec", "uuid")
        )
        self.payload_offset = fields["payload-offset"] * layout.SECTOR
        self.key_bytes, self.iterations = fields["key-bytes"], fields["mk-digest-iter"]
        self.slots = list(_key_slots(raw))


def read_luks_header(file: Source, header: Header) -> LuksHeader:
    """Return the LUKS header of an image whose crypt_method is LUKS. Raises InvalidImageError if there is none."""
    pointer = header.extensions.get(layout.EXTENSION_CRYPTO, b"")
    if len(pointer) != CRYPTO_HEADER.size:
        raise _invalid(file, f"the header extension with its location has {len(pointer)} bytes, expected 16")
    offset, length = CRYPTO_HEADER.unpack(pointer).values()
    size = LUKS1.size + KEY_SLOTS * KEY_SLOT.size
    if length < size or offset + size > file.size:
        raise _invalid(file, f"{length} bytes at 0x{offset:x} of a file of {file.size} bytes, expected {size} or more")
    raw = read_bytes(file, offset, size)
    if not raw.startswith(MAGIC):
        raise _invalid(file, f"it starts with {raw[:6].hex(' ')} at 0x{offset:x}, expected {MAGIC.hex(' ')}")
    return LuksHeader(raw)


def _key_slots(raw: bytes) -> Iterator[KeySlot]:
    for at in range(LUKS1.size, len(raw), KEY_SLOT.size):
        slot = KEY_SLOT.unpack(raw, at)
        in_use = slot["active"] == ACTIVE
        offset = slot["key-material-offset"] * layout.SECTOR
        yield KeySlot(offset, slot["iterations"] if in_use else None, slot["stripes"] if in_use else None)


def _text(field: bytes) -> str:
    return printable(field.partition(b"\0")[0])


def _invalid(file: Source, text: str) -> InvalidImageError:
    return InvalidImageError(f"{file.name}: LUKS header: {text}; the image is truncated or corrupt")


def encryption_facts(file: Source, header: Header) -> dict[str, Any]:
    """Return the value of "encrypt" in info. Raises InvalidImageError if the LUKS header is missing or damaged."""
    if header.crypt_method == layout.CRYPT_AES:
        return {"format": "aes"}
    if header.crypt_method != layout.CRYPT_LUKS:
        return {"format": f"unknown ({header.crypt_method})"}
    luks = read_luks_header(file, header)
    mode, _, ivgen = luks.cipher_mode.partition("-")
    ivgen, _, ivgen_hash = ivgen.partition(":")
    bits = luks.key_bytes * 8 // (2 if mode == "xts" else 1)  # XTS splits the key in two
    return {  # in the order in which qemu-img prints them
        "ivgen-alg": ivgen,
        "hash-alg": luks.hash,
        "cipher-alg": f"{luks.cipher_name}-{bits}",
        "uuid": luks.uuid,
        **({"ivgen-hash-alg": ivgen_hash} if ivgen_hash else {}),
        "format": "luks",
        "cipher-mode": mode,
        "slots": [_slot_facts(slot) for slot in luks.slots],
        "payload-offset": luks.payload_offset,
        "master-key-iters": luks.iterations,
    }


def _slot_facts(slot: KeySlot) -> dict[str, Any]:
    if slot.iterations is None:
        return {"active": False, "key-offset": slot.offset}
    return {"active": True, "iters": slot.iterations, "key-offset": slot.offset, "stripes": slot.stripes}
