# SPDX-License-Identifier: MIT
"""A Linux system in a tree of files: its own description, and a disk made from it."""
