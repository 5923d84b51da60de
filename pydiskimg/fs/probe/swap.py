# SPDX-License-Identifier: MIT
"""Swap areas of every page size, and those that hold a hibernated system (union swap_header of Linux)."""

from __future__ import annotations

from pydiskimg.fs.probe.kind import FileSystemKind, label_text, uuid_text
from pydiskimg.fs.swap import HEADER, MAGIC, MAGIC_OFFSETS, MINIMUM_PAGES, PAGE_SIZE, read_header
from pydiskimg.protocols import Source

_WORDS = slice(4 * 32, 4 * 34)  # in the padding: libblkid trusts UUID and label only if these bytes are zero
_OLD = b"SWAP-SPACE"
_HIBERNATED = (b"S1SUSPEND", b"S2SUSPEND", b"ULSUSPEND", b"LINHIB0001")
_TUX_ON_ICE = bytes.fromhex("edc302e99856e50c")  # at offset 0


def probe(source: Source, head: bytes) -> FileSystemKind | None:
    """Return the swap area whose header is in head, the first bytes of the source."""
    if source.size < MINIMUM_PAGES * PAGE_SIZE:  # the kernel accepts no smaller one
        return None
    signatures = [head[offset : offset + len(MAGIC)] for offset in MAGIC_OFFSETS]
    fields = HEADER.unpack(head)
    is_plain = not any(fields["padding"][_WORDS])
    identity = (uuid_text(fields["sws_uuid"]), label_text(fields["sws_volume"])) if is_plain else (None, None)
    if head.startswith(_TUX_ON_ICE) or any(signature.startswith(_HIBERNATED) for signature in signatures):
        return FileSystemKind("swsuspend", *identity)
    first = next((signature for signature in signatures if signature in (_OLD, MAGIC)), None)
    if first == _OLD:  # had neither UUID nor label
        return FileSystemKind("swap")
    header = read_header(head) if first == MAGIC else None
    return FileSystemKind("swap", *identity) if header is not None and header["last_page"] else None
