# SPDX-License-Identifier: MIT
"""What is on a guest's disk: one partition that is unclear does not hide the others."""

from __future__ import annotations

from pathlib import Path
from uuid import UUID

import pytest

from ganeti_os.guest.device_names import names_volume
from ganeti_os.guest.mounted_guest import mount_point_inside
from ganeti_os.guest.root import _volume_at
from pydiskimg.disks.memory import MemoryDisk
from pydiskimg.errors import StorageError
from pydiskimg.fs.ext4.make import make_ext
from pydiskimg.fs.probe.kind import FileSystemKind, label_text
from pydiskimg.partitions.make import Content, NewPartition, plan_partition_table
from pydiskimg.partitions.partition import Partition
from pydiskimg.regions.region import Region
from pydiskimg.system.fstab import FstabLine
from pydiskimg.units import MIB
from pydiskimg.volumes.find import Volume, find_volumes
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
    found = find_volumes(disk)
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
    boot, root = find_volumes(disk)
    assert [boot.partition.uuid, root.partition.uuid] == names
    for name, found in ((names[0], boot), (names[0].upper(), boot), (names[1], None), ("0-01", None), ("", None)):
        assert (
            _volume_at("/boot", [boot, root], [FstabLine(f"PARTUUID={name}", "/boot", "ext4")], taken=[root]) == found
        )
    whole = MemoryDisk(40 * MIB)
    make_ext(whole)
    (only,) = find_volumes(whole)
    assert only.partition.uuid == ""
    assert _volume_at("/boot", [only], [FstabLine("PARTUUID=", "/boot", "ext4")], taken=[root]) is None


FS_UUID = "0F0F0F0F-1111-4222-8333-abcdefabcdef"
PART_UUID = "02020202-0202-0202-0202-020202020202"
VOLUME = Volume(
    Partition(2, 0, MIB, "", uuid=PART_UUID, name="my boot\\x"),
    FileSystemKind("ext4", FS_UUID.lower(), label_text(b"b\xc3\xa4r \xff")),
)


@pytest.mark.parametrize(
    "spec",
    [
        f"UUID={FS_UUID}",
        f'UUID="{FS_UUID}"',
        f"/dev/disk/by-uuid/{FS_UUID.lower()}",
        "LABEL=b\u00e4r\\040\\377",
        "/dev/disk/by-label/b\u00e4r\\x20\\xff",
        f"PARTUUID={PART_UUID}",
        f"/dev/disk/by-partuuid/{PART_UUID}",
        "PARTLABEL=my\\040boot\\134x",
        "/dev/disk/by-partlabel/my\\x20boot\\x5cx",
        "/dev/vda2",
    ],
)
def test_every_name_of_a_volume(spec: str) -> None:
    assert names_volume(spec, VOLUME, root_spec="/dev/vda1")


@pytest.mark.parametrize(
    "spec",
    [
        "",
        "UUID=",
        "LABEL=",
        "LABEL=bar",
        "PARTLABEL=MY\\040BOOT\\134x",
        "/dev/disk/by-uuid/",
        "/dev/disk/by-label/my\\x20boot\\x5cx",
        "/dev/disk/by-id/virtio-0-part2",
        f"/dev/disk/by-uuid/x/{FS_UUID}",
        "ID=2",
        "/dev/vdb2",
        "/dev/vda1",
        "\\777",
    ],
)
def test_names_of_others(spec: str) -> None:
    assert not names_volume(spec, VOLUME, root_spec="/dev/vda1")
    assert not names_volume(spec, Volume(Partition(1, 0, MIB, ""), None), root_spec="/dev/vda9") or spec == "/dev/vda1"


def test_boot_and_efi_are_two_volumes() -> None:
    """A line for each that names the same volume must not mount it twice."""
    disk = MemoryDisk(40 * MIB)
    gpt(disk, [(2048, 20479), (20480, 81000)], sectors=40 * 2048)
    for start, length in ((1, 9), (10, 29)):
        make_ext(Region(disk, start * MIB, length * MIB), label=f"l{start}")
    other, root = find_volumes(disk)
    entries = [
        FstabLine("LABEL=l1", "/boot/", "ext4"),
        FstabLine("LABEL=l1", "/boot//efi", "vfat"),
        FstabLine("x", "/boot", ""),
    ]
    assert _volume_at("/boot", [other, root], entries, taken=[root]) == other
    assert _volume_at("/boot/efi", [other, root], entries, taken=[root]) == other
    assert _volume_at("/boot/efi", [other, root], entries, taken=[root, other]) is None


@pytest.mark.parametrize("target", ["/", "..", "../../..", "usr/..", "/proc/self/root"])
def test_nothing_is_mounted_over_the_root_itself(tmp_path: Path, target: str) -> None:
    """What is mounted there would be taken for the root, and get the instance's name in its place."""
    (tmp_path / "usr").mkdir()
    (tmp_path / "var").symlink_to(target)
    with pytest.raises(StorageError, match=r"^/var in the guest"):
        mount_point_inside(str(tmp_path), "var")
    assert mount_point_inside(str(tmp_path), "usr") == str(tmp_path / "usr")
