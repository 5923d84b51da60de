# SPDX-License-Identifier: MIT
"""How an image is encrypted, in the words of `qemu-img info`."""

from __future__ import annotations

from pydiskimg.images.qcow2 import layout
from pydiskimg.images.qcow2.header import Header
from pydiskimg.images.qcow2.luks import KeySlot, read_luks_header
from pydiskimg.protocols import Source


def encryption_facts(file: Source, header: Header) -> dict[str, object]:
    """Return the facts under "encrypt". Raises InvalidImageError where the LUKS header is missing or damaged."""
    if header.crypt_method == layout.CRYPT_AES:
        return {"format": "aes"}
    if header.crypt_method != layout.CRYPT_LUKS:
        return {"format": f"unknown ({header.crypt_method})"}
    luks = read_luks_header(file, header)
    mode, _, ivgen = luks.cipher_mode.partition("-")
    ivgen, _, ivgen_hash = ivgen.partition(":")
    bits = luks.key_bytes * 8 // (2 if mode == "xts" else 1)  # XTS splits the key in two
    facts: dict[str, object] = {
        "format": "luks",
        "uuid": luks.uuid,
        "cipher-alg": f"{luks.cipher_name}-{bits}",
        "cipher-mode": mode,
        "ivgen-alg": ivgen,
        "hash-alg": luks.hash,
        "payload-offset": luks.payload_offset,
        "master-key-iters": luks.iterations,
        "slots": [_slot_facts(slot) for slot in luks.slots],
    }
    if ivgen_hash:
        facts["ivgen-hash-alg"] = ivgen_hash
    return facts


def _slot_facts(slot: KeySlot) -> dict[str, object]:
    if slot.iterations is None:
        return {"active": False, "key-offset": slot.offset}
    return {"active": True, "iters": slot.iterations, "stripes": slot.stripes, "key-offset": slot.offset}
