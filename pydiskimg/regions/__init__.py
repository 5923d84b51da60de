# SPDX-License-Identifier: MIT
"""Byte ranges of sources and disks: regions, whether two share bytes, and those whose files are being changed."""
