# SPDX-License-Identifier: MIT
"""The facts of `qemu-img info --output=json` about a qcow2 image, under its names.

Nothing that the image names is opened: an image with references is described from its own bytes alone, and so is one
that is corrupt or encrypted. What only some images have is imported for those.
"""

from __future__ import annotations

import os

from pydiskimg.images.qcow2 import layout
from pydiskimg.images.qcow2.header import read_header
from pydiskimg.startup import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from typing import Any, TypeAlias

    from pydiskimg.images.qcow2.header import Header
    from pydiskimg.images.qcow2.luks import KeySlot
    from pydiskimg.images.qcow2.snapshots import Snapshot
    from pydiskimg.protocols import Source

Facts: TypeAlias = "dict[str, Any]"


def image_facts(file: Source, path: str, *, stored: int) -> Facts:
    """Return the facts about the image in file, which path is shown for; stored is the bytes that the file takes up.

    Of snapshots and bitmaps, of which there may be thousands, there are iterators: they can be printed once.
    Raises InvalidImageError, UnsupportedImageError and StorageError.
    """
    header = read_header(file)
    facts: Facts = {"virtual-size": header.size, "filename": path, "cluster-size": header.cluster_size}
    facts |= {"format": "qcow2", "actual-size": stored, "dirty-flag": header.dirty}
    if header.crypt_method != layout.CRYPT_NONE:
        facts["encrypted"] = True
    if header.backing_file:
        facts["backing-filename"] = backing = os.fsdecode(header.backing_file)
        facts["full-backing-filename"] = full_backing_filename(path, backing)
        if header.backing_format:
            facts["backing-filename-format"] = os.fsdecode(header.backing_format)
    if header.nb_snapshots:
        from pydiskimg.images.qcow2.snapshots import read_snapshots

        facts["snapshots"] = snapshot_facts(read_snapshots(file, header))
    facts["format-specific"] = {"type": "qcow2", "data": _format_data(file, header)}
    return facts


def full_backing_filename(path: str, backing: str) -> str:
    """Return where the backing file of the image at path is: relative to the image, unless the name is absolute.

    A name with a protocol (nbd://host, json:{...}) is absolute too.
    """
    has_protocol = ":" in backing.partition("/")[0]
    if has_protocol or backing.startswith("/"):
        return backing
    return path[: path.rfind("/") + 1] + backing


def snapshot_facts(snapshots: Iterable[Snapshot]) -> Iterator[Facts]:
    """Return an iterator of the snapshots under the names of `qemu-img info --output=json`."""
    return (
        {
            "id": snapshot.id,
            "name": snapshot.name,
            "vm-state-size": snapshot.vm_state_size,
            "date-sec": snapshot.date_sec,
            "date-nsec": snapshot.date_nsec,
            "vm-clock-sec": snapshot.vm_clock_nsec // 1_000_000_000,
            "vm-clock-nsec": snapshot.vm_clock_nsec % 1_000_000_000,
        }
        | ({} if snapshot.icount is None else {"icount": snapshot.icount})
        for snapshot in snapshots
    )


def _format_data(file: Source, header: Header) -> Facts:
    data: Facts = {"compat": "1.1" if header.version == 3 else "0.10", "compression-type": header.compression_type}
    if header.version == 3:
        data["lazy-refcounts"] = header.lazy_refcounts
    if header.has_bitmaps:
        from pydiskimg.images.qcow2.bitmaps import read_bitmaps

        if bitmaps := read_bitmaps(file, header):
            data["bitmaps"] = ({"flags": b.flags, "name": b.name, "granularity": b.granularity} for b in bitmaps)
    data["refcount-bits"] = header.refcount_bits
    if header.has_data_file:
        if header.data_file:
            data["data-file"] = os.fsdecode(header.data_file)
        data["data-file-raw"] = header.data_file_raw
    if header.crypt_method != layout.CRYPT_NONE:
        data["encrypt"] = _encryption_facts(file, header)
    if header.version == 3:
        data["corrupt"] = header.corrupt
        data["extended-l2"] = header.extended_l2
    return data


def _encryption_facts(file: Source, header: Header) -> Facts:
    """The facts under "encrypt". Raises InvalidImageError where the LUKS header is missing or damaged."""
    if header.crypt_method == layout.CRYPT_AES:
        return {"format": "aes"}
    if header.crypt_method != layout.CRYPT_LUKS:
        return {"format": f"unknown ({header.crypt_method})"}
    from pydiskimg.images.qcow2.luks import read_luks_header

    luks = read_luks_header(file, header)
    mode, _, ivgen = luks.cipher_mode.partition("-")
    ivgen, _, ivgen_hash = ivgen.partition(":")
    bits = luks.key_bytes * 8 // (2 if mode == "xts" else 1)  # XTS splits the key in two
    facts: Facts = {
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


def _slot_facts(slot: KeySlot) -> Facts:
    if slot.iterations is None:
        return {"active": False, "key-offset": slot.offset}
    return {"active": True, "iters": slot.iterations, "stripes": slot.stripes, "key-offset": slot.offset}
