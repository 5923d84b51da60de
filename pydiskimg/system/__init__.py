# SPDX-License-Identifier: MIT
"""A Linux system in a tree of files: what it says of itself, and a disk made of it."""
