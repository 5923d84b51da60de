# SPDX-License-Identifier: MIT
"""Tables that sfdisk wrote are read as sfdisk reads them; damaged ones are refused or read, never crash."""

from __future__ import annotations

import json
import random
import struct
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from pydiskimg.disks.memory import MemoryDisk
from pydiskimg.errors import PartitionError
from pydiskimg.images.open_disk import open_disk
from pydiskimg.partitions.partition import Partition
from pydiskimg.partitions.read import read_partition_table
from pydiskimg.units import MIB

pytestmark = pytest.mark.oracle

MBR = "label: dos\n,10M,L,*\n,5M,S\n,,E\n,3M,L\n,4M,7\n,,L\n"
GPT = "label: gpt\nsize=1M,type=21686148-6449-6E6F-744E-656564454649\nsize=20M,type=L\n,,S\n"


def partitioned(tool: Callable[[str], str], path: Path, script: str) -> Path:
    with path.open("wb") as file:
        file.truncate(64 * MIB)
    subprocess.run([tool("sfdisk"), "-q", path], input=script, text=True, check=True)
    return path


def read(path: Path) -> list[Partition]:
    with open_disk(path) as disk:
        return read_partition_table(disk)


@pytest.mark.parametrize("script", [MBR, GPT], ids=["mbr", "gpt"])
def test_as_sfdisk_reads_it(tmp_path: Path, tool: Callable[[str], str], script: str) -> None:
    path = partitioned(tool, tmp_path / "disk", script)
    done = subprocess.run([tool("sfdisk"), "--json", path], capture_output=True, text=True, check=True)
    table = json.loads(done.stdout)["partitiontable"]
    expected = [(p["start"] * 512, p["size"] * 512, p["type"].upper()) for p in table["partitions"] if p["type"] != "5"]
    found = read(path)
    if script is MBR:  # as fstab has it: PARTUUID=1a2b3c4d-05
        uuids = [f"{int(table['id'], 16):08x}-{p.number:02x}" for p in found]
    else:
        uuids = [p["uuid"].lower() for p in table["partitions"]]
    assert [p.uuid for p in found] == uuids
    assert [(p.start, p.length, p.type.upper().removeprefix("0X0").removeprefix("0X")) for p in found] == expected
    assert [p.number for p in found] == ([1, 2, 5, 6, 7] if script is MBR else [1, 2, 3])


def test_the_backup_gpt_is_used_when_the_first_is_damaged(tmp_path: Path, tool: Callable[[str], str]) -> None:
    path = partitioned(tool, tmp_path / "disk", GPT)
    expected = read(path)
    with path.open("r+b") as file:
        file.seek(512 + 40)
        file.write(b"\xff" * 8)
    assert read(path) == expected
    with path.open("r+b") as file:
        file.seek(-512 + 40, 2)
        file.write(b"\xff" * 8)
    with pytest.raises(PartitionError, match="both copies of the GPT are damaged: header at byte 512: CRC"):
        read(path)


def entry(kind: int, start: int, length: int) -> bytes:
    return struct.pack("<B3sB3sII", 0, b"", kind, b"", start, length)


def mbr(*entries: bytes) -> bytes:
    return bytes(446) + b"".join(entries).ljust(64, b"\0") + b"\x55\xaa"


def test_lies() -> None:
    disk = MemoryDisk(MIB, name="/dev/x")
    assert read_partition_table(disk) == []
    disk.write(0, mbr(entry(0x83, 2000, 100)))
    with pytest.raises(PartitionError, match=r"/dev/x: partition 1 \(bytes 1024000 to 1075200\) lies beyond the end"):
        read_partition_table(disk)
    disk.write(0, mbr(entry(5, 10, 1000)))
    with pytest.raises(PartitionError, match=r"extended boot record at byte 5120 has no signature \(found 0000"):
        read_partition_table(disk)
    disk.write(5120, mbr(entry(0x83, 1, 1), entry(5, 20, 5)))
    disk.write(512 * 30, mbr(entry(0x83, 1, 1), entry(5, 20, 5)))
    with pytest.raises(PartitionError, match="circular"):
        read_partition_table(disk)
    disk.write(0, mbr(entry(5, 1 << 31, 1000)))
    with pytest.raises(PartitionError, match="extended boot record at byte 1099511627776 lies beyond"):
        read_partition_table(disk)


def test_mutations(tmp_path: Path, tool: Callable[[str], str]) -> None:
    rng = random.Random(1)
    refused = 0
    for script in (MBR, GPT):
        clean = partitioned(tool, tmp_path / "disk", script).read_bytes()
        disk = MemoryDisk(0)
        disk.data = bytearray(clean)
        start = time.process_time()
        for _ in range(300):
            disk.data[:2048] = clean[:2048]
            for _ in range(rng.randint(1, 4)):
                disk.data[rng.choice([rng.randrange(440, 1024), rng.randrange(1024, 2048)])] = rng.randrange(256)
            try:
                for partition in read_partition_table(disk):
                    assert 0 <= partition.start < partition.start + partition.length <= disk.size
            except PartitionError:
                refused += 1
        assert time.process_time() - start < 10
    assert refused
