# SPDX-License-Identifier: MIT
"""create with IMAGE_URL: the verb as Ganeti calls it, a web server, a disk that is a file."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import pytest

from tests.fixtures.image_server import ImageServer
from tests.fixtures.node import Node, create_environment, last_line

SIZE = 4 << 20
DATA = os.urandom(3 << 20)
NAME = "x-x86_64.raw"


@pytest.fixture
def disk(tmp_path: Path) -> Path:
    path = tmp_path / "the disk"
    path.write_bytes(b"\xff" * SIZE)
    return path


def node_for(server: ImageServer, directory: Path, **settings: str) -> Node:
    values = {"IMAGE_NAME": "x", "ARCH": "x86_64", "IMAGE_TYPE": "raw", "IMAGE_URL": server.url + "/"}
    return Node.make(directory / "node", **{**values, "CACHE_DIR": str(directory / "cache"), **settings})


@pytest.mark.parametrize("clean_up", ["no", "yes"])
def test_an_image_from_the_server(server: ImageServer, disk: Path, tmp_path: Path, clean_up: str) -> None:
    server.put(NAME, DATA)
    node = node_for(server, tmp_path, IMAGE_CLEANUP=clean_up)
    done = node.create(disk)
    assert done.returncode == 0, done.stderr
    assert disk.read_bytes()[: len(DATA)] == DATA
    assert "image create inst1.example.org: fetching: fetched: 100 %, 3 MiB of 3 MiB" in done.stderr
    assert f"{tmp_path}/cache/{NAME} is installed on {disk}" in done.stderr
    assert (tmp_path / "cache" / NAME).exists() == (clean_up == "no")


def test_several_creates_at_once(server: ImageServer, tmp_path: Path) -> None:
    server.put(NAME, DATA, faults=["slow:0.03"])
    node = node_for(server, tmp_path, IMAGE_CLEANUP="yes")
    disks = [tmp_path / f"disk{index}" for index in range(5)]
    for path in disks:
        path.write_bytes(b"\xff" * SIZE)
    running = [node.start("create", **create_environment(path)) for path in disks]
    for process in running:
        _, err = process.communicate(timeout=60)
        assert process.returncode == 0, err
    assert all(path.read_bytes()[: len(DATA)] == DATA for path in disks)
    assert os.listdir(tmp_path / "cache") == []


def test_what_is_wrong_leaves_the_disk_as_it_was(server: ImageServer, disk: Path, tmp_path: Path) -> None:
    server.put(NAME, DATA, checksum=False)
    done = node_for(server, tmp_path).create(disk)
    assert done.returncode == 1
    assert f"fetching: {server.url}/{NAME}: no checksum was found for it" in last_line(done)
    assert disk.read_bytes() == b"\xff" * SIZE


def test_without_a_name(server: ImageServer, disk: Path, tmp_path: Path) -> None:
    done = node_for(server, tmp_path, IMAGE_NAME="").create(disk)
    assert done.returncode == 1
    assert "IMAGE_NAME is not set" in last_line(done)


def test_sigterm_while_it_is_fetched(server: ImageServer, disk: Path, tmp_path: Path) -> None:
    server.put(NAME, DATA, faults=["slow:0.1"])
    node = node_for(server, tmp_path)
    process = node.start("create", **create_environment(disk))
    part = tmp_path / "cache" / f".{NAME}.part"
    while not (part.exists() and part.stat().st_size):
        assert process.poll() is None
        time.sleep(0.01)
    process.send_signal(signal.SIGTERM)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 1
    assert err.strip().splitlines()[-1].endswith("fetching: ended by SIGTERM; the installation is not complete")
    assert disk.read_bytes() == b"\xff" * SIZE
    assert node.create(disk).returncode == 0
    assert server.ranges(NAME)[1] is not None
