# SPDX-License-Identifier: MIT
"""The records of a dump made by dump(8) of Linux.

Names are those of the BSD header protocols/dumprestore.h, with what Linux added: compressed tape blocks, extended
attributes, and since dump 0.4b49 packed lists of blocks. Numbers are in the byte order of the machine that wrote the
dump, which the magic shows.

    TS_TAPE                         the dump itself: dates, level, names
    TS_CLRI + map                   a bit for each inode in use
    TS_BITS + map                   a bit for each inode in this dump; bit 0 of byte 0 is inode 1
    TS_INODE + data [TS_ADDR + data ...] [TS_INODE, DR_EXTATTRIBUTES + data ...]
                                    each directory, then everything else, by inode number; TS_ADDR goes on with a file
    TS_END ...                      up to the end of the tape block
"""

from __future__ import annotations

import struct
from typing import NamedTuple

TP_BSIZE = 1024  # bytes of a record
TP_NINDIR = 512  # entries in c_addr
DIRBLKSIZ = 512  # no directory entry crosses a multiple of it
ROOTINO = 2

TS_TAPE = 1
TS_INODE = 2
TS_BITS = 3
TS_ADDR = 4
TS_END = 5
TS_CLRI = 6

OFS_MAGIC = 60011
NFS_MAGIC = 60012
FS_UFS2_MAGIC = 0x19540119
CHECKSUM = 84446

DR_NEWINODEFMT = 0x0002
DR_COMPRESSED = 0x0080
DR_METAONLY = 0x0100
DR_EXTATTRIBUTES = 0x8000

EXT_XATTR = 3

_SPCL = (
    "i"  #    0  c_type
    "I"  #    4  c_date           seconds since 1970
    "I"  #    8  c_ddate          date of the dump that this one builds upon; 0 for level 0
    "i"  #   12  c_volume         1 for the first or only one
    "I"  #   16  c_tapea          number of this record
    "I"  #   20  c_inumber
    "i"  #   24  c_magic
    "i"  #   28  c_checksum       makes the sum of all 32-bit words CHECKSUM
    "H"  #   32  di_mode          c_dinode: the inode as 4.4BSD has it
    "H"  #   34  di_nlink
    "4s"  #   36  di_u             owner and group of old dumps
    "Q"  #   40  di_size          bytes
    "i"  #   48  di_atime         seconds since 1970
    "I"  #   52                   microseconds
    "i"  #   56  di_mtime
    "I"  #   60
    "i"  #   64  di_ctime
    "I"  #   68
    "60s"  #   72  di_db, di_ib     ext2's i_block: blocks, device number, or the file's first bytes (inline_data)
    "I"  #  132  di_flags         as for chattr(1)
    "i"  #  136  di_blocks
    "i"  #  140  di_gen
    "I"  #  144  di_uid
    "I"  #  148  di_gid
    "8s"  #  152  di_spare
    "i"  #  160  c_count          entries of c_addr; of a map, records
    "512s"  #  164  c_addr           1: the record follows, 0: a hole
    "16s"  #  676  c_label
    "i"  #  692  c_level
    "64s"  #  696  c_filesys        where it was mounted
    "64s"  #  760  c_dev
    "64s"  #  824  c_host
    "i"  #  888  c_flags          DR_*
    "I"  #  892  c_firstrec       first record of the volume
    "i"  #  896  c_ntrec          records in a tape block
    "i"  #  900  c_extattributes  EXT_*
    "120s"  #  904  c_spare
)
SPCL = {order: struct.Struct(order + _SPCL) for order in "<>"}
WORDS = {order: struct.Struct(order + "256I") for order in "<>"}
assert SPCL["<"].size == WORDS["<"].size == TP_BSIZE

MAGIC_OFFSET = 24


class Spcl(NamedTuple):
    """The fields of SPCL; times are a pair of seconds and microseconds each."""

    c_type: int
    c_date: int
    c_ddate: int
    c_volume: int
    c_tapea: int
    c_inumber: int
    c_magic: int
    c_checksum: int
    di_mode: int
    di_nlink: int
    di_u: bytes
    di_size: int
    di_atime: int
    di_atime_usec: int
    di_mtime: int
    di_mtime_usec: int
    di_ctime: int
    di_ctime_usec: int
    di_block: bytes
    di_flags: int
    di_blocks: int
    di_gen: int
    di_uid: int
    di_gid: int
    di_spare: bytes
    c_count: int
    c_addr: bytes
    c_label: bytes
    c_level: int
    c_filesys: bytes
    c_dev: bytes
    c_host: bytes
    c_flags: int
    c_firstrec: int
    c_ntrec: int
    c_extattributes: int
    c_spare: bytes


# A directory entry; the name follows, its terminating zero and padding to a multiple of 4 bytes.
_DIRECT = (
    "I"  #  0  d_ino      0: not in use
    "H"  #  4  d_reclen   bytes to the next entry
    "B"  #  6  d_type     DT_*; 0: unknown
    "B"  #  7  d_namlen
)
DIRECT = {order: struct.Struct(order + _DIRECT) for order in "<>"}
assert DIRECT["<"].size == 8

# The prefix of each tape block of a compressed dump except the first: a word of bit fields, which compilers lay out
# from the low end on little-endian machines and from the high end on big-endian ones.
PREFIX_SIZE = 4
COMPRESS_ZLIB = 0
COMPRESS_BZLIB = 1
COMPRESS_LZO = 2


class Prefix(NamedTuple):
    """struct tapebuf: whether the block is compressed, how (COMPRESS_*), and its length as stored (bytes)."""

    compressed: bool
    method: int
    length: int


def prefix(word: int, order: str) -> Prefix:
    """Return the fields of a struct tapebuf, whose word was read in that byte order ("<" or ">")."""
    if order == "<":
        return Prefix(bool(word & 1), word >> 1 & 7, word >> 4)
    return Prefix(bool(word >> 31), word >> 28 & 7, word & 0x0FFFFFFF)


def sum_is_right(record: bytes | memoryview, order: str) -> bool:
    """True if the sum of the words of a header record is the one for which c_checksum is set."""
    total: int = sum(WORDS[order].unpack(record))
    return total & 0xFFFFFFFF == CHECKSUM
