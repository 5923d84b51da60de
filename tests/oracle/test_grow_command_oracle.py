# SPDX-License-Identifier: MIT
"""grow on raw and qcow2 disks, with sfdisk, e2fsck and qemu-img as judges."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from pydiskimg.cli import main
from pydiskimg.images.open import open_image
from pydiskimg.volumes.tree import open_tree
from tests.fixtures.ext_contents import contents_of
from tests.fixtures.ext_files import made_ext, sized, some_files
from tests.fixtures.programs import Tool, run

pytestmark = pytest.mark.oracle

MIB = 1 << 20
SIZE, GROWN = 24 * MIB, 60 * MIB


@pytest.fixture(params=["dos", "gpt"])
def disk(request: pytest.FixtureRequest, tmp_path: Path, tool: Tool) -> Path:
    """A raw disk whose last partition is an ext4 with some files, made for 24 MiB."""
    path = sized(tmp_path / "disk.raw", SIZE)
    run(tool("sfdisk"), "-q", str(path), given=f"label: {request.param}\nstart=2048, size=2048\nsize=40960\n")
    (tmp_path / "files").mkdir()
    part = made_ext(tool, tmp_path / "part", "-t ext4", 20 * MIB, some_files(tmp_path / "files", 20))
    with path.open("r+b") as file:
        file.seek(2 * MIB)
        file.write(part.read_bytes())
    return path


def contents(path: Path) -> dict[str, object]:
    with open_image(path) as source, open_tree(source) as tree:
        return dict(contents_of(tree.files.fs.source))


@pytest.mark.parametrize("image_format", ["raw", "qcow2"])
def test_partition_and_file_system_fill_the_disk(
    image_format: str, disk: Path, tmp_path: Path, tool: Tool, capsys: pytest.CaptureFixture[str]
) -> None:
    path, before = disk, contents(disk)
    if image_format == "qcow2":
        path = tmp_path / "disk.qcow2"
        run(tool("qemu-img"), "convert", "-O", "qcow2", "-f", "raw", str(disk), str(path))
    run(tool("qemu-img"), "resize", "-q", "-f", image_format, str(path), str(GROWN))
    assert main(["grow", "--output", "json", str(path)]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["grown"]
    assert (found["partition"], found["type"], found["length-before"]) == (2, "ext4", 20 * MIB)
    assert contents(path) == before
    raw = tmp_path / "grown.raw"
    run(tool("qemu-img"), "convert", "-O", "raw", "-f", image_format, str(path), str(raw))
    assert "No errors" in run(tool("sfdisk"), "--verify", str(raw))
    last = json.loads(run(tool("sfdisk"), "-J", str(raw)))["partitiontable"]["partitions"][1]
    assert last["size"] * 512 == found["length"] > GROWN - 4 * MIB
    part = tmp_path / "grown part"
    part.write_bytes(raw.read_bytes()[last["start"] * 512 :][: last["size"] * 512])
    run(tool("e2fsck"), "-fn", str(part))
    assert found["file-system-size"] > GROWN - 5 * MIB
    assert main(["grow", "--output", "json", str(path)]) == 0
    assert json.loads(capsys.readouterr().out)["grown"] is False


def test_what_cannot_grow_stays_as_it_is(tmp_path: Path, tool: Tool, capsys: pytest.CaptureFixture[str]) -> None:
    raw, path = sized(tmp_path / "xfs.raw", 320 * MIB), tmp_path / "xfs.qcow2"
    run(tool("mkfs.xfs"), "-q", str(raw))
    run(tool("qemu-img"), "convert", "-O", "qcow2", "-f", "raw", str(raw), str(path))
    run(tool("qemu-img"), "resize", "-q", str(path), "+64M")
    before = path.read_bytes()
    assert main(["grow", str(path)]) == 0
    assert "contains xfs, which can grow only while it is mounted" in capsys.readouterr().out
    assert path.read_bytes() == before
