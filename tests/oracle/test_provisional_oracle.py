# SPDX-License-Identifier: MIT
"""A provisional MBR has the offsets and none of the types, as sfdisk sees it; finishing gives the first one back."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pydiskimg.images.open_disk import open_disk
from pydiskimg.partitions.provisional import finish, provisional
from pydiskimg.protocols import read_bytes
from pydiskimg.units import MIB

pytestmark = pytest.mark.oracle

MBR = "label: dos\n1M,10M,L,*\n,5M,S\n,,E\n,3M,L\n,,L\n"
GPT = "label: gpt\nsize=20M,type=L\n,,S\n"


def partitions(path: Path) -> list[dict[str, Any]]:
    done = subprocess.run(["sfdisk", "--json", path], capture_output=True, text=True, check=True)
    return list(json.loads(done.stdout)["partitiontable"]["partitions"])


def partitioned(path: Path, script: str) -> bytes:
    with path.open("wb") as file:
        file.truncate(64 * MIB)
    subprocess.run(["sfdisk", "-q", path], input=script, text=True, check=True)
    with path.open("rb") as file:
        return file.read(MIB)


def test_places_without_types_and_back(tmp_path: Path, tool: Callable[[str], str]) -> None:
    tool("sfdisk")
    path = tmp_path / "disk"
    head = partitioned(path, MBR)
    before = partitions(path)
    with open_disk(path, writable=True) as disk:
        disk.write(0, provisional(head))
        found = partitions(path)
        assert [(p["start"], p["size"]) for p in found] == [(p["start"], p["size"]) for p in before]
        assert [p["type"] for p in found] == ["12", "12", "5", "83", "83"]
        assert not any(p.get("bootable") for p in found)
        disk.write(0, b"boot code")
        finish(disk, head)
        assert partitions(path) == before
        assert read_bytes(disk, 0, 9) == b"boot code"


def test_a_table_that_a_script_changed_stays(tmp_path: Path, tool: Callable[[str], str]) -> None:
    tool("sfdisk")
    path = tmp_path / "disk"
    head = partitioned(path, MBR)
    partitioned(path, "label: dos\n1M,60M,7\n")
    with open_disk(path, writable=True) as disk:
        finish(disk, head)
    assert [p["type"] for p in partitions(path)] == ["7"]


def test_what_is_no_mbr_is_left_alone(tmp_path: Path, tool: Callable[[str], str]) -> None:
    tool("sfdisk")
    gpt = partitioned(tmp_path / "disk", GPT)
    text = b"x" * 510 + b"\x55\xaa"
    for head in (gpt, text, b"", b"short", bytes(512)):
        assert provisional(head) == head
