# SPDX-License-Identifier: MIT
"""What is on a guest's disk: one partition that is unclear does not hide the others."""

from __future__ import annotations

import pytest

from ganeti_os.guest.root import volumes
from pydiskimg.fs.ext4 import make_ext
from pydiskimg.partition import Content, NewPartition, plan_partition_table
from pydiskimg.region import Region
from pydiskimg.targets.memory import MemoryDisk
from pydiskimg.units import MIB


def test_a_partition_with_the_signatures_of_two_file_systems(caplog: pytest.LogCaptureFixture) -> None:
    disk = MemoryDisk(40 * MIB)
    wanted = [NewPartition(Content.LINUX, 16 * MIB), NewPartition(Content.LINUX)]
    table = plan_partition_table(disk.size, disk.sector_size, wanted)
    table.write(disk)
    for partition in table.partitions:
        make_ext(Region(disk, partition.start, partition.length), kind="ext2")
    # A swap area's header: version 1, with pages behind it.
    disk.write(table.partitions[0].start + 1024, (1).to_bytes(4, "little") + (1000).to_bytes(4, "little"))
    disk.write(table.partitions[0].start + 4096 - 10, b"SWAPSPACE2")
    found = volumes(disk)  # type: ignore[arg-type] # any Disk does
    assert [volume.content and volume.content.type for volume in found] == [None, "ext2"]
    assert "memory, partition 1: has the signatures of swap and ext2" in caplog.text
