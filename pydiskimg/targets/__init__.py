# SPDX-License-Identifier: MIT
"""Where bytes go: block devices, regular files, memory. Each is a Disk."""
