# SPDX-License-Identifier: MIT
"""Change files of an existing ext2, ext3 or ext4 on its Disk; each change is done completely or not at all."""
