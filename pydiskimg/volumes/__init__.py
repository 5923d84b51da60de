# SPDX-License-Identifier: MIT
"""A disk's partitions and what each of them holds: what is in use, and growing to the disk's end (ADR 0053)."""
