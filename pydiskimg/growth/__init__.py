# SPDX-License-Identifier: MIT
"""A disk that is larger than the image on it: its last partition and file system grow to the end (ADR 0053).

grow_last_volume     volume.py      partition, then the file system in it
grow_last_partition  partition.py   the table alone: plan.py, mbr.py, gpt.py
"""

from __future__ import annotations

from pydiskimg.growth.partition import grow_last_partition
from pydiskimg.growth.plan import NothingToGrowError, PartitionGrowth
from pydiskimg.growth.volume import grow_last_volume

__all__ = ["NothingToGrowError", "PartitionGrowth", "grow_last_partition", "grow_last_volume"]
