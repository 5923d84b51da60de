# SPDX-License-Identifier: MIT
"""ext2, ext3 and ext4 made smaller."""
