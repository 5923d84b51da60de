# SPDX-License-Identifier: MIT
"""OVERLAY: which directory it is, and which ones are refused before anything is written."""

from __future__ import annotations

from pathlib import Path

import pytest

from ganeti_os.install.overlay import OverlayError, find_overlay
from ganeti_os.settings.settings import Layer, Settings
from tests.fixtures.node import Node, last_line

SIZE = 1 << 20


def find(directory: Path, name: str) -> str | None:
    return find_overlay(Settings.from_layers([Layer("test", {"OVERLAYS_DIR": str(directory), "OVERLAY": name})]))


def test_none_is_wanted(tmp_path: Path) -> None:
    assert find(tmp_path / "missing", "") is None


def test_found(tmp_path: Path) -> None:
    (tmp_path / "web").mkdir()
    assert find(tmp_path, "web") == str(tmp_path / "web")


def test_missing(tmp_path: Path) -> None:
    (tmp_path / "mail").mkdir()
    with pytest.raises(OverlayError, match=f"{tmp_path}/web: there is no such overlay .* there is: mail$"):
        find(tmp_path, "web")
    with pytest.raises(OverlayError, match=f"the directory {tmp_path}/no does not exist$"):
        find(tmp_path / "no", "web")
    (tmp_path / "file").touch()
    with pytest.raises(OverlayError, match="file: is not a directory"):
        find(tmp_path, "file")


@pytest.mark.parametrize("which", ["", "web"])
def test_world_writable(tmp_path: Path, which: str) -> None:
    (tmp_path / "d" / "web").mkdir(parents=True)
    (tmp_path / "d" / which).chmod(0o777)
    with pytest.raises(OverlayError, match=r"anybody can write to it \(mode 0777\)"):
        find(tmp_path / "d", "web")


def test_create_refuses_before_it_writes(tmp_path: Path) -> None:
    node = Node.make(tmp_path / "node", IMAGE_NAME="x", ARCH="x86_64", IMAGE_TYPE="raw", OVERLAY="web")
    (node.images / "x-x86_64.raw").write_bytes(b"\0x" * 256)
    disk = tmp_path / "disk"
    disk.write_bytes(b"\xff" * SIZE)
    done = node.create(disk)
    assert done.returncode == 1
    assert "web: there is no such overlay (OVERLAY)" in last_line(done)
    assert disk.read_bytes() == b"\xff" * SIZE


def test_nomount_leaves_it_out(tmp_path: Path) -> None:
    node = Node.make(tmp_path / "node", IMAGE_NAME="x", ARCH="x86_64", IMAGE_TYPE="raw", OVERLAY="web", NOMOUNT="yes")
    (node.images / "x-x86_64.raw").write_bytes(b"\0x" * 256)
    disk = tmp_path / "disk"
    disk.write_bytes(b"\xff" * SIZE)
    done = node.create(disk)
    assert done.returncode == 0, done.stderr
    assert "NOMOUNT=yes: the overlay web is not copied" in done.stderr
