# SPDX-License-Identifier: MIT
"""pydiskimg check on raw disks: which volume is wrong, the exit status, JSON, and names that a guest chose."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from pydiskimg.cli import main
from pydiskimg.fs.ext4 import layout
from pydiskimg.fs.ext4.change.tree import open_changed_tree
from pydiskimg.fs.ext4.make import make_ext
from pydiskimg.fs.ext4.tree import open_ext_tree
from pydiskimg.images.open_disk import open_disk
from pydiskimg.units import MIB
from tests.fixtures.partition_tables import LINUX, entry, record


@pytest.fixture
def image(tmp_path: Path) -> Path:
    path = tmp_path / "disk.raw"
    with path.open("wb") as file:
        file.truncate(8 * MIB)
    with open_disk(path, writable=True) as disk:
        make_ext(disk, kind="ext2", block_size=1024)
        with open_changed_tree(disk) as tree:
            tree.write("/a\x1b[31m\nb", b"contents")
    return path


def inode_at(path: Path, name: str) -> int:
    with open_disk(path) as disk, open_ext_tree(disk) as tree:
        inode = tree.inode(name)
        return inode.block * tree.files.fs.geometry.block_size + inode.offset


def patch(path: Path, at: int, data: bytes) -> None:
    with path.open("r+b") as file:
        file.seek(at)
        file.write(data)


def test_a_sound_file_system(image: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", str(image)]) == 0
    assert capsys.readouterr().out == "the whole disk (ext2): no errors were found.\n"
    assert main(["check", "-q", str(image)]) == 0
    assert capsys.readouterr().out == ""


def test_damage_is_told_and_counted(image: Path, capsys: pytest.CaptureFixture[str]) -> None:
    at = inode_at(image, "/a\x1b[31m\nb")
    patch(image, at + layout.INODE.offsets["i_links_count"], b"\5\0")
    assert main(["check", str(image)]) == 2
    said = capsys.readouterr()
    assert said.out == "the whole disk (ext2): 1 errors were found (1 link-count); e2fsck -f repairs them\n"
    assert f"{image}, the whole disk: inode 12: its link count is 5, expected 1" in said.err
    assert main(["check", "--output", "json", str(image)]) == 2
    found = json.loads(capsys.readouterr().out)
    assert (found["corruptions"], found["leaks"], found["check-errors"]) == (1, 0, 0)
    assert found["volumes"][0]["findings"] == {"link-count": 1}
    assert found["volumes"][0]["details"][0]["kind"] == "link-count"


def test_a_name_that_a_guest_chose_is_escaped(image: Path, capsys: pytest.CaptureFixture[str]) -> None:
    at = inode_at(image, "/a\x1b[31m\nb")
    patch(image, at, bytes(128))
    assert main(["check", str(image)]) == 2
    said = capsys.readouterr().err
    assert r"the entry 'a\x1b[31m\nb' names inode 12, which is free" in said
    assert "\x1b" not in said


def test_leaked_blocks_alone(image: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with open_disk(image, writable=True) as disk, open_changed_tree(disk) as tree:
        tree.write("/leaked", b"x" * 10_000)
    at = inode_at(image, "/leaked")
    raw = bytearray(image.read_bytes()[at : at + 256])
    layout.INODE.put(raw, {"i_size_lo": 0, "i_blocks_lo": 0, "i_block": bytes(60)})
    patch(image, at, bytes(raw))
    assert main(["check", str(image)]) == 3
    assert "10 clusters are leaked" in capsys.readouterr().out


def test_features_that_are_not_known_are_not_checked(image: Path, capsys: pytest.CaptureFixture[str]) -> None:
    patch(image, 1024 + layout.SUPERBLOCK.offsets["s_feature_ro_compat"], (1 << 30).to_bytes(4, "little"))
    assert main(["check", str(image)]) == 1
    said = capsys.readouterr()
    assert "not checked: it has features that are not known here (incompat 0x0, ro_compat 0x40000000)" in said.err
    assert "not all of it was checked" in said.out


def test_each_partition_is_named(tmp_path: Path, image: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "partitioned"
    with path.open("wb") as file:
        file.truncate(32 * MIB)
    starts = [MIB, 10 * MIB]
    patch(path, 0, record(*(entry(LINUX, start // 512, 8 * MIB // 512) for start in starts)))
    for start in starts:
        patch(path, start, image.read_bytes())
    patch(path, starts[1] + inode_at(image, "/a\x1b[31m\nb") + layout.INODE.offsets["i_links_count"], b"\7\0")
    patch(path, starts[0], bytes(2048))
    assert main(["check", str(path)]) == 2
    said = capsys.readouterr()
    assert "partition 2 (ext2): 1 errors were found" in said.out
    assert "partition 2: inode 12: its link count is 7" in said.err
    assert "partition 1 (nothing known): not checked" in said.out
