# SPDX-License-Identifier: MIT
"""pydiskimg: disk images, partitions, file systems and archives, without external programs."""
