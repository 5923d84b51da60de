# SPDX-License-Identifier: MIT
"""Disks, read and written at any offset: block devices, files, memory, and parts of them."""
