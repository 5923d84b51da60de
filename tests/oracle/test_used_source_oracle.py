# SPDX-License-Identifier: MIT
"""Whole disks: tables of sfdisk, file systems of their makers, sent as a stream and restored onto an old disk."""

from __future__ import annotations

import os
import random
from pathlib import Path

import pytest

from pydiskimg.extents import Kind
from pydiskimg.images.open_disk import open_disk
from pydiskimg.images.raw import open_raw
from pydiskimg.partitions.read import read_partition_table
from pydiskimg.transfer.receive import read_stream
from pydiskimg.transfer.send import write_stream
from pydiskimg.units import MIB
from pydiskimg.volumes.used import used_source
from tests.fixtures.programs import Tool, run

pytestmark = pytest.mark.oracle

SIZE = 700 * MIB

TABLES = {
    "mbr": "label: dos\n1M,60M,L,*\n62M,30M,S\n95M,,E\n100M,40M,L\n150M,310M,L\n470M,120M,L\n600M,20M,L\n630M,9M,8e\n",
    "gpt": "label: gpt\n"
    + "".join(
        f"start={start}M,size={size}M\n"
        for start, size in ((1, 60), (62, 30), (100, 40), (150, 310), (470, 120), (600, 20), (630, 9))
    ),
}
MAKERS = (
    ("mke2fs", "-q", "-F", "-t", "ext4"),
    ("mkswap",),
    ("mke2fs", "-q", "-F", "-t", "ext3"),
    ("mkfs.xfs", "-q", "-f"),
    ("mkfs.btrfs", "-q", "-f"),
    ("mkfs.vfat",),
)
NOTES = (
    r" (swap): its contents are left out",
    r" (xfs): all of it counts as in use",
    r" (btrfs): all of it counts as in use",
    r" (vfat): all of it counts as in use",
    r" (nothing known): all of it counts as in use",
)


def made(tool: Tool, path: Path, table: str) -> Path:
    """A disk that holds something of everything, and old bytes wherever that is nothing."""
    noise = random.Random(3).randbytes(MIB)
    with path.open("wb") as file:
        for _ in range(SIZE // MIB):
            file.write(noise)
        file.seek(0)
        file.write(bytes(64 * 1024))
    run(tool("sfdisk"), "-q", path, given=table)
    with open_raw(path) as source:
        partitions = read_partition_table(source)
    assert len(partitions) == len(MAKERS) + 1
    for partition, (maker, *options) in zip(partitions, MAKERS, strict=False):
        part = path.with_suffix(".part")
        with path.open("r+b") as disk:
            disk.seek(partition.start)
            part.write_bytes(disk.read(partition.length))
            run(tool(maker), *options, part)
            disk.seek(partition.start)
            disk.write(part.read_bytes())
    return path


@pytest.mark.parametrize("table", TABLES)
def test_sent_and_restored(table: str, tmp_path: Path, tool: Tool) -> None:
    path = made(tool, tmp_path / "disk", TABLES[table])
    restored, stream = tmp_path / "restored", tmp_path / "stream"
    with restored.open("wb") as file:
        for _ in range(SIZE // MIB):
            file.write(b"\xff" * MIB)
    with open_raw(path) as disk, stream.open("wb") as file:
        source = used_source(disk)
        assert len(source.notes) == len(NOTES)
        assert all(any(note in found for found in source.notes) for note in NOTES), source.notes
        write_stream(source, file.fileno(), name="stream")
        free = SIZE - source.used_bytes
        assert (30 + 60) * MIB < free < (30 + 100) * MIB
    assert stream.stat().st_size < SIZE - free + 8 * MIB
    fd = os.open(stream, os.O_RDONLY)
    try:
        with read_stream(fd, format="qcow2") as sent, open_disk(restored, writable=True) as target:
            sent.copy_to(target)
    finally:
        os.close(fd)
    same_where_used(path, restored)
    with open_raw(restored) as source_again:
        partitions = read_partition_table(source_again)
    for partition, checker in ((partitions[0], "e2fsck"), (partitions[2], "e2fsck"), (partitions[3], "xfs_repair")):
        part = tmp_path / "part"
        with restored.open("rb") as file:
            file.seek(partition.start)
            part.write_bytes(file.read(partition.length))
        run(tool(checker), "-n" if checker == "xfs_repair" else "-fn", part)


def same_where_used(one: Path, other: Path) -> None:
    """Byte for byte what is in use, and zeros elsewhere."""
    with open_raw(one) as disk, one.open("rb") as first, other.open("rb") as second:
        for extent in used_source(disk).extents():
            first.seek(extent.start)
            second.seek(extent.start)
            data = second.read(extent.length)
            assert data == (first.read(extent.length) if extent.kind is Kind.DATA else bytes(extent.length))


@pytest.mark.parametrize("damage", [(512, 512), (1024, 16384)])
def test_a_damaged_gpt_is_not_believed(damage: tuple[int, int], tmp_path: Path, tool: Tool) -> None:
    """Its copy is good, and others read that; Linux does not, so it may have been something else for long."""
    path = made(tool, tmp_path / "disk", TABLES["gpt"])
    with path.open("r+b") as file:
        file.seek(damage[0])
        file.write(b"\x5a" * damage[1])
    with open_raw(path) as source:
        assert len(read_partition_table(source)) == len(MAKERS) + 1
        used = used_source(source)
        assert [extent.kind for extent in used.extents()] == [Kind.DATA]
        assert "the partition table is not believed: " in used.notes[-1]
        assert "the GPT, whose backup Linux does not read, is damaged: " in used.notes[-1]
