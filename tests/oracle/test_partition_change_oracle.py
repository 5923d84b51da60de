# SPDX-License-Identifier: MIT
"""Partition tables changed at random, with sfdisk as the judge; interrupted at every write; and what is refused."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from pydiskimg.cli import main
from pydiskimg.disks.memory import MemoryDisk
from pydiskimg.errors import DiskImageError
from pydiskimg.images.open_disk import open_disk
from pydiskimg.partitions.change import ChangedTable, PartitionChange, new_table, open_table
from pydiskimg.partitions.partition import Partition
from pydiskimg.partitions.read import read_partition_table
from pydiskimg.partitions.types import TYPES
from tests.fixtures.ext_files import sized
from tests.fixtures.programs import Tool, making, run
from tests.fixtures.stopping_disk import StoppedError, StoppingDisk

pytestmark = pytest.mark.oracle

MIB = 1 << 20
SIZE = 200 * MIB


def by_sfdisk(path: Path, tool: Tool) -> list[tuple[int, int, int, str]]:
    """(number, start, length, type) of each partition, in the order of the numbers."""
    assert "No errors" in run(tool("sfdisk"), "--verify", str(path))
    said = run(tool("sfdisk"), "-J", str(path))
    table = json.loads(said[said.index("{") :])["partitiontable"]  # after a line on an empty record
    found = []
    for row in table.get("partitions", []):
        number = int(row["node"].removeprefix(str(path)).lstrip("p"))
        kind = row["type"] if table["label"] == "gpt" else f"0x{int(row['type'], 16):02x}"
        found.append((number, row["start"] * 512, row["size"] * 512, kind))
    return sorted(found)


def facts(partitions: list[Partition]) -> list[tuple[int, int, int, str]]:
    return [(part.number, part.start, part.length, part.type) for part in partitions]


def change_at_random(table: ChangedTable, rng: random.Random) -> None:
    numbers = [part.number for part in table.partitions]
    kinds = [known.name for known in TYPES if (known.mbr if table.label == "dos" else known.guid) is not None]
    change = PartitionChange(type=rng.choice(kinds), bootable=rng.choice((None, True, False)))
    action = rng.random()
    if action < 0.6 or not numbers:
        length = rng.choice((None, rng.randrange(1, 40) * MIB, rng.randrange(1, 9) * 512))
        start = rng.choice((None, None, rng.randrange(SIZE // 512) * 512))
        table.add(start, length, change, number=None, logical=table.label == "dos" and rng.random() < 0.5)
    elif action < 0.85:
        table.delete(rng.choice(numbers))
    else:
        table.set(rng.choice(numbers), change)


@pytest.mark.parametrize("label", ["dos", "gpt"])
@pytest.mark.parametrize("seed", range(4))
def test_random_changes_leave_what_sfdisk_reads(label: str, seed: int, tmp_path: Path, tool: Tool) -> None:
    rng = random.Random(f"{label} {seed}")
    path = sized(tmp_path / "disk", SIZE)
    done = 0
    with open_disk(path, writable=True) as disk:
        table = new_table(disk, label)  # type: ignore[arg-type]
        for _ in range(30):
            before = facts(list(table.partitions))
            try:
                change_at_random(table, rng)
                done += 1
            except DiskImageError:
                assert facts(list(open_table(disk).partitions)) == before
            found = facts(list(table.partitions))
            assert facts(list(open_table(disk).partitions)) == found
            assert by_sfdisk(path, tool) == found
    assert done >= 5


@pytest.mark.parametrize("label", ["dos", "gpt"])
def test_tables_that_sfdisk_made_are_changed(label: str, tmp_path: Path, tool: Tool) -> None:
    path = sized(tmp_path / "disk", SIZE)
    lines = ["size=20M", "size=30M"]
    lines += ["size=100M, type=E", "size=10M", "size=10M, type=S", "size=10M"] if label == "dos" else ["size=40M"] * 3
    run(tool("sfdisk"), "-q", str(path), given="\n".join([f"label: {label}", *lines, ""]))
    with open_disk(path, writable=True) as disk:
        table = open_table(disk)
        assert facts(list(table.partitions)) == by_sfdisk(path, tool)
        for number in (5, 1):
            table.delete(number)
            assert facts(list(table.partitions)) == by_sfdisk(path, tool)
        table.add(None, 5 * MIB, PartitionChange(type="swap"), number=None, logical=label == "dos")
        table.add(None, 7 * MIB, PartitionChange(bootable=True), number=1 if label == "dos" else 5, logical=False)
        assert facts(list(table.partitions)) == by_sfdisk(path, tool)


@pytest.mark.parametrize("label", ["dos", "gpt"])
def test_an_interruption_leaves_the_old_table_or_the_new_one(label: str) -> None:
    disk = MemoryDisk(SIZE)
    table = new_table(disk, label)  # type: ignore[arg-type]
    table.add(None, 20 * MIB, PartitionChange(), number=None, logical=False)
    if label == "dos":
        table.add(None, 150 * MIB, PartitionChange(type="extended"), number=None, logical=False)
    for _ in range(3):
        table.add(None, 20 * MIB, PartitionChange(), number=None, logical=label == "dos")
    last = 7 if label == "dos" else 4
    changes: list[Any] = [
        lambda table: table.add(None, 5 * MIB, PartitionChange(), number=None, logical=label == "dos"),
        lambda table: table.delete(last),
        lambda table: table.delete(last - 1),
        lambda table: table.delete(1),
        (lambda table: table.delete(2, 5, 6, 7)) if label == "dos" else lambda table: table.delete(1, 2, 4),
        lambda table: table.set(1, PartitionChange(type="swap")),
    ]
    before = bytes(disk.data)
    for change in changes:
        disk.data[:] = before
        old = facts(read_partition_table(disk))
        change(open_table(disk))
        new = facts(read_partition_table(disk))
        assert new != old
        assert set(map(str, interrupted(change, disk, before))) <= {str(old), str(new)}


def interrupted(change: Callable[[ChangedTable], object], disk: MemoryDisk, before: bytes) -> Iterator[list[Any]]:
    """Yield what is read when the change stops before each of its writes."""
    for steps in range(100):
        disk.data[:] = before
        try:
            change(open_table(StoppingDisk(disk, steps)))
        except StoppedError:
            yield facts(read_partition_table(disk, backup=False))
        else:
            assert steps > 0
            return


@pytest.mark.parametrize("label", ["dos", "gpt"])
@pytest.mark.parametrize("numbers", [[3, 1, 9], [1, 2], [7, 99]])
def test_partitions_are_deleted_together_or_not_at_all(
    label: str, numbers: list[int], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Of the second the extended partition would go, and not what is in it; the others do not exist."""
    path = sized(tmp_path / "disk.raw", SIZE)
    words = "size=20M\nsize=100M, type=5\nsize=20M\n,10M\n,10M\n,10M\n"
    given = words if label == "dos" else words.replace(", type=5", "")
    run("sfdisk", "-q", str(path), given=f"label: {label}\n{given}")
    before = path.read_bytes()
    status = main(["partition", "delete", str(path), *map(str, numbers)])
    if label == "gpt" and numbers == [1, 2]:
        assert status == 0
        return
    assert status == 1
    assert "has no partition" in (said := capsys.readouterr().err) or "delete these, too" in said
    assert path.read_bytes() == before


def test_what_people_see(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = str(sized(tmp_path / "my disk.raw", SIZE))
    assert main(["partition", "add", path]) == 1
    assert "has no partition table; make one with: pydiskimg partition create" in capsys.readouterr().err
    assert main(["partition", "create", "--label", "gpt", path]) == 0
    assert main(["partition", "create", path]) == 1
    assert "use --force to overwrite it" in capsys.readouterr().err
    assert main(["partition", "add", "--type", "esp", "--size", "100M", "--name", "EFI", path]) == 0
    assert "partition 1: esp, 100 MiB at byte 1048576" in capsys.readouterr().out
    for words, status, message in (
        (["add", "--size", "150M", path], 1, "does not fit; the largest free area has"),
        (["add", "--start", "2M", path], 1, "byte 2097152 is not free; free are bytes"),
        (["add", "--type", "0x83", path], 1, "is not a partition type of a GPT; expected linux,"),
        (["add", "--name", "x" * 37, path], 1, "has 37 UTF-16 units, expected at most 36"),
        (["add", "--logical", path], 1, "does not have logical partitions; leave out --logical"),
        (["add", "--size", "100", path], 1, "expected a multiple of a sector"),
        (["add", "--number", "1", path], 1, "the number 1 is taken"),
        (["delete", path, "7"], 1, "has no partition 7; found: 1"),
        (["delete", path, "0"], 2, "is not the number of a partition"),
        (["set", "--uuid", "7", path, "1"], 2, "is not a UUID"),
    ):
        assert ended_with(["partition", *words]) == status
        assert message in capsys.readouterr().err
    assert main(["partition", "list", "--output", "json", path]) == 0
    found = json.loads(capsys.readouterr().out)["partitions"]
    assert [(part["number"], part["type-name"], part["name"], part["size"]) for part in found] == [
        (1, "esp", "EFI", 100 * MIB)
    ]


def ended_with(words: list[str]) -> int | str | None:
    try:
        return main(words)
    except SystemExit as ended:
        return ended.code


def test_a_qcow2_image_is_partitioned_like_a_disk(
    tmp_path: Path, tool: Tool, capsys: pytest.CaptureFixture[str]
) -> None:
    image, raw = tmp_path / "disk.qcow2", tmp_path / "disk.raw"
    run(tool("qemu-img"), "create", "-q", "-f", "qcow2", str(image), "3T")
    assert main(["partition", "create", str(image)]) == 0
    assert "has a GPT without partitions" in capsys.readouterr().out
    for words in (["--type", "bios-boot", "--size", "1M"], ["--type", "root-x86-64"]):
        assert main(["partition", "add", *words, str(image)]) == 0
    run(tool("qemu-img"), "convert", "-O", "raw", str(image), str(raw))
    assert [row[2] for row in by_sfdisk(raw, tool)] == [MIB, (3 << 40) - 3 * MIB]
    run(tool("qemu-img"), "check", str(image))


def test_a_hybrid_mbr_is_left_as_it_is(tmp_path: Path, tool: Tool, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "disk"
    with path.open("wb") as file:
        file.truncate(64 * MIB)
    run(tool("sfdisk"), "-q", str(path), given="label: gpt\nsize=10M\nsize=10M\n")
    run(tool("sgdisk"), "--hybrid", "1", str(path))
    before = path.read_bytes()
    for words in (["add"], ["delete"], ["set", "--type", "swap"]):
        assert main(["partition", *words, str(path), *(["1"] if words != ["add"] else [])]) == 1
        assert "hybrid" in capsys.readouterr().err
    assert path.read_bytes() == before


def logical_disk(path: Path, tool: Tool) -> Path:
    parts = ("1: start=2048,size=20480", "2: start=40960,size=300000,type=5", "5: start=43008,size=20480")
    script = "\n".join((*parts, "6: start=200000,size=2048"))
    run(tool("sfdisk"), "-q", str(sized(path, SIZE)), given=script)
    return path


@pytest.mark.parametrize("words", ["add --size 1M DISK", "set --type swap DISK 1", "delete DISK 6"])
@pytest.mark.parametrize("damage", ["cut", "circle"])
def test_a_damaged_chain_is_refused(
    tmp_path: Path, tool: Tool, capsys: pytest.CaptureFixture[str], words: str, damage: str
) -> None:
    """The end of the disk is missing, or the last record leads to the first."""
    path = logical_disk(tmp_path / "disk", tool)
    if damage == "cut":
        sized(path, 60 * MIB)
    else:
        with path.open("r+b") as file:
            file.seek((200000 - 2048) * 512 + 446 + 16)
            file.write(bytes.fromhex("00000000 05000000 00000000 00100000"))
    before = path.read_bytes()
    assert main(["partition", *(str(path) if word == "DISK" else word for word in words.split())]) == 1
    assert "extended boot record" in capsys.readouterr().err
    assert path.read_bytes() == before


@pytest.mark.parametrize("maker", ["mkfs.vfat", "mkfs.ntfs -Q -F", "mkfs.exfat"])
def test_a_file_system_whose_boot_sector_looks_like_a_table(
    tmp_path: Path, tool: Tool, capsys: pytest.CaptureFixture[str], maker: str
) -> None:
    path = sized(tmp_path / "disk", 100 * MIB)
    run(*making(tool, maker), str(path))
    before = path.read_bytes()
    assert main(["partition", "add", str(path)]) == 1
    assert "has no partition table, but " in capsys.readouterr().err
    assert path.read_bytes() == before
    assert main(["partition", "list", str(path)]) == 0
    assert "has no partition table" in capsys.readouterr().err
    assert main(["partition", "create", "--force", str(path)]) == 0
    assert main(["partition", "add", str(path)]) == 0
    assert by_sfdisk(path, tool)
