# SPDX-License-Identifier: MIT
"""An MBR for sectors of 4096 bytes: on a device that has them, and in a file, which does not say so."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from pydiskimg.cli import main
from tests.fixtures.block_devices import block_device
from tests.fixtures.ext_files import sized
from tests.fixtures.programs import Tool, run

pytestmark = pytest.mark.root

MIB = 1 << 20


def test_a_table_for_4096(tmp_path: Path, tool: Tool, capsys: pytest.CaptureFixture[str]) -> None:
    path = sized(tmp_path / "disk", 200 * MIB)
    with block_device(path, sector_size=4096) as device:
        assert main(["partition", "create", "--label", "dos", device]) == 0
        assert main(["partition", "add", "--size", "50M", device]) == 0
        assert main(["partition", "add", "--type", "extended", "--size", "60M", device]) == 0
        assert main(["partition", "add", "--logical", "--size", "20M", "--type", "swap", device]) == 0
        capsys.readouterr()
        assert main(["partition", "list", "--output", "json", device]) == 0
        found = json.loads(capsys.readouterr().out)
        assert found["sector-size"] == 4096
        judged = json.loads(run(tool("sfdisk"), "-J", device))["partitiontable"]["partitions"]
        listed = [(part["start"] // 4096, part["size"] // 4096) for part in found["partitions"]]
        assert listed == [(part["start"], part["size"]) for part in judged]
        assert main(["mkfs", "--partition", "1", device]) == 0
    before = path.read_bytes()
    for words in (
        ["partition", "add", str(path)],
        ["partition", "set", "--bootable", str(path), "1"],
        ["partition", "delete", str(path), "1"],
        ["mkfs", "--force", "--partition", "1", str(path)],
        ["mkswap", "--force", "--partition", "5", str(path)],
    ):
        assert main(words) == 1
        assert "has an MBR for sectors of 4096 bytes, while the disk has sectors of 512" in capsys.readouterr().err
    assert path.read_bytes() == before
