# SPDX-License-Identifier: MIT
"""sfdisk, sgdisk and parted judge tables before growing, after it, and at every instant in between."""

from __future__ import annotations

import json
import os
import random
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pydiskimg.images.open_disk import open_disk
from pydiskimg.partitions.grow import grow_last_partition, plan_partition_growth
from pydiskimg.partitions.growth_plan import PartitionGrowth
from pydiskimg.units import MIB
from tests.fixtures.block_devices import beginning

pytestmark = pytest.mark.oracle
Tool = Callable[[str], str]

OLD, NEW = 64 * MIB, 150 * MIB + 7 * 512
TABLES = {
    "cloud image": "label: dos\nlabel-id: 0x12345678\n2048,,L,*\n",
    "upstream's": "label: dos\n1M,10M,L,*\n11M,5M,S\n16M,,L\n",
    "disordered": "label: dos\n40M,10M,L\n1M,5M,L\n20M,10M,L\n",
    "unaligned": "label: dos\nunit: sectors\n63,1000,c\n1063,70001,83,*\n",
    "logical": "label: dos\n1M,10M,L\n,,E\n12M,5M,S\n20M,,L\n",
    "one logical": "label: dos\n1M,10M,L\n,,E\n12M,,L\n",
    "logical with a gap": "label: dos\n1M,10M,L\n12M,40M,E\n13M,5M,S\n20M,10M,L\n",
    "gpt": "label: gpt\nsize=1M,type=21686148-6449-6E6F-744E-656564454649\nsize=20M,name=root\n,,S\n",
    "gpt of a cloud": 'label: gpt\nstart=20M,name="r ö t",attrs="GUID:2 GUID:59"\nstart=1M,size=10M,type=U\n',
    "gpt, high number": "label: gpt\n/dev/x1 : start=2048,size=2048\n/dev/x101 : start=20480,size=20480\n",
    "small gpt": "label: gpt\ntable-length: 4\nsize=10M\nsize=12M\n",
}


def made(tool: Tool, path: Path, script: str, *, size: int = OLD, grown: int = NEW) -> Path:
    with path.open("wb") as file:
        file.write(b"boot code".ljust(440, b"."))
        file.truncate(size)
    subprocess.run([tool("sfdisk"), "-q", "-w", "never", path], input=script, text=True, check=True)
    with path.open("r+b") as file:
        file.truncate(grown)
    return path


def dump(tool: Tool, path: Path) -> dict[str, Any]:
    """What sfdisk reads, without the places where a GPT counts up to."""
    done = subprocess.run([tool("sfdisk"), "--json", path], capture_output=True, text=True, check=True)
    table: dict[str, Any] = json.loads(done.stdout)["partitiontable"]
    table.pop("lastlba", None)
    return table


def expected(before: dict[str, Any], growth: PartitionGrowth) -> dict[str, Any]:
    """What the table is to be: the last partition longer, and the extended one around it."""
    partitions = [dict(partition) for partition in before["partitions"]]
    end = (growth.partition.start + growth.length) // 512
    for partition in partitions:
        around = partition["type"] in ("5", "f") and growth.partition.number > 4 and before["label"] == "dos"
        if partition["node"].removeprefix("/").endswith(f"k{growth.partition.number}") or around:
            partition["size"] = max(end, partition["start"] + partition["size"]) - partition["start"]
    return {**before, "partitions": partitions}


def verified(tool: Tool, path: Path) -> None:
    done = subprocess.run([tool("sfdisk"), "--verify", path], capture_output=True, text=True, check=True)
    assert "No errors detected" in done.stdout, done.stdout
    assert done.stderr == ""
    listed = subprocess.run([tool("fdisk"), "-l", path], capture_output=True, text=True, check=True)
    assert listed.stderr == ""
    parted = subprocess.run(
        [tool("parted"), "-s", path, "unit", "s", "print"], capture_output=True, text=True, check=True
    )
    assert "Warning" not in parted.stdout + parted.stderr
    if "gpt" in parted.stdout:
        done = subprocess.run([tool("sgdisk"), "-v", path], capture_output=True, text=True, check=True)
        assert "No problems found" in done.stdout, done.stdout


@pytest.mark.parametrize("name", TABLES)
def test_grown_tables(tmp_path: Path, tool: Tool, name: str) -> None:
    path = made(tool, tmp_path / "disk", TABLES[name])
    before = dump(tool, path)
    with open_disk(path, writable=True) as disk:
        growth = grow_last_partition(disk)
    assert growth
    assert dump(tool, path) == expected(before, growth)
    assert 0 <= NEW - growth.partition.start - growth.length < 2 * MIB
    if name != "unaligned":  # which parted would not have made
        verified(tool, path)
    assert beginning(path, 440) == b"boot code".ljust(440, b".")


@pytest.mark.parametrize("name", TABLES)
def test_every_instant_has_a_table(tmp_path: Path, tool: Tool, name: str) -> None:
    path = made(tool, tmp_path / "disk", TABLES[name])
    before = dump(tool, path)
    with open_disk(path, writable=True) as disk:
        growth = plan_partition_growth(disk, 512)
        assert growth
        after = expected(before, growth)
        seen = []
        for offset, contents in growth.writes:
            for done in range(512, len(contents) + 1, max(512, (len(contents) - 512) // 512 // 3 * 512)):
                disk.write(offset, contents[:done])
                seen.append(_as_read(tool, path))
            disk.write(offset, contents)
            seen.append(_as_read(tool, path))
    # Of a logical partition the extended one around it grows first.
    ends, wanted = [_ends(table) for table in seen], [_ends(before), _ends(after)]
    assert all(end in wanted for end in ends)
    assert ends == sorted(ends, key=wanted.index), "the old table came back"
    assert seen[-1] == after


def _ends(table: dict[str, Any]) -> list[tuple[int, int]]:
    return [(p["start"], p["size"]) for p in table["partitions"] if p["type"] not in ("5", "f")]


def _as_read(tool: Tool, path: Path) -> dict[str, Any]:
    table = dump(tool, path)
    if table["label"] == "dos":
        done = subprocess.run([tool("sfdisk"), "--verify", path], capture_output=True, text=True, check=False)
        assert "No errors detected" in done.stdout, done.stdout
    return table


def test_random_tables_of_sfdisk(tmp_path: Path, tool: Tool) -> None:
    rng = random.Random(4)
    for number in range(25):
        label = rng.choice(["dos", "gpt"])
        cuts = sorted(rng.sample(range(3, 62), 2 * rng.randint(1, 3)))
        places = list(zip(cuts[::2], cuts[1::2], strict=True))
        rng.shuffle(places)
        lines = [f"start={start}M,size={end - start}M" for start, end in places]
        if label == "dos" and rng.random() < 0.5:
            first, last = cuts[-2], cuts[-1]
            lines = [f"start={s}M,size={e - s}M" for s, e in places if (s, e) != (first, last)]
            lines.append(f"start={first - 1}M,size={rng.randint(last, 63) - first + 1}M,type=E")
            lines.append(f"start={first}M,size={last - first}M")
        path = made(tool, tmp_path / f"disk{number}k", f"label: {label}\n" + "\n".join(lines) + "\n")
        before = dump(tool, path)
        with open_disk(path, writable=True) as disk:
            growth = grow_last_partition(disk)
        assert growth, lines
        assert dump(tool, path) == expected(before, growth), lines
        verified(tool, path)
        path.unlink()


@pytest.mark.parametrize("more", [1, 10, 33, 34, 2048, 4096])
def test_a_gpt_on_a_disk_that_is_hardly_larger(tmp_path: Path, tool: Tool, more: int) -> None:
    """The new backup lies upon the old one."""
    path = made(tool, tmp_path / "disk", "label: gpt\nsize=10M\nsize=40M\n", grown=OLD + 512 * more)
    before = dump(tool, path)
    with open_disk(path, writable=True) as disk:
        growth = grow_last_partition(disk)
    assert growth
    assert dump(tool, path) == expected(before, growth)
    verified(tool, path)


def test_2_tib_and_more(tmp_path: Path, tool: Tool) -> None:
    for script, end in (("label: dos\n1M,5M\n,,E\n7M,20M\n", 2 << 40), ("label: gpt\n1M,5M\n,20M\n", 3 << 40)):
        path = made(tool, tmp_path / "disk", script, grown=(3 << 40) + 512)
        before = dump(tool, path)
        with open_disk(path, writable=True) as disk:
            growth = grow_last_partition(disk)
        assert growth
        assert growth.partition.start + growth.length == end - MIB
        assert dump(tool, path) == expected(before, growth)
        verified(tool, path)


@pytest.mark.parametrize(
    "words",
    [
        "mklabel msdos mkpart primary 1MiB 10MiB mkpart primary 10MiB 30MiB set 1 boot on",
        "mklabel msdos mkpart primary 1MiB 10MiB mkpart extended 10MiB 60MiB mkpart logical 11MiB 20MiB "
        "mkpart logical 21MiB 59MiB",
        "mklabel gpt mkpart esp fat32 1MiB 10MiB set 1 esp on mkpart root ext4 10MiB 100%",
    ],
)
def test_tables_of_parted(tmp_path: Path, tool: Tool, words: str) -> None:
    path = tmp_path / "disk"
    path.write_bytes(b"boot code".ljust(440, b"."))
    os.truncate(path, OLD)
    subprocess.run([tool("parted"), "-s", "-a", "none", path, *words.split()], check=True, capture_output=True)
    os.truncate(path, NEW)
    before = dump(tool, path)
    with open_disk(path, writable=True) as disk:
        growth = grow_last_partition(disk)
    assert growth
    assert dump(tool, path) == expected(before, growth)
    verified(tool, path)
