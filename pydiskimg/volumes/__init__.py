# SPDX-License-Identifier: MIT
"""A disk's partitions and their contents: the space in use, and growing to the disk's end (ADR 0053)."""
