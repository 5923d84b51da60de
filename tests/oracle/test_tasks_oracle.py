# SPDX-License-Identifier: MIT
"""The tasks from the manuals of parted, sfdisk, bmaptool and resize2fs, done by them and by us, have the same results.

Those of virt-* are in tests/root/test_virt_tasks.py.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.fixtures.programs import Tool, run
from tests.fixtures.tasks import Outcome, copied, disks_of_tasks, done, is_of_virt, tasks

pytestmark = pytest.mark.oracle

TASKS = {name: task for name, task in tasks().items() if not is_of_virt(task)}
# What is chosen at random where a table or a partition is new.
CHOSEN = ("id", "uuid")


@pytest.fixture
def base(tmp_path_factory: pytest.TempPathFactory, tool: Tool) -> Path:
    return disks_of_tasks(tmp_path_factory.getbasetemp(), tool)


def table(path: Path, tool: Tool, *without: str) -> Any:
    """What sfdisk says of a partition table, without the device's name."""
    found: dict[str, Any] = json.loads(run(tool("sfdisk"), "-J", str(path)))["partitiontable"]
    rows = [{key: value for key, value in row.items() if key not in ("node", *without)} for row in found["partitions"]]
    return {key: value for key, value in found.items() if key not in ("device", "partitions", *without)}, rows


def same_disk(theirs: Outcome, ours: Outcome, tool: Tool) -> None:
    first, second = (outcome.directory / "disk.raw" for outcome in (theirs, ours))
    assert table(first, tool) == table(second, tool)
    run(tool("qemu-img"), "compare", "-f", "raw", "-F", "raw", str(first), str(second))


def same_new_table(theirs: Outcome, ours: Outcome, tool: Tool) -> None:
    first, second = (table(outcome.directory / "empty.raw", tool, *CHOSEN) for outcome in (theirs, ours))
    assert first == second
    run(tool("sfdisk"), "--verify", str(ours.directory / "empty.raw"))


def same_facts(theirs: Outcome, ours: Outcome, _: Tool) -> None:
    expected, found = json.loads(theirs.printed)["partitiontable"], json.loads(ours.printed)
    size = expected["sectorsize"]
    assert found["sector-size"] == size
    assert [
        (row["start"], row["size"], row["type"], row["uuid"].upper(), row["name"]) for row in found["partitions"]
    ] == [
        (row["start"] * size, row["size"] * size, row["type"], row["uuid"], row.get("name"))
        for row in expected["partitions"]
    ]


def same_block_map(theirs: Outcome, ours: Outcome, tool: Tool) -> None:
    """Either tool's map of an image is good for the other one; which holes a file has is the file system's affair."""
    texts = [(outcome.directory / "image.bmap").read_text() for outcome in (theirs, ours)]
    pattern = r"<(ImageSize|BlockSize|BlocksCount|ChecksumType)> *([^<]*?) *</"
    assert re.findall(pattern, texts[0]) == re.findall(pattern, texts[1])
    for number, text in enumerate(texts):
        target = ours.directory / f"target{number}"
        (ours.directory / f"{number}.bmap").write_text(text)
        words = ("-q", "copy", "--bmap", str(ours.directory / f"{number}.bmap"), str(ours.directory / "disk.raw"))
        run(tool("bmaptool"), *words, str(target))
        run(tool("qemu-img"), "compare", "-f", "raw", "-F", "raw", str(target), str(ours.directory / "disk.raw"))


def same_target(theirs: Outcome, ours: Outcome, tool: Tool) -> None:
    first, second = (str(outcome.directory / "target.raw") for outcome in (theirs, ours))
    run(tool("qemu-img"), "compare", "-f", "raw", "-F", "raw", first, second)
    run(tool("qemu-img"), "compare", "-f", "raw", "-F", "raw", second, str(ours.directory / "disk.raw"))


def blocks(path: Path, tool: Tool) -> int:
    """The size of a file system that is sound, in KiB."""
    run(tool("e2fsck"), "-fn", str(path))
    facts = dict(
        re.findall(r"^(Block count|Block size): +(\d+)$", run(tool("dumpe2fs"), "-h", str(path)), re.MULTILINE)
    )
    return int(facts["Block count"]) * int(facts["Block size"]) // 1024


def same_files(theirs: Outcome, ours: Outcome, tool: Tool) -> None:
    for outcome in (theirs, ours):
        run(tool("debugfs"), "-R", f"rdump / {outcome.directory / 'homes'}", str(outcome.directory / "fs.raw"))
    run(tool("diff"), "-r", "--no-dereference", *(str(outcome.directory / "homes") for outcome in (theirs, ours)))


def grown_alike(theirs: Outcome, ours: Outcome, tool: Tool) -> None:
    assert blocks(ours.directory / "fs.raw", tool) == blocks(theirs.directory / "fs.raw", tool) == 48 << 10
    same_files(theirs, ours, tool)


def shrunk_as_far(theirs: Outcome, ours: Outcome, tool: Tool) -> None:
    """resize2fs estimates how small a file system can be, and so do we."""
    smallest = blocks(theirs.directory / "fs.raw", tool)
    assert blocks(ours.directory / "fs.raw", tool) <= smallest * 1.05
    same_files(theirs, ours, tool)


COMPARED: dict[str, Callable[[Outcome, Outcome, Tool], None]] = {
    "make a GPT with an ESP": same_new_table,
    "make an MBR with one partition": same_new_table,
    "remove a partition": same_disk,
    "name a partition": same_disk,
    "let a BIOS boot a partition of a GPT": same_disk,
    "make three partitions, the last to the end": same_new_table,
    "make a swap partition of one": same_disk,
    "change a partition's UUID": same_disk,
    "delete a partition": same_disk,
    "print the table for a program": same_facts,
    "make a block map": same_block_map,
    "write an image by its block map": same_target,
    "write a compressed image without one": same_target,
    "make a file system as small as it can be": shrunk_as_far,
    "let a file system fill its disk": grown_alike,
}


def test_every_row_is_compared_here_or_with_virt() -> None:
    assert set(COMPARED) == set(TASKS)
    assert len(tasks()) >= 20


@pytest.mark.parametrize("name", TASKS)
def test_both_do_the_same(name: str, base: Path, tmp_path: Path, tool: Tool) -> None:
    task = TASKS[name]
    tool(re.findall(r"(?:^|[|&] )(parted|sfdisk|bmaptool|resize2fs)\b", task.theirs)[0])
    theirs = done(task.theirs, copied(base, tmp_path / "theirs"), tool)
    ours = done(task.ours, copied(base, tmp_path / "ours"), tool)
    COMPARED[name](theirs, ours, tool)
