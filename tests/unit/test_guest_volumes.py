# SPDX-License-Identifier: MIT
"""What is on a guest's disk: one partition that is unclear does not hide the others."""

from __future__ import annotations

from uuid import UUID

import pytest

from ganeti_os.guest.fstab import Entry
from ganeti_os.guest.root import _boot_volume, volumes
from pydiskimg.fs.ext4 import make_ext
from pydiskimg.partition import Content, NewPartition, plan_partition_table
from pydiskimg.region import Region
from pydiskimg.targets.memory import MemoryDisk
from pydiskimg.units import MIB
from tests.fixtures.partition_tables import entry, gpt, record


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


@pytest.mark.parametrize("label", ["dos", "gpt"])
def test_boot_by_the_uuid_of_its_partition(label: str) -> None:
    disk = MemoryDisk(40 * MIB)
    if label == "gpt":
        gpt(disk, [(2048, 20479), (20480, 81000)], sectors=40 * 2048)
        names = [str(UUID(bytes_le=bytes([number]) * 16)) for number in (1, 2)]
    else:
        disk.write(0, record(entry(0x83, 2048, 18432), entry(0x83, 20480, 60000)))
        disk.write(440, bytes.fromhex("0df0adba"))
        names = ["baadf00d-01", "baadf00d-02"]
    for start, length in ((1, 9), (10, 29)):
        make_ext(Region(disk, start * MIB, length * MIB))
    boot, root = volumes(disk)  # type: ignore[arg-type] # any Disk does
    assert [boot.partition.uuid, root.partition.uuid] == names
    for name, found in ((names[0], boot), (names[0].upper(), boot), (names[1], None), ("0-01", None), ("", None)):
        assert _boot_volume([boot, root], [Entry(f"PARTUUID={name}", "/boot", "ext4")], root) == found
    whole = MemoryDisk(40 * MIB)
    make_ext(whole)
    (only,) = volumes(whole)  # type: ignore[arg-type] # any Disk does
    assert only.partition.uuid == ""
    assert _boot_volume([only], [Entry("PARTUUID=", "/boot", "ext4")], root) is None
