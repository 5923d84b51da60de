# SPDX-License-Identifier: MIT
"""show: the drawing of a disk in text and as SVG, at several widths, and of what a hostile guest calls its volumes."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from xml.etree import ElementTree

import pytest

from pydiskimg.cli import main
from pydiskimg.disks.memory import MemoryDisk
from pydiskimg.extents import Extent, Kind
from pydiskimg.text import columns_of
from pydiskimg.volumes.picture import disk_picture
from tests.fixtures.ext_files import made_ext, sized
from tests.fixtures.programs import Tool, run
from tests.fixtures.terminals import on_terminal

pytestmark = pytest.mark.oracle

MIB = 1 << 20
SIZE = 100 * MIB


@pytest.fixture
def disk(tmp_path: Path, tool: Tool) -> Path:
    """A quarter for an ext4 with 5 MiB of data, a swap area, and the rest free."""
    path = sized(tmp_path / "my disk.raw", SIZE)
    run(tool("sfdisk"), "-q", str(path), given="label: gpt\nstart=2048, size=51200\nsize=20480, type=S\n")
    (tmp_path / "files").mkdir()
    (tmp_path / "files" / "data").write_bytes(b"x" * (5 * MIB))
    part = made_ext(tool, tmp_path / "part", "-t ext4 -L <&\x1b[1m>", 25 * MIB, tmp_path / "files")
    swap = sized(tmp_path / "swap", 10 * MIB)
    run(tool("mkswap"), str(swap))
    with path.open("r+b") as file:
        for start, contents in ((1, part), (26, swap)):
            file.seek(start * MIB)
            file.write(contents.read_bytes())
    return path


@pytest.mark.parametrize("columns", [80, 200, 20])
def test_the_drawing_is_as_wide_as_asked(
    columns: int, disk: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", str(columns))
    assert main(["show", str(disk)]) == 0
    title, _, boxes, stored, used, _, *legend = capsys.readouterr().out.splitlines()
    assert title.startswith(f"{disk}: raw, 100 MiB, ")
    width = max(20, columns - 12)
    assert len(stored) == len(used) == 12 + width
    assert boxes.index("[1") - 12 == width // 100
    assert legend[0].split() == ["1", "linux", "25", "MiB", "ext4", r"'<&\x1b[1m>'", *legend[0].split()[6:]]
    assert legend[1].split() == ["2", "swap", "10", "MiB", "swap"]
    filled = sum(character != "·" for character in used[12:])
    assert 0.05 * width < filled < 0.4 * width  # the file system's data, and not what is free in it


def test_svg_is_well_formed_whatever_a_label_holds(disk: Path, tmp_path: Path) -> None:
    drawing = tmp_path / "disk.svg"
    assert main(["show", "-o", str(drawing), str(disk)]) == 0
    root = ElementTree.fromstring(drawing.read_bytes())
    texts = [element.text or "" for element in root.iter("{http://www.w3.org/2000/svg}text")]
    assert any(r"ext4 '<&\x1b[1m>'" in text for text in texts)
    width = float(root.get("width") or 0)
    for box in root.iter("{http://www.w3.org/2000/svg}rect"):
        assert float(box.get("x") or 0) + float(box.get("width") or 0) <= width


@pytest.mark.parametrize("name", [b"a\x1b[31m\xff<&>\n.raw", "磁盘映像".encode() * 20 + b".raw", b"long" * 60])
def test_svg_is_well_formed_and_not_too_wide_whatever_the_name(name: bytes, tmp_path: Path) -> None:
    path = tmp_path / os.fsdecode(name)
    path.write_bytes(bytes(MIB))
    drawing = tmp_path / "disk.svg"
    assert main(["show", "-o", str(drawing), str(path)]) == 0
    root = ElementTree.fromstring(drawing.read_bytes())
    for element in root.iter("{http://www.w3.org/2000/svg}text"):
        assert columns_of(element.text or "") <= 110


def test_equal_columns_of_a_strip_are_one_box(tmp_path: Path) -> None:
    path = tmp_path / "disk"
    path.write_bytes(b"x" * MIB)
    drawing = tmp_path / "disk.svg"
    assert main(["show", "-o", str(drawing), str(path)]) == 0
    assert len(list(ElementTree.fromstring(drawing.read_bytes()).iter("{http://www.w3.org/2000/svg}rect"))) < 10


def test_wide_labels_do_not_move_what_follows(tmp_path: Path, tool: Tool, capsys: pytest.CaptureFixture[str]) -> None:
    path = sized(tmp_path / "disk.raw", 20 * MIB)
    run(tool("sfdisk"), "-q", str(path), given="label: gpt\nsize=8M\nsize=8M\n")
    with path.open("r+b") as file:
        for start, label in ((1, "磁盘映像文"), (9, "plain")):
            part = made_ext(tool, tmp_path / "part", f"-t ext4 -L {label}", 8 * MIB)
            file.seek(start * MIB)
            file.write(part.read_bytes())
            part.unlink()
    for words, rest in ((["show"], " in use ("), (["filesystems", "-l"], "/dev/sda")):
        assert main([*words, str(path)]) == 0
        found = [line for line in capsys.readouterr().out.splitlines() if "ext4" in line]
        assert len({columns_of(line[: line.rindex(rest)]) for line in found}) == 1


def test_json_has_the_same_for_raw_and_qcow2(
    disk: Path, tmp_path: Path, tool: Tool, capsys: pytest.CaptureFixture[str]
) -> None:
    image = tmp_path / "disk.qcow2"
    run(tool("qemu-img"), "convert", "-f", "raw", "-O", "qcow2", str(disk), str(image))
    found = []
    for path in (disk, image):
        assert main(["show", "--output", "json", str(path)]) == 0
        found.append(json.loads(capsys.readouterr().out))
    assert found[0]["volumes"] == found[1]["volumes"]
    assert found[0]["volumes"][0]["used"] > 5 * MIB


@pytest.mark.parametrize("no_color", ["", "1"])
def test_a_terminal_has_colours_unless_told_otherwise(no_color: str, disk: Path) -> None:
    environment = os.environ | {"NO_COLOR": no_color, "COLUMNS": "80"}
    command = [sys.executable, "-m", "pydiskimg", "show", str(disk)]
    status, said = on_terminal(command, columns=80, environment=environment)
    assert status == 0
    assert (b"\x1b[34m" in said) is not bool(no_color)


class Pieces(MemoryDisk):
    """A disk that says which extents it has."""

    def extents(self):  # type: ignore[no-untyped-def]
        yield Extent(0, 10, Kind.DATA)
        yield Extent(10, 15, Kind.HOLE)
        yield Extent(25, 30, Kind.DATA)
        yield Extent(55, 45, Kind.ZERO)


def test_columns_have_the_share_that_is_stored() -> None:
    assert disk_picture(Pieces(100), 4).stored == (10 / 25, 1.0, 5 / 25, 0.0)
    assert disk_picture(Pieces(100), 1).stored == (0.4,)
    assert sum(disk_picture(Pieces(100), 300).stored) == pytest.approx(40)
