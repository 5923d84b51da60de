# SPDX-License-Identifier: MIT
"""Remove what makes a disk look like a system: its partition table, the table's backup and whole-disk signatures."""

from __future__ import annotations

from pydiskimg.protocols import Disk
from pydiskimg.regions.claims import require_unclaimed
from pydiskimg.units import MIB


def wipe_partition_table(disk: Disk) -> None:
    """Zero the first and last MiB, which contain MBR, GPT, its backup and whole-disk signatures, and flush."""
    require_unclaimed(disk)
    length = min(MIB, disk.size)
    disk.zero(0, length)
    disk.zero(disk.size - length, length)
    disk.flush()
