# SPDX-License-Identifier: MIT
"""The bytes of a qcow2 file (QEMU docs/interop/qcow2). Every number is big-endian; offsets and sizes are bytes."""

from __future__ import annotations

import struct

MAGIC = b"QFI\xfb"

# Section "Header": the part that versions 2 and 3 share.
HEADER_V2 = struct.Struct(
    ">4s"  #   0  magic
    "I"  #     4  version
    "Q"  #     8  backing_file_offset      0: no backing file
    "I"  #    16  backing_file_size        length of the name, at most 1023
    "I"  #    20  cluster_bits
    "Q"  #    24  size                     of the virtual disk
    "I"  #    32  crypt_method
    "I"  #    36  l1_size                  entries
    "Q"  #    40  l1_table_offset
    "Q"  #    48  refcount_table_offset
    "I"  #    56  refcount_table_clusters
    "I"  #    60  nb_snapshots
    "Q"  #    64  snapshots_offset
)
assert HEADER_V2.size == 72

# Section "Header", version 3: follows HEADER_V2 directly.
HEADER_V3 = struct.Struct(
    ">Q"  #   72  incompatible_features
    "Q"  #    80  compatible_features
    "Q"  #    88  autoclear_features
    "I"  #    96  refcount_order
    "I"  #   100  header_length
)
assert HEADER_V2.size + HEADER_V3.size == 104

# Section "Additional fields": there only when header_length is larger than the offset.
COMPRESSION_TYPE_OFFSET = 104

# Section "Header extensions"
EXTENSION = struct.Struct(
    ">I"  #    0  type
    "I"  #     4  length                   of the data that follows, without its padding to 8 bytes
)
assert EXTENSION.size == 8

EXTENSION_END = 0x00000000
EXTENSION_BACKING_FORMAT = 0xE2792ACA
EXTENSION_FEATURE_NAMES = 0x6803F857
EXTENSION_DATA_FILE = 0x44415441
EXTENSION_BITMAPS = 0x23852875
EXTENSION_CRYPTO = 0x0537BE77
EXTENSION_STREAM = 0x70644372  # ours: checksums of a stream (docs/backup-format.md); others ignore it

# Section "Feature name table"
FEATURE_NAME = struct.Struct(
    ">B"  #    0  type                     0: incompatible, 1: compatible, 2: autoclear
    "B"  #     1  bit
    "46s"  #   2  name                     padded with zeros
)
assert FEATURE_NAME.size == 48

# Bits of incompatible_features
INCOMPATIBLE_DIRTY = 1 << 0
INCOMPATIBLE_CORRUPT = 1 << 1
INCOMPATIBLE_DATA_FILE = 1 << 2
INCOMPATIBLE_COMPRESSION_TYPE = 1 << 3
INCOMPATIBLE_EXTENDED_L2 = 1 << 4
INCOMPATIBLE_KNOWN = (1 << 5) - 1

COMPATIBLE_LAZY_REFCOUNTS = 1 << 0

AUTOCLEAR_BITMAPS = 1 << 0
AUTOCLEAR_DATA_FILE_RAW = 1 << 1

CRYPT_NONE, CRYPT_AES, CRYPT_LUKS = 0, 1, 2
COMPRESSION_ZLIB, COMPRESSION_ZSTD = 0, 1

# Section "Cluster mapping": bits of the entries of L1 and L2 tables.
ENTRY_SIZE = 8
ENTRY_OFFSET = 0x00FF_FFFF_FFFF_FE00  # bits 9 to 55
L1_RESERVED = 0x7F00_0000_0000_01FF  # bits 0 to 8, 56 to 62
L2_COMPRESSED = 1 << 62
L2_ZERO = 1 << 0  # version 3 only
L2_STANDARD_RESERVED = 0x3F00_0000_0000_01FE  # bits 1 to 8, 56 to 61

L2_EXTENDED_RESERVED = L2_STANDARD_RESERVED | L2_ZERO  # the zero bit has moved to the bitmap
COPIED = 1 << 63

# Section "Extended L2 Entries": the entry is followed by a bitmap; bit n is about subcluster n of the cluster.
EXTENDED_ENTRY_SIZE = 16
SUBCLUSTERS = 32  # in a cluster
SUBCLUSTERS_ALLOCATED = 0x0000_0000_FFFF_FFFF  # bits 0 to 31
SUBCLUSTERS_ZERO = 0xFFFF_FFFF_0000_0000  # bits 32 to 63: subclusters 0 to 31
MIN_EXTENDED_CLUSTER_BITS = 14  # a subcluster has 512 bytes at least

# Our extension of a stream, directly after the header.
STREAM_CHECKS = struct.Struct(
    ">I"  #    0  crc32 of everything before the data, this field being zero
    "I"  #     4  flags
)
assert STREAM_CHECKS.size == 8

STREAM_CLUSTER_CHECKSUMS = 1 << 0  # a crc32 follows the data of each compressed cluster

# Section "Snapshots": the fixed part of an entry; extra data, id_str, name and padding to 8 bytes follow.
SNAPSHOT = struct.Struct(
    ">Q"  #    0  l1_table_offset
    "I"  #     8  l1_size                  entries
    "H"  #    12  id_str_size
    "H"  #    14  name_size
    "I"  #    16  date_sec                 since 1970
    "I"  #    20  date_nsec
    "Q"  #    24  vm_clock_nsec
    "I"  #    32  vm_state_size            superseded by the one in the extra data
    "I"  #    36  extra_data_size
)
assert SNAPSHOT.size == 40

# Snapshot extra data: each is there when extra_data_size reaches its end.
SNAPSHOT_VM_STATE_SIZE = 0
SNAPSHOT_DISK_SIZE = 8
SNAPSHOT_ICOUNT = 16
NO_ICOUNT = (1 << 64) - 1

SECTOR = 512  # the unit in which a compressed cluster's length is given

# Limits: the specification's, and those that QEMU's own reader has (block/qcow2.h).
MIN_CLUSTER_BITS = 9
MAX_CLUSTER_BITS = 21
MAX_REFCOUNT_ORDER = 6
MAX_BACKING_FILE_SIZE = 1023
MAX_L1_TABLE_SIZE = 32 << 20
MAX_REFCOUNT_TABLE_SIZE = 8 << 20
MAX_SNAPSHOTS = 65536
MAX_SNAPSHOT_TABLE_SIZE = 64 << 20
MAX_SNAPSHOT_EXTRA_DATA = 1024
MAX_FILE_SIZE = (1 << 63) - (1 << 30)  # beyond it nothing can be read

# Section "Full disk encryption header pointer"
CRYPTO_HEADER = struct.Struct(
    ">Q"  #    0  offset
    "Q"  #     8  length
)
assert CRYPTO_HEADER.size == 16

# Section "Bitmaps extension"
BITMAPS = struct.Struct(
    ">I"  #    0  nb_bitmaps
    "4x"  #    4  reserved
    "Q"  #     8  bitmap_directory_size    bytes
    "Q"  #    16  bitmap_directory_offset
)
assert BITMAPS.size == 24

# Section "Bitmap directory": the fixed part of an entry; extra data, name and padding to 8 bytes follow.
BITMAP_ENTRY = struct.Struct(
    ">Q"  #    0  bitmap_table_offset
    "I"  #     8  bitmap_table_size        entries
    "I"  #    12  flags
    "B"  #    16  type
    "B"  #    17  granularity_bits
    "H"  #    18  name_size
    "I"  #    20  extra_data_size
)
assert BITMAP_ENTRY.size == 24

BITMAP_RESERVED = 0xFF00_0000_0000_01FE  # bits of an entry of a bitmap table
MAX_BITMAPS = 65535
MAX_BITMAP_NAME_SIZE = 1023
MAX_BITMAP_DIRECTORY_SIZE = MAX_BITMAPS * 1024
MAX_BITMAP_TABLE_SIZE = 0x800_0000  # entries
