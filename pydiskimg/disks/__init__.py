# SPDX-License-Identifier: MIT
"""Where bytes are read and written at any offset: block devices, files, memory, parts of them. Each is a Disk."""
