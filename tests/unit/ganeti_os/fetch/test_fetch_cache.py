# SPDX-License-Identifier: MIT
"""The cache directory: whose it may be, what lies in it, and what is taken away."""

from __future__ import annotations

import os
import re
import time
from pathlib import Path

import pytest

from ganeti_os.fetch import FetchError
from ganeti_os.fetch.lock import Fetcher, using
from pydiskimg.errors import StorageError
from tests.fixtures.fetching import DATA, NAME, fetch, left, refused
from tests.fixtures.image_server import ImageServer


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    return tmp_path / "var" / "cache"


@pytest.mark.parametrize("mode", [0o777, 0o775, 0o1777])
def test_a_cache_that_others_can_write_to_is_refused(server: ImageServer, cache: Path, mode: int) -> None:
    cache.mkdir(parents=True)
    cache.chmod(mode)
    assert f"(mode {mode:04o})" in refused(server.url, cache)
    assert server.asked == []


def test_a_cache_that_is_a_file(server: ImageServer, cache: Path) -> None:
    cache.parent.mkdir(parents=True)
    cache.touch()
    assert refused(server.url, cache).endswith("CACHE_DIR is not a directory")


def test_a_cache_below_a_file(server: ImageServer, cache: Path) -> None:
    cache.parent.parent.joinpath("var").touch()
    with pytest.raises(OSError, match=f"{cache}: cannot make the cache directory"):
        fetch(server.url, cache)


def test_a_part_that_is_a_symlink_is_not_followed(server: ImageServer, cache: Path, tmp_path: Path) -> None:
    server.put(NAME, DATA)
    cache.mkdir(parents=True, mode=0o755)
    (tmp_path / "precious").write_bytes(b"precious")
    (cache / f".{NAME}.part").symlink_to(tmp_path / "precious")
    with pytest.raises(OSError, match="Too many levels of symbolic links"):
        fetch(server.url, cache)
    assert (tmp_path / "precious").read_bytes() == b"precious"


@pytest.mark.parametrize("days", [6, 8])
def test_parts_that_nobody_wants_any_more_go_after_a_week(server: ImageServer, cache: Path, days: int) -> None:
    server.put(NAME, DATA, faults=["cut:3000000", "404"])
    refused(server.url, cache)
    long_ago = time.time() - days * 86400
    os.utime(cache / f".{NAME}.part", (long_ago, long_ago))
    server.put("other", b"x")
    fetch(server.url, cache, name="other")
    rest = {f".{NAME}.part", f".{NAME}.from"} if days == 6 else set()
    assert left(cache) == {"other", ".other.json"} | rest


def test_but_not_while_somebody_fetches(server: ImageServer, cache: Path) -> None:
    server.put(NAME, DATA, faults=["cut:3000000", "404"])
    refused(server.url, cache)
    os.utime(cache / f".{NAME}.part", (0, 0))
    server.put("other", b"x")
    busy = Fetcher(1, "")
    with using(str(cache / f".{NAME}.lock"), lambda: None, lambda: None) as lock, lock.fetching(busy, lambda _: None):
        fetch(server.url, cache, name="other")
        assert (cache / f".{NAME}.part").exists()


def test_a_record_that_was_being_written_is_taken_away(server: ImageServer, cache: Path) -> None:
    server.put(NAME, DATA)
    cache.mkdir(parents=True, mode=0o755)
    for kind in ("json", "from"):
        (cache / f".{NAME}.{kind}.new").write_text("{")
    fetch(server.url, cache)
    assert left(cache) == {NAME, f".{NAME}.json"}


@pytest.mark.parametrize("name", [NAME, f".{NAME}.part", f".{NAME}.from", f".{NAME}.json", f".{NAME}.lock"])
@pytest.mark.parametrize("new", ["", ".new"])
def test_a_fifo_in_the_cache_hangs_nothing(server: ImageServer, cache: Path, name: str, new: str) -> None:
    server.put(NAME, DATA)
    cache.mkdir(parents=True)
    os.mkfifo(cache / (name + new))
    text = ""
    try:
        assert fetch(server.url, cache) == DATA
    except (FetchError, StorageError) as error:
        text = str(error)
    if text:
        assert not new
        assert name in text
        assert re.search("is not a regular file|found a directory or special file", text)
