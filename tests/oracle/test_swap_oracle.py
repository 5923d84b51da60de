# SPDX-License-Identifier: MIT
"""util-linux judges the swap areas: blkid, wipefs and swaplabel, and mkswap's own header beside ours."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from uuid import UUID

import pytest

from pydiskimg.disks.file import FileDisk
from pydiskimg.fs.ext4.make import make_ext
from pydiskimg.fs.swap import SwapInfo, make_swap
from pydiskimg.units import GIB, KIB, MIB
from tests.fixtures.programs import Tool, run

pytestmark = pytest.mark.oracle

ONE = UUID("a3c1f2d4-0b1e-4c55-9a6f-1234567890ab")


def swap_on(path: Path, *, label: str = "", before: Callable[[FileDisk], object] = lambda disk: None) -> SwapInfo:
    fd = os.open(path, os.O_RDWR)
    try:
        disk = FileDisk(fd, str(path))
        before(disk)
        return make_swap(disk, label=label, uuid=ONE)
    finally:
        os.close(fd)


def sized(path: Path, size: int, fill: bytes = b"") -> Path:
    with path.open("wb") as file:
        file.write(fill * min(size, 8 * MIB))
        file.truncate(size)
    return path


@pytest.mark.parametrize("size", [40 * KIB, 64 * KIB + 1, 8 * MIB, 8 * MIB + 4095, 3 * GIB])
@pytest.mark.parametrize("label", ["", "swap", "fifteen letters"])
def test_the_same_as_mkswap(size: int, label: str, tmp_path: Path, tool: Tool) -> None:
    ours, theirs = sized(tmp_path / "ours", size, b"\xff"), sized(tmp_path / "theirs", size)
    info = swap_on(ours, label=label)
    named = ["--label", label] if label else []
    text = run(tool("mkswap"), "--pagesize", "4096", "--uuid", str(ONE), *named, str(theirs))
    assert f"({info.pages * 4096} bytes)" in text
    with ours.open("rb") as mine, theirs.open("rb") as other:
        assert mine.read(4096) == other.read(4096)


def test_what_others_see(tmp_path: Path, tool: Tool) -> None:
    path = sized(tmp_path / "disk", 16 * MIB, b"\xff")
    swap_on(path, label="sixteen letters!")
    fields = dict(line.split("=", 1) for line in run(tool("blkid"), "-p", "-o", "export", str(path)).splitlines())
    assert (fields["TYPE"], fields["UUID"], fields["LABEL"], fields["VERSION"]) == (
        "swap",
        str(ONE),
        r"sixteen\ letters!",
        "1",
    )
    swap_on(path, label="swap-ä")
    assert run(tool("swaplabel"), str(path)).split() == ["LABEL:", "swap-ä", "UUID:", str(ONE)]


def test_nothing_of_an_ext4_is_left(tmp_path: Path, tool: Tool) -> None:
    path = sized(tmp_path / "disk", 16 * MIB)
    swap_on(path, before=make_ext)
    found = json.loads(run(tool("wipefs"), "--no-act", "--json", str(path)))
    assert [entry["type"] for entry in found["signatures"]] == ["swap"]
