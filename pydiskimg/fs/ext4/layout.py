# SPDX-License-Identifier: MIT
"""The on-disk structures of ext2, ext3, ext4 and their journal.

Linux Documentation/filesystems/ext4: super.rst, group_descr.rst, inodes.rst, ifork.rst, directory.rst,
checksums.rst, journal.rst. The file system is little-endian, the journal (JBD2) big-endian. The first number of each
row is a hexadecimal byte offset; fields named reserved or checksum_* are described there.
"""

from __future__ import annotations

from pydiskimg.records import Record

SUPERBLOCK_OFFSET = 1024
SUPERBLOCK_MAGIC = 0xEF53
JOURNAL_MAGIC = 0xC03B3998
EXTENT_MAGIC = 0xF30A

SUPERBLOCK = Record("ext4_super_block", "<", 1024, """
    000 I   s_inodes_count
    004 I   s_blocks_count_lo
    008 I   s_r_blocks_count_lo        reserved for the super user
    00c I   s_free_blocks_count_lo
    010 I   s_free_inodes_count
    014 I   s_first_data_block         1 with blocks of 1 KiB, else 0
    018 I   s_log_block_size           the block size is 1024 << this
    01c I   s_log_cluster_size
    020 I   s_blocks_per_group
    024 I   s_clusters_per_group
    028 I   s_inodes_per_group
    02c I   s_mtime
    030 I   s_wtime
    034 H   s_mnt_count
    036 h   s_max_mnt_count            -1: never check because of mounts
    038 H   s_magic
    03a H   s_state                    VALID_FS: unmounted cleanly; ERROR_FS: errors were seen
    03c H   s_errors                   1: continue
    03e H   s_minor_rev_level
    040 I   s_lastcheck
    044 I   s_checkinterval            seconds
    048 I   s_creator_os               0: Linux
    04c I   s_rev_level                1: dynamic
    050 H   s_def_resuid
    052 H   s_def_resgid
    054 I   s_first_ino                first inode that is not reserved
    058 H   s_inode_size
    05a H   s_block_group_nr           the group of this copy
    05c I   s_feature_compat
    060 I   s_feature_incompat
    064 I   s_feature_ro_compat
    068 16s s_uuid
    078 16s s_volume_name
    088 64s s_last_mounted
    0c8 I   s_algorithm_usage_bitmap
    0cc B   s_prealloc_blocks
    0cd B   s_prealloc_dir_blocks
    0ce H   s_reserved_gdt_blocks      blocks after the descriptors, kept for growing
    0d0 16s s_journal_uuid
    0e0 I   s_journal_inum
    0e4 I   s_journal_dev
    0e8 I   s_last_orphan
    0ec 16s s_hash_seed
    0fc B   s_def_hash_version         1: half MD4
    0fd B   s_jnl_backup_type          1: s_jnl_blocks is a copy of i_block
    0fe H   s_desc_size                with 64bit only
    100 I   s_default_mount_opts
    104 I   s_first_meta_bg
    108 I   s_mkfs_time
    10c 68s s_jnl_blocks               i_block[15], i_size_high, i_size of the journal's inode
    150 I   s_blocks_count_hi
    154 I   s_r_blocks_count_hi
    158 I   s_free_blocks_count_hi
    15c H   s_min_extra_isize
    15e H   s_want_extra_isize
    160 I   s_flags                    1: directory hashes use signed characters
    164 H   s_raid_stride
    166 H   s_mmp_interval
    168 Q   s_mmp_block
    170 I   s_raid_stripe_width
    174 B   s_log_groups_per_flex
    175 B   s_checksum_type            1: crc32c
    176 H   s_reserved_pad
    178 Q   s_kbytes_written
    180 I   s_snapshot_inum
    184 I   s_snapshot_id
    188 Q   s_snapshot_r_blocks_count
    190 I   s_snapshot_list
    194 I   s_error_count
    198 I   s_first_error_time
    19c I   s_first_error_ino
    1a0 Q   s_first_error_block
    1a8 32s s_first_error_func
    1c8 I   s_first_error_line
    1cc I   s_last_error_time
    1d0 I   s_last_error_ino
    1d4 I   s_last_error_line
    1d8 Q   s_last_error_block
    1e0 32s s_last_error_func
    200 64s s_mount_opts
    240 I   s_usr_quota_inum
    244 I   s_grp_quota_inum
    248 I   s_overhead_clusters        blocks of metadata, subtracted by statfs()
    24c 8s  s_backup_bgs
    254 4s  s_encrypt_algos
    258 16s s_encrypt_pw_salt
    268 I   s_lpf_ino
    26c I   s_prj_quota_inum
    270 I   s_checksum_seed            with metadata_csum_seed only
    274 B   s_wtime_hi
    275 B   s_mtime_hi
    276 B   s_mkfs_time_hi
    277 B   s_lastcheck_hi
    278 B   s_first_error_time_hi
    279 B   s_last_error_time_hi
    27a B   s_first_error_errcode
    27b B   s_last_error_errcode
    27c H   s_encoding
    27e H   s_encoding_flags
    280 I   s_orphan_file_inum
    284 376s s_reserved
    3fc I   s_checksum                 crc32c of the bytes before it
""")  # fmt: skip

# s_state
VALID_FS = 0x1
ERROR_FS = 0x2
FAST_COMMIT_REPLAY = 0x20

CHECKSUMS_CRC32C = 1  # s_checksum_type
JOURNAL_BACKUP = 1  # s_jnl_backup_type

_DESCRIPTOR_LOW = """
    00 I  bg_block_bitmap_lo
    04 I  bg_inode_bitmap_lo
    08 I  bg_inode_table_lo
    0c H  bg_free_blocks_count_lo
    0e H  bg_free_inodes_count_lo
    10 H  bg_used_dirs_count_lo
    12 H  bg_flags
    14 I  bg_exclude_bitmap_lo
    18 H  bg_block_bitmap_csum_lo
    1a H  bg_inode_bitmap_csum_lo
    1c H  bg_itable_unused_lo
    1e H  bg_checksum                  low half of crc32c(uuid, group number, descriptor)
"""
GROUP_DESCRIPTOR_32 = Record("ext4_group_desc, 32 bytes", "<", 32, _DESCRIPTOR_LOW)
GROUP_DESCRIPTOR_64 = Record("ext4_group_desc, 64 bytes", "<", 64, _DESCRIPTOR_LOW + """
    20 I  bg_block_bitmap_hi
    24 I  bg_inode_bitmap_hi
    28 I  bg_inode_table_hi
    2c H  bg_free_blocks_count_hi
    2e H  bg_free_inodes_count_hi
    30 H  bg_used_dirs_count_hi
    32 H  bg_itable_unused_hi
    34 I  bg_exclude_bitmap_hi
    38 H  bg_block_bitmap_csum_hi
    3a H  bg_inode_bitmap_csum_hi
    3c I  bg_reserved
""".lstrip("\n"))  # fmt: skip

INODE_UNINIT = 0x1  # neither the inode bitmap nor the inode table was written
BLOCK_UNINIT = 0x2  # the block bitmap was not written: only the group's own superblock and descriptors are in use
INODE_ZEROED = 0x4  # the inode table is known to be zero: the kernel need not clear it

GOOD_OLD_INODE_SIZE = 128
EXTRA_SIZE_OF_CHECKSUM = 4  # the smallest i_extra_isize with which i_checksum_hi is used
INODE_SIZE = 256
INODE_EXTRA_SIZE = 32  # bytes in use beyond the first 128
INODE = Record("ext4_inode", "<", INODE_SIZE, """
    00 H   i_mode
    02 H   i_uid
    04 I   i_size_lo
    08 I   i_atime
    0c I   i_ctime
    10 I   i_mtime
    14 I   i_dtime
    18 H   i_gid
    1a H   i_links_count
    1c I   i_blocks_lo               in 512 bytes
    20 I   i_flags
    24 I   i_version
    28 60s i_block                   block map, extent tree, short symlink or device number
    64 I   i_generation
    68 I   i_file_acl_lo
    6c I   i_size_high
    70 I   i_obso_faddr
    74 H   i_blocks_high
    76 H   i_file_acl_high
    78 H   i_uid_high
    7a H   i_gid_high
    7c H   i_checksum_lo
    7e H   i_reserved
    80 H   i_extra_isize
    82 H   i_checksum_hi
    84 I   i_ctime_extra             epoch in the low two bits, then nanoseconds
    88 I   i_mtime_extra
    8c I   i_atime_extra
    90 I   i_crtime
    94 I   i_crtime_extra
    98 I   i_version_hi
    9c I   i_projid
    a0 96s i_xattrs                  extended attributes inside the inode
""")  # fmt: skip

BAD_BLOCKS_INODE = 1
ROOT_INODE = 2
BOOT_LOADER_INODE = 5
RESIZE_INODE = 7
JOURNAL_INODE = 8
FIRST_INODE = 11
LOST_FOUND_INODE = FIRST_INODE

DIRECT_BLOCKS = 12  # i_block[0..11]; then one indirect, one double and one triple indirect

# i_flags
IMMUTABLE_FLAG, APPEND_FLAG = 0x10, 0x20
ENCRYPT_FLAG = 0x800
INDEX_FLAG = 0x1000  # a directory with a tree of hashes (dx_root, dx_node)
HUGE_FILE_FLAG = 0x40000  # i_blocks is in blocks, not in 512 bytes
EXTENTS_FLAG = 0x80000  # i_block is the root of an extent tree
VERITY_FLAG = 0x100000
EA_INODE_FLAG = 0x200000  # the inode's contents are the value of an extended attribute
INLINE_DATA_FLAG = 0x10000000  # the contents are in the inode itself
PROJECT_INHERIT_FLAG = 0x20000000
CASEFOLD_FLAG = 0x40000000
CHATTR_FLAGS = 0x604BDFFF  # those that chattr(1) and lsattr(1) show (EXT4_FL_USER_VISIBLE)

# The type in i_mode
FILE_TYPE_MASK = 0xF000
FIFO = 0x1000
CHARACTER_DEVICE = 0x2000
DIRECTORY = 0x4000
BLOCK_DEVICE = 0x6000
REGULAR_FILE = 0x8000
SYMLINK = 0xA000
SOCKET = 0xC000

# The extent tree: a header, then entries of 12 bytes; a node in its own block has a tail after the last possible entry.
EXTENT_HEADER = Record("ext4_extent_header", "<", 12, """
    0 H eh_magic
    2 H eh_entries
    4 H eh_max
    6 H eh_depth                     0: the entries are extents; else indexes
    8 I eh_generation
""")  # fmt: skip
EXTENT = Record("ext4_extent", "<", 12, """
    0 I ee_block                     first block of the file that it covers
    4 H ee_len                       up to 32768; above that: unwritten, and 32768 more than the length
    6 H ee_start_hi
    8 I ee_start_lo
""")  # fmt: skip
EXTENT_INDEX = Record("ext4_extent_idx", "<", 12, """
    0 I ei_block
    4 I ei_leaf_lo
    8 H ei_leaf_hi
    a H ei_unused
""")  # fmt: skip
EXTENT_TAIL = Record("ext4_extent_tail", "<", 4, "0 I et_checksum")
EXTENT_MAX_LENGTH = 32768
EXTENTS_IN_INODE = 4

# A directory block: entries chained by rec_len; the name follows and is padded to 4 bytes.
DIRECTORY_ENTRY = Record("ext4_dir_entry_2", "<", 8, """
    0 I inode                        0: unused
    4 H rec_len                      bytes to the next entry
    6 B name_len
    7 B file_type                    2: directory
""")  # fmt: skip
DIRECTORY_TAIL = Record("ext4_dir_entry_tail", "<", 12, """
    0 I det_reserved_zero1
    4 H det_rec_len                  12
    6 B det_reserved_zero2
    7 B det_reserved_ft              0xDE
    8 I det_checksum
""")  # fmt: skip
DIRECTORY_TAIL_TYPE = 0xDE
FILE_TYPE_DIRECTORY = 2
# file_type of an entry, by the type in i_mode; 0 without the feature filetype
FILE_TYPES = {
    REGULAR_FILE: 1,
    DIRECTORY: FILE_TYPE_DIRECTORY,
    CHARACTER_DEVICE: 3,
    BLOCK_DEVICE: 4,
    FIFO: 5,
    SOCKET: 6,
    SYMLINK: 7,
}
NAME_MAX = 255
DIRECTORY_HASH = Record("ext4_dir_entry_hash", "<", 8, """
    0 I hash                         after the name of an entry that is both encrypted and casefolded
    4 I minor_hash
""")  # fmt: skip

# A directory with hashes. Its first block has ".", "..", dx_root_info and the table; every other node has one unused
# entry as long as the block, and the table. The first entry of a table has no hash: dx_countlimit is there. With
# metadata_csum the tail follows the last possible entry of the table.
DX_ROOT = Record("dx_root", "<", 32, """
    00 8s dot                        ext4_dir_entry_2
    08 4s dot_name
    0c 8s dotdot                     ext4_dir_entry_2, up to the end of the block
    14 4s dotdot_name
    18 I  reserved_zero              dx_root_info from here on
    1c B  hash_version               s_def_hash_version, without the sign of the characters
    1d B  info_length                8
    1e B  indirect_levels            0: the table names leaf blocks
    1f B  unused_flags
""")  # fmt: skip
DX_ROOT_INFO_LENGTH = 8
DX_NODE = Record("dx_node", "<", 8, """
    0 I inode                        0
    4 H rec_len                      the whole block
    6 B name_len
    7 B file_type
""")  # fmt: skip
DX_COUNT_LIMIT = Record("dx_countlimit", "<", 8, """
    0 H limit                        entries for which there is room, with this one
    2 H count                        entries in use, with this one
    4 I block                        of the smallest hashes; block of the directory, not of the file system
""")  # fmt: skip
DX_ENTRY = Record("dx_entry", "<", 8, """
    0 I hash                         bit 0: hashes of the block before go on in this one
    4 I block
""")  # fmt: skip
DX_TAIL = Record("dx_tail", "<", 8, """
    0 I dt_reserved
    4 I dt_checksum                  crc32c(inode's seed, the block up to the entries in use, this tail with zero)
""")  # fmt: skip

# s_def_hash_version and hash_version; with s_flags & UNSIGNED_HASH the characters of the first three are unsigned.
HASH_LEGACY = 0
HASH_HALF_MD4 = 1
HASH_TEA = 2
HASH_SIPHASH = 6
SIGNED_HASH, UNSIGNED_HASH = 0x1, 0x2  # s_flags

# The extended attributes. In an inode: the magic, entries, four zero bytes, values at the end, whose offsets count from
# the first entry. In a block of their own: the header, entries sorted by (index, length of the name, name), four zero
# bytes, values, whose offsets count from the start of the block. The name follows its entry and is padded to 4 bytes.
XATTR_MAGIC = 0xEA020000
XATTR_INODE_HEADER = Record("ext4_xattr_ibody_header", "<", 4, "0 I h_magic")
XATTR_HEADER = Record("ext4_xattr_header", "<", 32, """
    00 I   h_magic
    04 I   h_refcount                inodes that share the block
    08 I   h_blocks                  1
    0c I   h_hash
    10 I   h_checksum                crc32c(seed, block number of 64 bits, the block with zero here)
    14 12s h_reserved
""")  # fmt: skip
XATTR_ENTRY = Record("ext4_xattr_entry", "<", 16, """
    0 B e_name_len
    1 B e_name_index                 stands for the beginning of the name
    2 H e_value_offs
    4 I e_value_inum                 the inode that holds the value (ea_inode), or 0
    8 I e_value_size
    c I e_hash                       of name and value
""")  # fmt: skip
XATTR_PADDING = 4
XATTR_PREFIXES = {
    1: b"user.",
    2: b"system.posix_acl_access",
    3: b"system.posix_acl_default",
    4: b"trusted.",
    6: b"security.",
    7: b"system.",
    8: b"system.richacl",
    10: b"gnu.",
}
XATTR_INLINE_DATA = (7, b"data")  # index and name of the attribute that holds inline data after i_block

# An ACL as the value of an attribute. Only entries for a named user or group have an id.
ACL_HEADER = Record("ext4_acl_header", "<", 4, "0 I a_version")
ACL_VERSION = 1
ACL_ENTRY = Record("ext4_acl_entry", "<", 8, """
    0 H e_tag
    2 H e_perm
    4 I e_id
""")  # fmt: skip
ACL_ENTRY_SHORT = Record("ext4_acl_entry_short", "<", 4, """
    0 H e_tag
    2 H e_perm
""")  # fmt: skip

# Multiple mount protection: the node that has mounted the file system increments mmp_seq in block s_mmp_block.
MMP = Record("mmp_struct", "<", 1024, """
    000 I    mmp_magic
    004 I    mmp_seq
    008 Q    mmp_time
    010 64s  mmp_nodename
    050 32s  mmp_bdevname
    070 H    mmp_check_interval
    072 H    mmp_pad1
    074 904s mmp_pad2
    3fc I    mmp_checksum
""")  # fmt: skip
MMP_MAGIC = 0x004D4D50
MMP_CLEAN = 0xFF4D4D50  # mmp_seq: no node uses it
MMP_FSCK = 0xE24D4D50  # mmp_seq: a program changes it, and it must not be mounted

# A block of the orphan file: inode numbers, 0 for unused ones, and this structure at the end.
ORPHAN_TAIL = Record("ext4_orphan_block_tail", "<", 8, """
    0 I ob_magic
    4 I ob_checksum
""")  # fmt: skip
ORPHAN_MAGIC = 0x0B10CA04

# The journal's first block. A start of 0 means an empty log.
JOURNAL_SUPERBLOCK = Record("journal_superblock_s", ">", 1024, """
    000 I    h_magic
    004 I    h_blocktype             4: superblock, version 2
    008 I    h_sequence
    00c I    s_blocksize
    010 I    s_maxlen                blocks in the journal
    014 I    s_first                 first block of the log
    018 I    s_sequence              first commit expected
    01c I    s_start                 block of the first commit; 0: empty
    020 I    s_errno
    024 I    s_feature_compat
    028 I    s_feature_incompat
    02c I    s_feature_ro_compat
    030 16s  s_uuid
    040 I    s_nr_users
    044 I    s_dynsuper
    048 I    s_max_transaction
    04c I    s_max_trans_data
    050 B    s_checksum_type
    051 3s   s_padding2
    054 I    s_num_fc_blocks
    058 I    s_head
    05c 160s s_padding
    0fc I    s_checksum
    100 768s s_users
""")  # fmt: skip
JOURNAL_SUPERBLOCK_V2 = 4
JOURNAL_SUPERBLOCK_V1 = 3  # without features

# The header of every block of the log that is not a copy of a file system's block.
JOURNAL_HEADER = Record("journal_header_s", ">", 12, """
    0 I h_magic
    4 I h_blocktype
    8 I h_sequence                   number of the transaction
""")  # fmt: skip
JOURNAL_DESCRIPTOR = 1  # tags, one for each of the following blocks
JOURNAL_COMMIT = 2
JOURNAL_REVOKE = 5

# s_feature_incompat and, the last one, s_feature_compat of the journal
JOURNAL_HAS_REVOKE = 0x1
JOURNAL_64BIT = 0x2
JOURNAL_ASYNC_COMMIT = 0x4
JOURNAL_CSUM_V2 = 0x8
JOURNAL_CSUM_V3 = 0x10
JOURNAL_FAST_COMMIT = 0x20
JOURNAL_COMPAT_CHECKSUM = 0x1

# A tag; the last field exists with 64bit only. CSUM_V2 has two unused bytes after it.
JOURNAL_TAG = Record("journal_block_tag_s", ">", 12, """
    0 I t_blocknr
    4 H t_checksum                   CSUM_V2: low half of crc32c(uuid, sequence, block)
    6 H t_flags
    8 I t_blocknr_high
""")  # fmt: skip
JOURNAL_TAG_V3 = Record("journal_block_tag3_s", ">", 16, """
    0 I t_blocknr
    4 I t_flags
    8 I t_blocknr_high
    c I t_checksum                   crc32c(uuid, sequence, block)
""")  # fmt: skip
TAG_ESCAPED = 0x1  # the block begins with the journal's magic, which is zeroed in the copy
TAG_SAME_UUID = 0x2  # else 16 bytes of UUID follow the tag
TAG_LAST = 0x8

JOURNAL_COMMIT_BLOCK = Record("commit_header", ">", 60, """
    00 I   h_magic
    04 I   h_blocktype
    08 I   h_sequence
    0c B   h_chksum_type
    0d B   h_chksum_size
    0e 2s  h_padding
    10 I   h_chksum                  CSUM_V2, CSUM_V3: crc32c(uuid, block)
    14 28s h_chksum_more
    30 Q   h_commit_sec
    38 I   h_commit_nsec
""")  # fmt: skip
JOURNAL_REVOKE_BLOCK = Record("jbd2_journal_revoke_header_s", ">", 16, """
    0 I h_magic
    4 I h_blocktype
    8 I h_sequence
    c I r_count                      bytes in use, with this header
""")  # fmt: skip
JOURNAL_TAIL_SIZE = 4  # of descriptor and revoke blocks with CSUM_V2 or CSUM_V3: crc32c(uuid, block)
