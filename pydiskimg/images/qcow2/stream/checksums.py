# SPDX-License-Identifier: MIT
"""Checksums of a stream, which other readers skip: of its tables, and of each compressed cluster (docs/adr/0080).

| header | our extension, other extensions | tables | cluster's data, its checksum, zeros | the next one's data ...
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from pydiskimg.images.qcow2 import layout
from pydiskimg.images.qcow2.write.head import pack_extension
from pydiskimg.protocols import Buffer
from pydiskimg.records import Record
from pydiskimg.startup import TYPE_CHECKING

if TYPE_CHECKING:
    from zlib import crc32
else:
    try:  # 30 times as fast as that of zlib
        from isal.isal_zlib import crc32
    except ImportError:
        from zlib import crc32

CLUSTER_CHECKSUM_SIZE = 4
# pydiskimg's own extension of a stream, directly after the header.
STREAM_CHECKS = Record(
    "stream extension",
    ">",
    8,
    """
     0  I   tables                   crc32 of everything before the data, this field being zero
     4  I   flags
    """,
)
CLUSTER_CHECKSUMS = 1 << 0  # flags: a crc32 follows the data of each compressed cluster


@dataclass(frozen=True, slots=True)
class Checks:
    """The fields of a stream's extension: the crc32 of its tables, and if a crc32 follows each compressed cluster."""

    tables: int
    clusters: bool


def pack_checks(tables: int, *, clusters: bool) -> bytes:
    """Return the extension, which must be the header's first one."""
    flags = CLUSTER_CHECKSUMS if clusters else 0
    return pack_extension(layout.EXTENSION_STREAM, STREAM_CHECKS.pack(tables=tables, flags=flags))


def find_checks(head: Buffer, header_length: int) -> Checks | None:
    """Return the first extension after the header; None if that is not this one.

    A program that changes an image and writes a new header puts unknown extensions last.
    """
    start = header_length + layout.EXTENSION.size
    if start + STREAM_CHECKS.size > len(head):
        return None
    extension = layout.EXTENSION.unpack(head, header_length)
    if extension != {"type": layout.EXTENSION_STREAM, "length": STREAM_CHECKS.size}:
        return None
    checks = STREAM_CHECKS.unpack(head, start)
    return Checks(checks["tables"], bool(checks["flags"] & CLUSTER_CHECKSUMS))


def checksum_of_tables(pieces: Iterable[Buffer], header_length: int) -> int:
    """Return the crc32 of pieces, all bytes before the data; the first one contains the header and this extension."""
    field, checksum = header_length + layout.EXTENSION.size, 0
    for number, piece in enumerate(pieces):
        if number == 0:
            with memoryview(piece) as view:
                checksum = crc32(view[:field])
                checksum = crc32(bytes(4), checksum)
                checksum = crc32(view[field + 4 :], checksum)
        else:
            checksum = crc32(piece, checksum)
    return checksum


def checksum_of_cluster(guest_offset: int, cluster: Buffer) -> bytes:
    """Return the bytes after the data of a compressed cluster, which detect other contents and another offset."""
    checksum: int = crc32(cluster, crc32(guest_offset.to_bytes(8, "big")))
    return checksum.to_bytes(CLUSTER_CHECKSUM_SIZE, "big")
