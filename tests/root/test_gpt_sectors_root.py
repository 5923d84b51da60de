# SPDX-License-Identifier: MIT
"""A GPT on a device with sectors of 512 and of 4096 bytes: made, changed and grown, with sfdisk as the judge."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from pydiskimg.cli import main
from pydiskimg.host.loop import loop_device
from tests.fixtures.ext_files import sized
from tests.fixtures.programs import Tool, run

pytestmark = pytest.mark.root

MIB = 1 << 20


def table(device: str, tool: Tool) -> Any:
    """What sfdisk says of a GPT without errors."""
    said = run(tool("sfdisk"), "--verify", device)
    assert "No errors detected" in said
    return json.loads(run(tool("sfdisk"), "-J", device))["partitiontable"]


def spans(found: Any) -> list[tuple[int, int]]:
    """Start and length (MiB) of each partition."""
    size = found["sectorsize"]
    return [(row["start"] * size // MIB, row["size"] * size // MIB) for row in found["partitions"]]


def done(*words: str) -> None:
    assert main(["partition", *words]) == 0


@pytest.mark.parametrize("sector_size", [512, 4096])
def test_a_table_is_made_changed_and_follows_the_disk(
    sector_size: int, tmp_path: Path, tool: Tool, capsys: pytest.CaptureFixture[str]
) -> None:
    image = sized(tmp_path / "disk", 64 * MIB)
    with loop_device(image, sector_size=sector_size) as loop:
        device = str(loop.path)
        done("create", "--label", "gpt", device)
        done("add", "--type", "esp", "--size", "8M", "--name", "EFI", device)
        done("add", device)
        assert spans(table(device, tool)) == [(1, 8), (9, 54)]
        assert table(device, tool)["sectorsize"] == sector_size
        done("set", "--type", "swap", "--bootable", device, "1")
        row = table(device, tool)["partitions"][0]
        assert (row["name"], row["attrs"]) == ("EFI", "LegacyBIOSBootable")
        done("delete", device, "1")
        assert spans(table(device, tool)) == [(9, 54)]
        protective = run(tool("sfdisk"), "-J", "--label-nested=mbr", device)
        row = json.loads(protective)["partitiontable"]["partitions"][0]
        assert (row["start"], row["size"], row["type"]) == (1, 64 * MIB // sector_size - 1, "ee")
    os.truncate(image, 96 * MIB)
    with loop_device(image, sector_size=sector_size) as loop:  # its backup is in the middle of the disk
        device = str(loop.path)
        done("add", "--size", "32M", device)
        assert sorted(spans(table(device, tool))) == [(9, 54), (63, 32)]
        assert table(device, tool)["lastlba"] > 90 * MIB // sector_size
    assert main(["partition", "list", str(image)]) == 0  # also in the file, whose sectors count as 512 bytes
    if sector_size == 4096:
        capsys.readouterr()
        before = image.read_bytes()[: 2 * MIB]
        assert main(["partition", "delete", str(image), "1"]) == 1
        assert "losetup --sector-size 4096" in capsys.readouterr().err
        assert image.read_bytes()[: 2 * MIB] == before
