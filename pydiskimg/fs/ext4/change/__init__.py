# SPDX-License-Identifier: MIT
"""Files of an existing ext2, ext3 or ext4 changed on its Disk, each change done as a whole or not at all."""
