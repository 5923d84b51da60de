# SPDX-License-Identifier: MIT
"""Raw images: extents as the file system reports them, even wrong ones, and files that change."""

from __future__ import annotations

import errno
import os
import random
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pydiskimg.errors import InvalidImageError, StorageError
from pydiskimg.extents import Extent, Kind
from pydiskimg.images.raw import RawSource, describe, open_raw
from pydiskimg.protocols import read_bytes
from tests.fixtures.qcow2_images import assert_contract


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    size=st.integers(0, 1 << 20),
    writes=st.lists(st.tuples(st.integers(0, 1 << 20), st.integers(1, 1 << 16)), max_size=6),
)
def test_what_is_no_data_is_zero(tmp_path: Path, size: int, writes: list[tuple[int, int]]) -> None:
    path = tmp_path / "disk.img"
    with path.open("wb") as file:
        file.truncate(size)
        for offset, length in writes:
            file.seek(min(offset, size))
            file.write(random.Random(offset).randbytes(min(length, size - min(offset, size))))
    content = path.read_bytes()
    with open_raw(path) as source:
        extents = assert_contract(source)
        assert read_bytes(source, 0, source.size) == content
    assert {extent.kind for extent in extents} <= {Kind.DATA, Kind.HOLE}
    for extent in extents:
        assert extent.kind is Kind.DATA or not any(content[extent.start : extent.end])


def test_coarse_extents_are_whole_units(tmp_path: Path) -> None:
    """Of a fragmented file: a unit with anything stored in it is DATA, and no others are."""
    path, unit, rng = tmp_path / "disk.img", 64 << 10, random.Random(5)
    pages = sorted(rng.sample(range(1 << 14), 300))
    with path.open("wb") as file:
        file.truncate((1 << 26) - 4096)
        for page in pages[:-1]:
            os.pwrite(file.fileno(), b"x" * 4096, page * 4096)
    with open_raw(path) as source:
        fine = list(source.extents())
        wanted = {at for one in fine if one.kind is Kind.DATA for at in range(one.start // unit, -(-one.end // unit))}
        position, found = 0, set[int]()
        for extent in source.coarse_extents(unit):
            assert extent.start == position
            assert extent.start % unit == 0
            position = extent.end
            if extent.kind is Kind.DATA:
                found.update(range(extent.start // unit, -(-extent.end // unit)))
        assert position == source.size
        assert found == wanted
        assert len(found) < source.size // unit


def test_a_sparse_file_of_8_tib(tmp_path: Path) -> None:
    path = tmp_path / "large.img"
    with path.open("wb") as file:
        file.truncate(8 << 40)
        file.seek(5 << 40)
        file.write(b"x" * 4096)
    with open_raw(path) as source:
        extents = assert_contract(source)
        assert [extent.kind for extent in extents] == [Kind.HOLE, Kind.DATA, Kind.HOLE]
        assert extents[1].start <= 5 << 40 < extents[1].end <= (5 << 40) + (1 << 20)


def seeks(monkeypatch: pytest.MonkeyPatch, answer: Callable[[int, int], int]) -> None:
    """Make os.lseek answer as some file systems do: what no file system here can be made to say."""
    monkeypatch.setattr(os, "lseek", lambda _fd, position, whence: answer(position, whence))


def source_of(path: Path, size: int = 20000) -> RawSource:
    path.write_bytes(b"d" * size)
    return open_raw(path)


def test_no_seek_data_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def answer(position: int, whence: int) -> int:
        raise OSError(errno.EINVAL, "no such whence")

    with source_of(tmp_path / "a") as source:
        seeks(monkeypatch, answer)
        assert assert_contract(source) == [Extent(0, 20000, Kind.DATA)]


@pytest.mark.parametrize("hole", [0, 1, 1 << 62])
def test_answers_that_do_not_advance(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, hole: int) -> None:
    with source_of(tmp_path / "a") as source:
        seeks(monkeypatch, lambda position, whence: position if whence == os.SEEK_DATA else hole)
        assert assert_contract(source) == [Extent(0, 20000, Kind.DATA)]


def test_data_behind_the_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The file grew after it was opened."""
    with source_of(tmp_path / "a") as source:
        seeks(monkeypatch, lambda position, whence: 1 << 40)
        assert assert_contract(source) == [Extent(0, 20000, Kind.HOLE)]


def test_data_before_where_it_was_looked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with source_of(tmp_path / "a") as source:
        seeks(monkeypatch, lambda position, whence: 0)
        assert assert_contract(source) == [Extent(0, 20000, Kind.DATA)]


def test_a_failing_seek_says_where(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def answer(position: int, whence: int) -> int:
        raise OSError(errno.EIO, "x")

    with source_of(tmp_path / "a") as source:
        seeks(monkeypatch, answer)
        with pytest.raises(StorageError, match="/a: cannot look for data from offset 0 on: Input/output error"):
            list(source.extents())


@pytest.mark.parametrize("left", [0, 5000, 10001])
def test_a_file_that_became_shorter(tmp_path: Path, left: int) -> None:
    with source_of(tmp_path / "a") as source:
        os.truncate(tmp_path / "a", left)
        with pytest.raises(InvalidImageError, match=f"the file has {left} bytes now and had 20000 when it was opened"):
            list(source.extents())
        with pytest.raises(InvalidImageError, match=f"the file ends at byte {left}, where"):
            read_bytes(source, 0, 20000)


def test_a_file_that_was_cut_while_it_is_mapped(tmp_path: Path) -> None:
    path = tmp_path / "a"
    with path.open("wb") as file:
        for offset in (0, 1 << 20, 2 << 20):
            file.seek(offset)
            file.write(b"x" * 65536)
    with open_raw(path) as source:
        extents = source.extents()
        next(extents)
        os.truncate(path, 1 << 20)
        with pytest.raises(InvalidImageError, match="it was changed while it was read"):
            list(extents)


@pytest.mark.parametrize(("offset", "length"), [(-1, 2), (20000, 1), (0, 20001)])
def test_outside_of_the_file(tmp_path: Path, offset: int, length: int) -> None:
    with source_of(tmp_path / "a") as source, pytest.raises(ValueError, match="outside of 0 to 20000"):
        source.read_into(offset, bytearray(length))


def test_a_descriptor_that_is_given_stays_open(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"abc")
    with (tmp_path / "a").open("rb") as file:
        with describe(file.fileno(), name="given") as source:
            assert (source.name, read_bytes(source, 1, 2)) == ("given", b"bc")
        source.close()
        assert file.read() == b"abc"
        with pytest.raises(StorageError, match=r"^given: is closed$"):
            read_bytes(source, 0, 1)


def test_closing_twice_does_not_close_somebody_elses_descriptor(tmp_path: Path) -> None:
    source = source_of(tmp_path / "a")
    source.close()
    with (tmp_path / "a").open("rb") as file:
        source.close()
        assert file.read(1) == b"d"


def test_a_pipe_is_no_source() -> None:
    read_end, write_end = os.pipe()
    try:
        with pytest.raises(StorageError, match=r"^given: is a pipe; an image is a regular file or a block device$"):
            describe(read_end, name="given")
    finally:
        os.close(read_end)
        os.close(write_end)
