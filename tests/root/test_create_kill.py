# SPDX-License-Identifier: MIT
"""kill -9 and SIGTERM at random instants of a create: nothing is left, and the next run succeeds."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import time
from pathlib import Path

import pytest

from tests.conftest import left_attached, left_mounted, loop_devices, mounts
from tests.fixtures.block_devices import filled_file
from tests.fixtures.debian_system import NAME, DebianSystem
from tests.fixtures.judges import inside, partitions
from tests.fixtures.node import Node, create_environment

pytestmark = pytest.mark.root
MIB = 1 << 20
MOUNT_PLACES = ("/mnt", "/media", "/srv", "/opt", "/var/opt", "/var/local")


def left_files(temporary: Path) -> set[str]:
    """What is in the places that are mounted over, and in the directory for temporary files."""
    return {f"{place}/{name}" for place in (*MOUNT_PLACES, temporary) for name in os.listdir(place)}


def wipe(disk: Path) -> None:
    """Take away the table of the run before, so that what is found is this run's."""
    with disk.open("r+b") as file:
        file.write(b"\xff" * MIB)


def table_of(disk: Path) -> str:
    """Return what sfdisk says of the partition table; nothing where there is none."""
    return subprocess.run(["sfdisk", "-d", disk], capture_output=True, text=True, check=False).stdout


def check_what_looks_complete(disk: Path, tmp_path: Path) -> None:
    """A partition table with the true types may be there only when everything else is: the script's file too."""
    if "type=83" in table_of(disk):
        with inside(str(disk), partitions(str(disk))[-1], tmp_path) as point:
            assert (point / "root/x").exists(), "an interrupted installation looks complete"


@pytest.mark.parametrize("image_type", ["tarball", "qcow2"])
def test_killed_at_random_instants(tmp_path: Path, debian: DebianSystem, image_type: str) -> None:
    node = Node.make(tmp_path / "node", IMAGE_NAME=NAME, IMAGE_TYPE=image_type, IMAGE_DIR=str(debian.directory))
    node.add_script("10-slow", '#!/bin/sh\necho x >"$TARGET/root/x"\nsleep 0.2\n')
    disk = filled_file(tmp_path / "disk", 450 * MIB)
    temporary = tmp_path / "tmp"
    temporary.mkdir()
    environment = create_environment(disk, TMPDIR=str(temporary))
    before = loop_devices(), mounts(), left_files(temporary)
    start = time.monotonic()
    assert node.create(disk).returncode == 0
    duration = time.monotonic() - start
    rng = random.Random(image_type)
    finished = 0
    for attempt in range(12):
        wipe(disk)
        process = node.start("create", **environment)
        time.sleep(rng.uniform(0.25, duration))
        process.send_signal(signal.SIGKILL if attempt % 6 else signal.SIGTERM)
        _, err = process.communicate(timeout=60)
        finished += process.returncode == 0
        if process.returncode > 0:
            assert "ended by SIGTERM; the installation is not complete" in err.splitlines()[-1], err
        assert not left_attached(before[0], tmp_path), "loop devices left attached"
        assert not left_mounted(before[1], tmp_path), "mounts left behind"
        assert left_files(temporary) <= before[2]
        check_what_looks_complete(disk, tmp_path)
    assert finished < 12
    done = node.create(disk)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_asked_to_end_at_random_instants(tmp_path: Path, debian: DebianSystem, number: signal.Signals) -> None:
    """It ends soon, in one sentence, whatever it is doing: nothing of its own keeps its mounts busy."""
    node = Node.make(tmp_path / "node", IMAGE_NAME=NAME, IMAGE_TYPE="tarball", IMAGE_DIR=str(debian.directory))
    disk = filled_file(tmp_path / "disk", 450 * MIB)
    start = time.monotonic()
    assert node.create(disk).returncode == 0
    duration = time.monotonic() - start
    rng = random.Random(number)
    ended = 0
    for _ in range(8):
        wipe(disk)
        process = node.start("create", **create_environment(disk))
        time.sleep(rng.uniform(duration / 4, duration))
        process.send_signal(number)
        _, err = process.communicate(timeout=60)
        assert "still in use" not in err, err  # as unmounting and detaching say when they give up
        if process.returncode == 1:
            ended += 1
            assert err.splitlines()[-1].endswith(f"ended by {number.name}; the installation is not complete"), err
            assert "type=83" not in table_of(disk)
    assert ended
