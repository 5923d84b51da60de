# SPDX-License-Identifier: MIT
"""The bytes of a qcow2 file (QEMU docs/interop/qcow2). Every number is big-endian; offsets and sizes are bytes."""

from __future__ import annotations

from pydiskimg.records import Record

MAGIC = b"QFI\xfb"

# Sections "Header", of which version 2 has the first 72 bytes, and "Additional fields": what is beyond header_length is
# zero.
HEADER = Record(
    "qcow2 header",
    ">",
    112,
    """
     0  4s  magic
     4  I   version
     8  Q   backing_file_offset      0: no backing file
    10  I   backing_file_size        length of the name, at most 1023
    14  I   cluster_bits
    18  Q   size                     of the virtual disk
    20  I   crypt_method
    24  I   l1_size                  entries
    28  Q   l1_table_offset
    30  Q   refcount_table_offset
    38  I   refcount_table_clusters
    3c  I   nb_snapshots
    40  Q   snapshots_offset
    48  Q   incompatible_features    the first that version 2 does not have
    50  Q   compatible_features
    58  Q   autoclear_features
    60  I   refcount_order
    64  I   header_length
    68  B   compression_type         the first of the additional fields
    69  7s  padding
    """,
)
HEADER_LENGTH_V2 = HEADER.offsets["incompatible_features"]
MIN_HEADER_LENGTH_V3 = HEADER.offsets["compression_type"]

# Section "Header extensions"
EXTENSION = Record(
    "header extension",
    ">",
    8,
    """
     0  I   type
     4  I   length                   of the data that follows, without its padding to 8 bytes
    """,
)

EXTENSION_END = 0x00000000
EXTENSION_BACKING_FORMAT = 0xE2792ACA
EXTENSION_FEATURE_NAMES = 0x6803F857
EXTENSION_DATA_FILE = 0x44415441
EXTENSION_BITMAPS = 0x23852875
EXTENSION_CRYPTO = 0x0537BE77
EXTENSION_STREAM = 0x70644372  # pydiskimg's own: checksums of a stream (docs/backup-format.md); others ignore it

# Section "Feature name table"
FEATURE_NAME = Record(
    "feature name",
    ">",
    48,
    """
     0  B   type                     0: incompatible, 1: compatible, 2: autoclear
     1  B   bit
     2  46s name                     padded with zeros
    """,
)

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
AUTOCLEAR_KNOWN = (1 << 2) - 1

CRYPT_NONE, CRYPT_AES, CRYPT_LUKS = 0, 1, 2
COMPRESSION_ZLIB, COMPRESSION_ZSTD = 0, 1
COMPRESSION_TYPES = ("zlib", "zstd")  # by number

# Section "Cluster mapping": bits of the entries of L1 and L2 tables.
ENTRY_SIZE = 8
ENTRY_OFFSET = 0x00FF_FFFF_FFFF_FE00  # bits 9 to 55
L1_RESERVED = 0x7F00_0000_0000_01FF  # bits 0 to 8, 56 to 62
L2_COMPRESSED = 1 << 62
L2_ZERO = 1 << 0  # version 3 only
L2_STANDARD_RESERVED = 0x3F00_0000_0000_01FE  # bits 1 to 8, 56 to 61

L2_EXTENDED_RESERVED = L2_STANDARD_RESERVED | L2_ZERO  # the zero bit is in the bitmap instead
COPIED = 1 << 63

# Section "Extended L2 Entries": the entry is followed by a bitmap; bit n is for subcluster n of the cluster.
EXTENDED_ENTRY_SIZE = 16
SUBCLUSTERS = 32  # in a cluster
SUBCLUSTERS_ALLOCATED = 0x0000_0000_FFFF_FFFF  # bits 0 to 31
MIN_EXTENDED_CLUSTER_BITS = 14  # a subcluster has 512 bytes at least

SECTOR = 512  # the unit in which a compressed cluster's length is given

# Limits: the specification's, and those of QEMU's own reader (block/qcow2.h).
MIN_CLUSTER_BITS = 9
MAX_CLUSTER_BITS = 21
MAX_REFCOUNT_ORDER = 6
MAX_BACKING_FILE_SIZE = 1023
MAX_L1_TABLE_SIZE = 32 << 20
MAX_REFCOUNT_TABLE_SIZE = 8 << 20
MAX_SNAPSHOTS = 65536
MAX_FILE_SIZE = (1 << 63) - (1 << 30)  # beyond it nothing can be read
