# SPDX-License-Identifier: MIT
"""File systems and swap areas, made and recognised as bytes on a Disk."""
