# SPDX-License-Identifier: MIT
"""btrfs, by its first superblock (btrfs on-disk format, "Superblock"); little-endian."""

from __future__ import annotations

import struct

from pydiskimg.crc32c import crc32c
from pydiskimg.fs.probe.kind import FileSystemKind, label_text, uuid_text
from pydiskimg.protocols import Source

OFFSET = 64 << 10
SIZE = 4096
MAGIC = b"_BHRfS_M"
MINIMUM = 1 << 20  # bytes; libblkid looks for none below

SUPERBLOCK = struct.Struct(
    "<"
    "32s"  #    0  csum        of all that follows, to SIZE
    "16s"  #   32  fsid
    "Q"  #     48  bytenr      OFFSET
    "8x"  #    56  flags
    "8s"  #    64  magic
    "124x"  #  72
    "H"  #    196  csum_type   0: crc32c
    "101x"  # 198
    "256s"  # 299  label
)
assert SUPERBLOCK.size == 555


def probe(source: Source, head: bytes) -> FileSystemKind | None:
    """Return the btrfs whose superblock is in head, the first bytes of the source."""
    if len(head) < OFFSET + SIZE or source.size < MINIMUM:
        return None
    csum, fsid, bytenr, magic, csum_type, label = SUPERBLOCK.unpack_from(head, OFFSET)
    if magic != MAGIC or bytenr != OFFSET:
        return None
    if csum_type == 0 and crc32c(head[OFFSET + 32 : OFFSET + SIZE]) ^ 0xFFFFFFFF != int.from_bytes(csum[:4], "little"):
        return None
    return FileSystemKind("btrfs", uuid_text(fsid), label_text(label))
