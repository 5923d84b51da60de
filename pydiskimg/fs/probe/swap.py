# SPDX-License-Identifier: MIT
"""Swap areas of every page size, and those that hold a hibernated system (union swap_header of Linux)."""

from __future__ import annotations

import struct

from pydiskimg.fs.probe.kind import FileSystemKind, label_text, uuid_text
from pydiskimg.protocols import Source

MINIMUM = 10 * 4096  # bytes; the kernel takes no smaller one
HEADER_OFFSET = 1024
HEADER = struct.Struct(
    "="
    "4s"  #    0  version        1, in the byte order of the machine that made it
    "4s"  #    4  last_page
    "4x"  #    8  nr_badpages
    "16s"  #  12  sws_uuid
    "16s"  #  28  sws_volume
    "128x"  # 44  padding
    "8s"  #  172  padding        zero where uuid and label are what they seem
)
assert HEADER.size == 180

# At the end of the first page, whose size is the machine's.
_SIGNATURE_OFFSETS = tuple((size << 10) - 10 for size in (4, 8, 16, 32, 64))
_OLD = b"SWAP-SPACE"
_CURRENT = b"SWAPSPACE2"
_HIBERNATED = (b"S1SUSPEND", b"S2SUSPEND", b"ULSUSPEND", b"LINHIB0001")
_TUX_ON_ICE = bytes.fromhex("edc302e99856e50c")  # at offset 0


def probe(source: Source, head: bytes) -> FileSystemKind | None:
    """Return the swap area whose header is in head, the first bytes of the source."""
    if source.size < MINIMUM:
        return None
    signatures = [head[offset : offset + 10] for offset in _SIGNATURE_OFFSETS]
    version, last_page, uuid, volume, padding = HEADER.unpack_from(head, HEADER_OFFSET)
    identity = (None, None) if any(padding) else (uuid_text(uuid), label_text(volume))
    if head.startswith(_TUX_ON_ICE) or any(signature.startswith(_HIBERNATED) for signature in signatures):
        return FileSystemKind("swsuspend", *identity)
    first = next((signature for signature in signatures if signature in (_OLD, _CURRENT)), None)
    if first == _OLD:  # had neither UUID nor label
        return FileSystemKind("swap")
    if first == _CURRENT and version in (b"\1\0\0\0", b"\0\0\0\1") and any(last_page):
        return FileSystemKind("swap", *identity)
    return None
