# SPDX-License-Identifier: MIT
"""Add, remove and change partitions in the table of a disk: MBR with logical partitions, and GPT.

table      what both have in common
gpt, mbr   how each is read and written, so that an interruption leaves the old table or the new one
free       where a new partition fits
"""

from pydiskimg.partitions.change.new import new_table
from pydiskimg.partitions.change.open import move_end, open_table
from pydiskimg.partitions.change.table import ChangedTable, PartitionChange

__all__ = ["ChangedTable", "PartitionChange", "move_end", "new_table", "open_table"]
