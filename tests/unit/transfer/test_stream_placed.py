# SPDX-License-Identifier: MIT
"""Clusters that go from a file into a pipe without being read: the same stream as when they are read."""

from __future__ import annotations

import errno
import os
import random
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from pydiskimg.errors import InvalidImageError, StorageError
from pydiskimg.extents import Extent
from pydiskimg.images.raw import RawSource, open_raw
from pydiskimg.protocols import Source, WritableBuffer
from pydiskimg.ranges import RangeList
from pydiskimg.transfer.send import write_stream
from pydiskimg.volumes.used import UsedSource

KIB = 1 << 10
MIB = 1 << 20


@pytest.fixture
def disk(tmp_path: Path) -> Path:
    rng = random.Random(26)
    parts = [rng.choice((bytes(64 * KIB), rng.randbytes(64 * KIB), b"\0" * 40_000 + b"x" * 25_536)) for _ in range(150)]
    path = tmp_path / "disk"
    path.write_bytes(b"".join(parts) + rng.randbytes(1536))
    return path


class Read(Source):
    """A source that does not report where its bytes are."""

    name: str
    size: int
    format = "raw"

    def __init__(self, source: UsedSource) -> None:
        self.name, self.size, self._source = source.name, source.size, source

    def extents(self) -> Iterator[Extent]:
        return self._source.extents()

    def read_into(self, offset: int, buffer: WritableBuffer) -> None:
        self._source.read_into(offset, buffer)


def used(source: RawSource, seed: int) -> UsedSource:
    """Some of source, in pages as a file system has it."""
    rng = random.Random(seed)
    edges = sorted(rng.sample(range(0, source.size, 4 * KIB), 24))
    return UsedSource(source, RangeList(zip(edges[::2], edges[1::2], strict=True)), [])


def through_pipe(
    source: UsedSource | Read | RawSource,
    limit: int | None = None,
    *,
    cluster_size: int = 64 * KIB,
    find_zeros: bool | None = None,
) -> bytes:
    reading, writing = os.pipe()
    received = bytearray()

    def read() -> None:
        while data := os.read(reading, 100_000):
            received.extend(data)
            if limit is not None and len(received) > limit:
                break
        os.close(reading)

    thread = threading.Thread(target=read)
    thread.start()
    try:
        write_stream(source, writing, cluster_size=cluster_size, find_zeros=find_zeros)
    finally:
        os.close(writing)
        thread.join(30)
    return bytes(received)


@pytest.mark.parametrize("cluster_size", [512, 64 * KIB, 2 * MIB])
@pytest.mark.parametrize("seed", range(4))
def test_the_same_stream(disk: Path, seed: int, cluster_size: int, monkeypatch: pytest.MonkeyPatch) -> None:
    moved: list[int] = []
    splice = os.splice

    def counting(*arguments: int, **offsets: int) -> int:
        moved.append(splice(*arguments, **offsets))
        return moved[-1]

    with open_raw(disk) as source:
        some = used(source, seed)
        expected = through_pipe(Read(some), cluster_size=cluster_size)
        monkeypatch.setattr(os, "splice", counting)
        assert through_pipe(some, cluster_size=cluster_size) == expected
    assert sum(moved) > MIB // 2, "hardly anything was moved"


@pytest.mark.parametrize("number", [errno.EINVAL, errno.ENOMEM, errno.EIO])
@pytest.mark.parametrize("good", [0, 3])
def test_what_is_refused_is_read(disk: Path, number: int, good: int, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[int] = []
    splice = os.splice

    def refusing(*arguments: int, **offsets: int) -> int:
        calls.append(1)
        if len(calls) > good:
            raise OSError(number, os.strerror(number))
        return splice(*arguments, **offsets)

    with open_raw(disk) as source:
        expected = through_pipe(Read(used(source, 1)))
        monkeypatch.setattr(os, "splice", refusing)
        assert through_pipe(used(source, 1)) == expected
    assert len(calls) == good + 1, "it is tried once more after a refusal"


def test_into_a_file(disk: Path, tmp_path: Path) -> None:
    with open_raw(disk) as source, (tmp_path / "out").open("w+b") as out:
        write_stream(source, out.fileno())
        assert (tmp_path / "out").read_bytes() == through_pipe(source)


def test_a_file_that_was_cut(disk: Path) -> None:
    with open_raw(disk) as source:
        os.truncate(disk, 3 * MIB)
        with pytest.raises(InvalidImageError, match="changed while it was read"):
            through_pipe(source, find_zeros=False)


def test_a_reader_that_goes_away(disk: Path) -> None:
    with open_raw(disk) as source, pytest.raises(StorageError, match="the reader has closed its end") as caught:
        through_pipe(source, limit=2 * MIB)
    assert caught.value.errno == errno.EPIPE
