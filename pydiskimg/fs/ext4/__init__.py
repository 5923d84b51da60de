# SPDX-License-Identifier: MIT
"""ext2, ext3 and ext4.

layout ── features ── checksums ── superblock ── geometry          what is on the disk, and where
file_system ── descriptors ── inodes ── map_reader ── journal      read: FileSystem, and made
inode_table, contents, directory_entries, xattrs ── acl            a file by its inode; tree/ by its path
plan ── placement ── groups, directories, resize_inode ── make     a new one
journal_reader ── recovery ── beginning ── usage                   what is in use, as recovery will leave it
grow_geometry ── journal_writer ── grow                            a larger one
"""
