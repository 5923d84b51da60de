# SPDX-License-Identifier: MIT
"""A cache on a file system that becomes full, or that belongs to somebody else."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from ganeti_os.fetch import FetchError, fetched
from ganeti_os.log import Messages
from ganeti_os.settings.settings import Layer, Settings
from pydiskimg.errors import DoesNotFitError
from tests.fixtures.image_server import ImageServer
from tests.fixtures.unmounting import unmount

pytestmark = pytest.mark.root
NAME = "x-x86_64.img"
MIB = 1 << 20


@pytest.fixture
def small(tmp_path: Path) -> Iterator[Path]:
    """A file system of 4 MiB."""
    point = tmp_path / "small"
    point.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4m,mode=755", "tmpfs", point], check=True)
    try:
        yield point
    finally:
        unmount(point)


def settings(server: ImageServer, cache: Path) -> Settings:
    return Settings.from_layers([Layer("test", {"IMAGE_URL": server.url, "CACHE_DIR": str(cache)})])


def fill(directory: Path) -> None:
    """Leave no room for a single block."""
    with suppress(OSError), (directory / "fill").open("ab", buffering=0) as file:
        while True:
            file.write(bytes(4096))


def refused(server: ImageServer, cache: Path) -> str:
    with (
        pytest.raises((DoesNotFitError, FetchError)) as caught,
        fetched(NAME, settings(server, cache), Messages(os_name="image", verb="create")),
    ):
        pytest.fail("was fetched")
    return str(caught.value)


def test_no_room_is_told_before(server: ImageServer, small: Path) -> None:
    server.put(NAME, os.urandom(5 * MIB))
    assert f"{NAME} has 5242880 bytes (5 MiB), of which 5 MiB are missing, and" in refused(server, small)
    assert os.listdir(small) == []


def test_becoming_full_is_a_sentence_and_leaves_room(server: ImageServer, small: Path) -> None:
    server.put(NAME, os.urandom(5 * MIB), always="chunked")
    text = refused(server, small)
    assert text.startswith(f"{small}: became full when ")
    assert "of a size that the server does not state" in text
    assert os.listdir(small) == []


def test_a_cache_of_somebody_else(server: ImageServer, tmp_path: Path) -> None:
    server.put(NAME, b"x")
    cache = tmp_path / "cache"
    cache.mkdir(mode=0o755)
    os.chown(cache, 1234, 1234)
    assert refused(server, cache) == f"{cache}: CACHE_DIR belongs to user 1234; expected root as its owner"
    assert server.asked == []


def test_a_full_cache_that_has_the_image(server: ImageServer, small: Path) -> None:
    """Nothing needs room then: what cannot be recorded is checked again."""
    server.put(NAME, b"x" * MIB)
    (small / NAME).write_bytes(b"x" * MIB)
    fill(small)
    for _ in range(2):
        with fetched(NAME, settings(server, small), Messages(os_name="image", verb="create")) as path:
            assert Path(path).read_bytes() == b"x" * MIB
        assert set(os.listdir(small)) == {NAME, "fill"}


def test_a_full_cache_is_a_sentence(server: ImageServer, small: Path) -> None:
    server.put(NAME, b"x" * MIB)
    fill(small)
    assert f"{NAME} has 1048576 bytes (1 MiB), of which 1 MiB are missing" in refused(server, small)
