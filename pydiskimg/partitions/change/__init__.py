# SPDX-License-Identifier: MIT
"""Partitions added to, removed from and changed in the table of a disk: MBR with logical partitions, and GPT.

table ── what both have in common, and which of them a disk has
gpt, mbr ── how each is read to be changed, and written so that an interruption leaves the old table or the new one
free ── where there is room
"""

from pydiskimg.partitions.change.new import new_table
from pydiskimg.partitions.change.open import move_end, open_table
from pydiskimg.partitions.change.table import ChangedTable, PartitionChange

__all__ = ["ChangedTable", "PartitionChange", "move_end", "new_table", "open_table"]
