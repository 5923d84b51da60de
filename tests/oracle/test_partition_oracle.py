# SPDX-License-Identifier: MIT
"""sfdisk and parted read the tables that we write."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pydiskimg.disks.wipe import wipe_partition_table
from pydiskimg.images.open_disk import open_disk
from pydiskimg.partitions.make import Content, NewPartition, PartitionTable, plan_partition_table
from pydiskimg.units import GIB, MIB, TIB

pytestmark = pytest.mark.oracle

BOOT_SWAP_ROOT = [
    NewPartition(Content.LINUX, 100 * MIB, bootable=True),
    NewPartition(Content.SWAP, 64 * MIB),
    NewPartition(Content.LINUX),
]
ROOT = [NewPartition(Content.LINUX, bootable=True)]


def write(path: Path, size: int, wanted: list[NewPartition], *, provisional: bool = False) -> PartitionTable:
    """Put a table on a file whose ends are full of 0xFF."""
    with path.open("wb") as file:
        file.write(b"\xff" * 2 * MIB)
        file.truncate(size)
        file.seek(size - 2 * MIB)
        file.write(b"\xff" * 2 * MIB)
    with open_disk(path, writable=True) as disk:
        table = plan_partition_table(disk.size, disk.sector_size, wanted)
        wipe_partition_table(disk)
        table.write(disk, provisional=provisional)
    return table


def sfdisk(tool: Callable[[str], str], path: Path) -> dict[str, Any]:
    done = subprocess.run([tool("sfdisk"), "--json", path], capture_output=True, text=True, check=True)
    assert done.stderr == ""
    verify = subprocess.run([tool("sfdisk"), "--verify", path], capture_output=True, text=True, check=True)
    assert "No errors detected" in verify.stdout, verify.stdout
    return dict(json.loads(done.stdout)["partitiontable"])


@pytest.mark.parametrize("size", [400 * MIB, GIB + 512 * 7, 100 * GIB, 2 * TIB - 512])
def test_mbr(tmp_path: Path, tool: Callable[[str], str], size: int) -> None:
    path = tmp_path / "a disk"
    table = write(path, size, BOOT_SWAP_ROOT)
    found = sfdisk(tool, path)
    assert (table.label, found["label"]) == ("dos", "dos")
    assert [(p["start"] * 512, p["size"] * 512) for p in found["partitions"]] == [
        (p.start, p.length) for p in table.partitions
    ]
    assert [(p["type"], p.get("bootable", False)) for p in found["partitions"]] == [
        ("83", True),
        ("82", False),
        ("83", False),
    ]
    assert all(p.start % MIB == 0 for p in table.partitions)
    assert table.partitions[-1].start + table.partitions[-1].length > size - MIB


@pytest.mark.parametrize("size", [2 * TIB, 3 * TIB + 512])
def test_gpt_from_2_tib(tmp_path: Path, tool: Callable[[str], str], size: int) -> None:
    path = tmp_path / "disk"
    table = write(path, size, BOOT_SWAP_ROOT)
    found = sfdisk(tool, path)
    assert found["label"] == "gpt"
    types = [p["type"] for p in found["partitions"]]
    assert types == [
        "21686148-6449-6E6F-744E-656564454649",  # BIOS boot
        "0FC63DAF-8483-4772-8E79-3D69D8477DE4",  # Linux file system data
        "0657FD6D-A4AB-43C4-84E5-0933C84B4F4F",  # Linux swap
        "0FC63DAF-8483-4772-8E79-3D69D8477DE4",
    ]
    assert [p.number for p in table.partitions] == [1, 2, 3, 4]
    parted = subprocess.run(
        [tool("parted"), "-s", "-m", path, "unit", "B", "print"], capture_output=True, text=True, check=True
    )
    assert "gpt" in parted.stdout.splitlines()[1]


def test_4096_byte_sectors(tmp_path: Path, tool: Callable[[str], str]) -> None:
    table = plan_partition_table(GIB, 4096, BOOT_SWAP_ROOT)
    path = tmp_path / "disk"
    with path.open("wb") as file:
        file.truncate(GIB)
        for offset, block in table.blocks:
            file.seek(offset)
            file.write(block)
    done = subprocess.run(
        [tool("fdisk"), "-b", "4096", "-l", "-o", "Start,Sectors,Id", path], capture_output=True, text=True, check=True
    )
    rows = [line.split() for line in done.stdout.split("Start")[1].splitlines()[1:]]
    assert [(int(start) * 4096, int(sectors) * 4096, kind) for start, sectors, kind in rows] == [
        (p.start, p.length, kind) for p, kind in zip(table.partitions, ("83", "82", "83"), strict=True)
    ]


def test_a_provisional_table_has_the_offsets_but_not_the_types(tmp_path: Path, tool: Callable[[str], str]) -> None:
    path = tmp_path / "disk"
    table = write(path, GIB, BOOT_SWAP_ROOT, provisional=True)
    found = sfdisk(tool, path)
    assert [(p["start"] * 512, p["type"], p.get("bootable")) for p in found["partitions"]] == [
        (p.start, "12", None) for p in table.partitions
    ]
    identifier = found["id"]
    with open_disk(path, writable=True) as disk:
        disk.write(0, b"boot code" + bytes(431))
        table.write(disk)
    found = sfdisk(tool, path)
    assert [p["type"] for p in found["partitions"]] == ["83", "82", "83"]
    assert found["id"] == identifier, "what a boot loader noted as PARTUUID is gone"
    with path.open("rb") as file:
        assert file.read(9) == b"boot code"


def test_old_tables_are_gone(tmp_path: Path, tool: Callable[[str], str]) -> None:
    path = tmp_path / "disk"
    path.touch()
    with path.open("r+b") as file:
        file.truncate(GIB)
    subprocess.run([tool("parted"), "-s", path, "mklabel", "gpt", "mkpart", "x", "1MiB", "9MiB"], check=True)
    with open_disk(path, writable=True) as disk:
        wipe_partition_table(disk)
        plan_partition_table(GIB, 512, ROOT).write(disk)
    seen = subprocess.run([tool("wipefs"), "--no-act", path], capture_output=True, text=True, check=True)
    assert "gpt" not in seen.stdout
    assert "dos" in seen.stdout
