# SPDX-License-Identifier: MIT
"""A new ext2, ext3 or ext4 file system filled from a stream of entries as it is made."""
