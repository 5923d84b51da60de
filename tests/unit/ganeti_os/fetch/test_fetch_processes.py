# SPDX-License-Identifier: MIT
"""Many creates that need one image, and some that are killed: real processes, one server."""

from __future__ import annotations

import multiprocessing
import os
import random
import signal
import time
from multiprocessing.context import SpawnProcess
from pathlib import Path
from typing import Any

import pytest

from ganeti_os.fetch import fetched
from ganeti_os.log import Messages
from ganeti_os.settings.settings import Layer, Settings
from tests.fixtures.image_server import ImageServer
from tests.fixtures.node import Node, create_environment

NAME = "small-x86_64.img"
MIB = 1 << 20
DATA = random.Random(1).randbytes(4 * MIB)  # the same in each process
CONTEXT = multiprocessing.get_context("spawn")  # locks of a fork would be the parent's


def settings(url: str, cache: Path, **more: str) -> Settings:
    return Settings.from_layers([Layer("test", {"IMAGE_URL": url, "CACHE_DIR": str(cache), **more})])


def create(wanted: Settings, instance: str, log: str, until: str | None) -> None:
    """What a create does: fetch, use (until there is such a file), end. Exit status 3: the image was not right."""
    with open(log, "w") as stream:
        messages = Messages(os_name="image", verb="create", instance=instance)
        messages.attach(stream=stream)
        with fetched(NAME, wanted, messages, instance=instance) as path:
            while until is not None and not os.path.exists(until):
                time.sleep(0.01)
            if Path(path).read_bytes() != DATA:
                os._exit(3)


def start(wanted: Settings, log: Path, *, instance: str = "inst1", until: Path | None = None) -> SpawnProcess:
    process = CONTEXT.Process(target=create, args=(wanted, instance, str(log), None if until is None else str(until)))
    process.start()
    return process


def says(log: Path, text: str) -> bool:
    return log.exists() and text in log.read_text()


def size(path: Path) -> int:
    return path.stat().st_size if path.exists() else -1


def wait_until(condition: Any, seconds: float = 60.0) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.01)


def left(cache: Path) -> set[str]:
    return {path.name for path in cache.iterdir()}


def test_twenty_at_once_download_once(server: ImageServer, tmp_path: Path) -> None:
    server.put(NAME, DATA, faults=["slow:0.05"])
    cache = tmp_path / "cache"
    running = [
        start(settings(server.url, cache), tmp_path / f"log{index}", instance=f"inst{index}") for index in range(20)
    ]
    for process in running:
        process.join(60)
    assert [process.exitcode for process in running] == [0] * 20
    assert server.count(NAME) == 1
    assert left(cache) == {NAME, f".{NAME}.json"}


def test_who_waits_says_for_whom(server: ImageServer, tmp_path: Path) -> None:
    server.put(NAME, DATA, faults=["gate:3000000"])
    cache, log = tmp_path / "cache", tmp_path / "log2"
    first = start(settings(server.url, cache), tmp_path / "log1", instance="inst1.example")
    wait_until(lambda: server.count(NAME))
    second = start(settings(server.url, cache), log, instance="inst2.example")
    wait_until(lambda: says(log, f"waiting for process {first.pid} (instance inst1.example), which fetches {cache}"))
    wait_until(lambda: says(log, f"fetched by process {first.pid}: 71 %, 2.86 MiB of 4 MiB"))
    server.gate.set()
    first.join(60)
    second.join(60)
    assert (first.exitcode, second.exitcode) == (0, 0)


@pytest.mark.parametrize("come", [0, 1, 3_000_000])
def test_kill_9_leaves_what_the_next_one_uses(server: ImageServer, tmp_path: Path, come: int) -> None:
    server.put(NAME, DATA, faults=[f"gate:{come}"])
    cache = tmp_path / "cache"
    killed = start(settings(server.url, cache), tmp_path / "log1")
    wait_until(lambda: size(cache / f".{NAME}.part") == come and server.count(NAME))
    killed.kill()
    killed.join(60)
    assert killed.exitcode == -signal.SIGKILL
    after = start(settings(server.url, cache), tmp_path / "log2")
    after.join(60)
    assert after.exitcode == 0
    assert server.ranges(NAME) == [None, f"bytes={come}-" if come else None]
    assert left(cache) == {NAME, f".{NAME}.json"}


def test_when_the_one_who_fetches_is_killed_another_goes_on(server: ImageServer, tmp_path: Path) -> None:
    server.put(NAME, DATA, faults=["gate:1000000"])
    cache = tmp_path / "cache"
    killed = start(settings(server.url, cache), tmp_path / "log0")
    wait_until(lambda: size(cache / f".{NAME}.part") == 1_000_000)
    waiting = [start(settings(server.url, cache), tmp_path / f"log{index}") for index in range(1, 5)]
    for index in range(1, 5):
        wait_until(lambda index=index: says(tmp_path / f"log{index}", "waiting for process"))
    killed.kill()
    for process in [killed, *waiting]:
        process.join(60)
    assert [process.exitcode for process in waiting] == [0] * 4
    assert server.ranges(NAME) == [None, "bytes=1000000-"]
    assert left(cache) == {NAME, f".{NAME}.json"}


def test_clean_up_waits_for_the_last_one(server: ImageServer, tmp_path: Path) -> None:
    server.put(NAME, DATA)
    cache, release = tmp_path / "cache", tmp_path / "release"
    wanted = settings(server.url, cache, IMAGE_CLEANUP="yes")
    long = start(wanted, tmp_path / "log1", until=release)
    wait_until(lambda: says(tmp_path / "log1", "is fetched and checked"))
    short = start(wanted, tmp_path / "log2")
    short.join(60)
    assert short.exitcode == 0
    assert NAME in left(cache)
    release.touch()
    long.join(60)
    assert long.exitcode == 0
    assert left(cache) == set()
    assert server.count(NAME) == 1


def test_many_that_clean_up_never_miss_the_image(server: ImageServer, tmp_path: Path) -> None:
    server.put(NAME, DATA)
    cache = tmp_path / "cache"
    wanted = settings(server.url, cache, IMAGE_CLEANUP="yes")
    running = [start(wanted, tmp_path / f"log{index}") for index in range(12)]
    for process in running:
        process.join(60)
    assert [process.exitcode for process in running] == [0] * 12
    assert left(cache) == set()


@pytest.mark.parametrize("fault", ["silent", "drip", "stop:1000000"])
def test_sigterm_ends_one_who_waits_for_the_server(server: ImageServer, tmp_path: Path, fault: str) -> None:
    """The server may say nothing for 30 seconds, which are 60 in all; the limit here is for a busy machine."""
    server.put(NAME, DATA, always=fault)
    node = Node.make(tmp_path / "node", IMAGE_NAME="small", ARCH="x86_64", IMAGE_URL=server.url, NOMOUNT="yes")
    disk = tmp_path / "disk"
    disk.write_bytes(bytes(8 * MIB))
    process = node.start("create", **create_environment(disk))
    wait_until(lambda: server.count(NAME))
    process.terminate()
    _, log = process.communicate(timeout=15)
    assert process.returncode == 1
    assert log.splitlines()[-1].endswith(": fetching: ended by SIGTERM; the installation is not complete")
