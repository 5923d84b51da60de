# SPDX-License-Identifier: MIT
"""diff of images that mke2fs filled from two directories, against what the directories say."""

from __future__ import annotations

import json
import os
import stat
from pathlib import Path

import pytest

from pydiskimg.cli import main
from tests.fixtures.ext_files import made_ext
from tests.fixtures.programs import Tool, run

pytestmark = pytest.mark.oracle

MIB = 1 << 20


def filled(root: Path) -> Path:
    """Files whose order by path is not that of their names alone, and names that are not UTF-8."""
    for name in ("a", "a.b", "a-b", "b"):
        (root / name).mkdir(parents=True)
        (root / name / "file").write_text(name)
    os.makedirs(os.fsencode(root) + b"/\xff\xfe")
    Path(os.fsdecode(os.fsencode(root) + b"/\xff\xfe/x")).write_text("x")
    (root / "large").write_bytes(b"z" * (2 * MIB + 5))
    (root / "link").symlink_to("a/file")
    os.mkfifo(root / "fifo")
    return root


@pytest.fixture
def images(tmp_path: Path, tool: Tool) -> tuple[Path, Path]:
    """Two images; the second has changes of each kind."""
    old, new = filled(tmp_path / "old"), filled(tmp_path / "new")
    (new / "a" / "file").unlink()
    (new / "a.b" / "file").write_text("A.B")
    (new / "a-b" / "new").write_text("new")
    (new / "b" / "file").chmod(0o600)
    (new / "link").unlink()
    (new / "link").symlink_to("b/file")
    (new / "fifo").unlink()
    (new / "fifo").write_text("a file")
    with (new / "large").open("r+b") as file:
        file.seek(2 * MIB)
        file.write(b"y")
    os.utime(new / "large", (1, 1))
    return tuple(  # type: ignore[return-value]
        made_ext(tool, tmp_path / f"{root.name} disk", "-t ext4", 16 * MIB, root) for root in (old, new)
    )


def test_each_kind_of_change_is_told(images: tuple[Path, Path], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["diff", *map(str, images)]) == 1
    lines = [line.split(None, 4) for line in capsys.readouterr().out.splitlines()]
    assert [(sign, path) for sign, _, _, _, path in lines] == [
        ("-", "/a/file"),
        ("+", "/a-b/new"),
        ("=", "/a.b/file # contents"),
        ("=", "/b/file # mode"),
        ("=", "/fifo # type"),
        ("=", "/large # contents"),
        ("=", "/link # target"),
    ]
    assert lines[3][1:4] == ["-", "0644", "1"]  # as it was, which virt-diff shows of a changed file


def test_json_and_times(images: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["diff", "--output", "json", "--times", *map(str, images)]) == 1
    found = {one["path"]: one for one in json.loads(capsys.readouterr().out)}
    assert found["/large"]["changed"] == ["modified", "contents"]
    assert found["/a/file"]["new"] is None
    for path in ("/b/file", "/large"):
        for side in ("old", "new"):
            status = (tmp_path / side / path[1:]).stat()
            facts = found[path][side]
            assert (facts["size"], facts["mode"]) == (status.st_size, f"{stat.S_IMODE(status.st_mode):04o}")


def test_the_same_files_in_another_format_and_layout_do_not_differ(
    images: tuple[Path, Path], tmp_path: Path, tool: Tool, capsys: pytest.CaptureFixture[str]
) -> None:
    qcow2 = tmp_path / "copy.qcow2"
    run(tool("qemu-img"), "convert", "-f", "raw", "-O", "qcow2", str(images[0]), str(qcow2))
    other = made_ext(tool, tmp_path / "ext2", "-t ext2 -b 1024", 16 * MIB, tmp_path / "old")
    for image in (qcow2, other):
        assert main(["diff", str(images[0]), str(image)]) == 0
        assert capsys.readouterr().out == ""


def test_what_cannot_be_read_is_status_2(images: tuple[Path, Path], capsys: pytest.CaptureFixture[str]) -> None:
    for words in ([str(images[0]), "/none"], ["--partition", "7", *map(str, images)]):
        assert main(["diff", *words]) == 2
        assert capsys.readouterr().err.startswith("pydiskimg: ")
