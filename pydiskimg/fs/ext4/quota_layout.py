# SPDX-License-Identifier: MIT
"""The structures of a quota file, vfsv1 (Linux, fs/quota/quotaio_v2.h and quota_tree.h).

Header and information, then a tree of blocks of 1 KiB; block 1 is its root. Each of four levels has 256 numbers of
blocks, for 8 bits of an id, the highest first; the blocks that the last level names have a header and entries.
"""

from __future__ import annotations

from pydiskimg.records import Record

BLOCK_SIZE = 1024
MAGICS = (0xD9C01F11, 0xD9C01927, 0xD9C03F14)  # of users, groups, projects
VERSION = 1
ROOT, LEVELS = 1, 4
HEADER = Record("v2_disk_dqheader", "<", 8, """
    0 I dqh_magic
    4 I dqh_version
""")  # fmt: skip
INFO = Record("v2_disk_dqinfo", "<", 24, """
    00 I dqi_bgrace                  seconds
    04 I dqi_igrace
    08 I dqi_flags
    0c I dqi_blocks                  of the file
    10 I dqi_free_blk                first of a list of free blocks
    14 I dqi_free_entry              first of a list of blocks of entries that have room
""")  # fmt: skip
LEAF = Record("qt_disk_dqdbheader", "<", 16, """
    0 I dqdh_next_free
    4 I dqdh_prev_free
    8 H dqdh_entries                 in use
    a H dqdh_pad1
    c I dqdh_pad2
""")  # fmt: skip
ENTRY = Record("v2r1_disk_dqblk", "<", 72, """
    00 I dqb_id
    04 I dqb_pad
    08 Q dqb_ihardlimit
    10 Q dqb_isoftlimit
    18 Q dqb_curinodes
    20 Q dqb_bhardlimit              in 1 KiB
    28 Q dqb_bsoftlimit
    30 Q dqb_curspace                bytes
    38 Q dqb_btime
    40 Q dqb_itime                   1 in an entry that would be all zero, which means unused
""")  # fmt: skip
