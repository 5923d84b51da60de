# SPDX-License-Identifier: MIT
"""btrfs, by its first superblock (btrfs on-disk format, "Superblock", "DEV_ITEM"); little-endian."""

from __future__ import annotations

from pydiskimg.crc32c import crc32c
from pydiskimg.fs.probe.kind import FileSystemKind, label_text, uuid_text
from pydiskimg.protocols import Source
from pydiskimg.records import Record

OFFSET = 64 << 10
MAGIC = b"_BHRfS_M"
MINIMUM = 1 << 20  # bytes; libblkid ignores smaller devices
CRC32C = 0  # csum_type

SUPERBLOCK = Record("btrfs superblock", "<", 4096, """
    000 32s   csum                      of all that follows
    020 16s   fsid
    030 Q     bytenr                    OFFSET
    038 Q     flags
    040 8s    magic
    048 Q     generation
    050 Q     root
    058 Q     chunk_root                logical address
    060 Q     log_root
    068 Q     log_root_transid
    070 Q     total_bytes               of all devices
    078 Q     bytes_used
    080 Q     root_dir_objectid
    088 Q     num_devices
    090 I     sectorsize                bytes
    094 I     nodesize                  bytes
    098 I     leafsize
    09c I     stripesize
    0a0 I     sys_chunk_array_size
    0a4 Q     chunk_root_generation
    0ac Q     compat_flags
    0b4 Q     compat_ro_flags
    0bc Q     incompat_flags
    0c4 H     csum_type
    0c6 B     root_level
    0c7 B     chunk_root_level
    0c8 B     log_root_level
    0c9 98s   dev_item
    12b 256s  label
    22b Q     cache_generation
    233 Q     uuid_tree_generation
    23b 16s   metadata_uuid             with its feature only
    24b 224s  reserved
    32b 2048s sys_chunk_array           keys and chunks
    b2b 672s  super_roots
    dcb 565s  padding
""")  # fmt: skip
DEV_ITEM = Record("btrfs dev_item", "<", 98, """
    00 Q   devid
    08 Q   total_bytes
    10 Q   bytes_used
    18 I   io_align
    1c I   io_width
    20 I   sector_size
    24 Q   type
    2c Q   generation
    34 Q   start_offset
    3c I   dev_group
    40 B   seek_speed
    41 B   bandwidth
    42 16s uuid
    52 16s fsid
""")  # fmt: skip


def checksum_holds(block: bytes) -> bool:
    """True when a superblock or tree node begins with the crc32c of the rest."""
    size = SUPERBLOCK.slice_of("csum").stop
    return crc32c(block[size:]) ^ 0xFFFFFFFF == int.from_bytes(block[:4], "little")


def probe(source: Source, head: bytes) -> FileSystemKind | None:
    """Return the btrfs whose superblock is in head, the first bytes of the source."""
    block = head[OFFSET : OFFSET + SUPERBLOCK.size]
    if len(block) < SUPERBLOCK.size or source.size < MINIMUM:
        return None
    fields = SUPERBLOCK.unpack(block)
    if fields["magic"] != MAGIC or fields["bytenr"] != OFFSET:
        return None
    if fields["csum_type"] == CRC32C and not checksum_holds(block):
        return None
    return FileSystemKind("btrfs", uuid_text(fields["fsid"]), label_text(fields["label"]))
