# SPDX-License-Identifier: MIT
"""Which file of a server an IMAGE_NAME is: a whole file name, or one with an architecture by any of its names."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from pydiskimg.web import retries
from tests.fixtures.image_server import ImageServer
from tests.fixtures.node import Node, last_line

SIZE = 2 << 20
DATA = os.urandom(512) * 2000


@pytest.fixture
def disk(tmp_path: Path) -> Path:
    path = tmp_path / "the disk"
    path.write_bytes(b"\xff" * SIZE)
    return path


def node_for(server: ImageServer, directory: Path, name: str, **settings: str) -> Node:
    values = {"IMAGE_NAME": name, "IMAGE_URL": server.url, "IDENTITY": "no", "GROW": "no", "ARCH": "x86_64"}
    return Node.make(directory / "node", **{**values, "CACHE_DIR": str(directory / "cache"), **settings})


@pytest.mark.parametrize(
    ("name", "there"),
    [
        ("debian-13-genericcloud-amd64.raw", "debian-13-genericcloud-amd64.raw"),
        ("debian-12", "debian-12-x86_64.img"),
        ("debian-12", "debian-12-amd64.img"),
        ("odd.img", "odd.img-x86_64.img"),
    ],
)
def test_the_name_that_the_server_has(server: ImageServer, disk: Path, tmp_path: Path, name: str, there: str) -> None:
    server.put(there, DATA)
    done = node_for(server, tmp_path, name).create(disk)
    assert done.returncode == 0, done.stderr
    assert f"{tmp_path}/cache/{there} is installed" in last_line(done)
    assert disk.read_bytes()[: len(DATA)] == DATA
    assert os.listdir(tmp_path / "cache") == [there] or f".{there}.json" in os.listdir(tmp_path / "cache")


def test_a_name_without_an_ending_is_not_asked_for(server: ImageServer, disk: Path, tmp_path: Path) -> None:
    server.put("debian-12", DATA)
    done = node_for(server, tmp_path, "debian-12").create(disk)
    assert done.returncode == 1
    assert (
        f"{server.url}/debian-12-x86_64.img: the server answers 404 Not Found, nor does it have debian-12-amd64.img or "
        "debian-12-x64.img; the name comes from IMAGE_NAME, ARCH and IMAGE_TYPE"
    ) in last_line(done)
    assert server.count("debian-12") == 0


def test_the_first_that_is_there_is_the_only_one_asked_for(server: ImageServer, disk: Path, tmp_path: Path) -> None:
    server.put("x.raw", DATA)
    assert node_for(server, tmp_path, "x.raw").create(disk).returncode == 0
    assert {asked.path for asked in server.asked} == {"/images/SHA256SUMS", "/images/x.raw"}


def test_a_server_that_is_away_leaves_what_is_in_the_cache(
    server: ImageServer, disk: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(retries, "PAUSE_SECONDS", 0.01)
    server.put("x-amd64.img", DATA)
    node = node_for(server, tmp_path, "x")
    assert node.create(disk).returncode == 0
    server.files.clear()
    server.sums("", name="SHA256SUMS").always = "503"
    for sums in ("SHA512SUMS", "CHECKSUM"):
        server.sums("", name=sums).always = "503"
    disk.write_bytes(b"\xff" * SIZE)
    done = node.create(disk)
    assert done.returncode == 0, done.stderr
    assert "is used as it was checked before" in done.stderr
    assert disk.read_bytes()[: len(DATA)] == DATA


def test_a_missing_library_for_signatures_is_a_sentence(server: ImageServer, disk: Path, tmp_path: Path) -> None:
    server.put("x.raw", DATA)
    site = tmp_path / "site"
    site.mkdir()
    (site / "pysequoia.py").write_text("raise ModuleNotFoundError('gone', name='pysequoia')")
    node = node_for(server, tmp_path, "x.raw", IMAGE_KEYRING="/k")
    done = node.create(disk, PYTHONPATH=str(site))
    assert done.returncode == 1
    assert "has no Python package pysequoia; install pysequoia (with pip; IMAGE_KEYRING needs it)" in last_line(done)
    assert disk.read_bytes() == b"\xff" * SIZE
