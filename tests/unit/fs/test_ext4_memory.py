# SPDX-License-Identifier: MIT
"""Memory of what a put into an ext and its check keep of each file and directory."""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable, Iterator

import pytest

from pydiskimg.files.entry import Entry
from pydiskimg.fs.ext4.change.names import InodeSet
from pydiskimg.fs.ext4.check import check_ext
from pydiskimg.units import MIB
from tests.fixtures.made_entries import filled, folder, regular

BYTES_FOR_EACH = 40  # a name takes more than 100 bytes where it is kept


def into_one_directory(count: int) -> Iterator[Entry]:
    yield folder("new")
    for number in range(count):
        yield regular(f"new/file number {number}")


def into_many_directories(count: int) -> Iterator[Entry]:
    for number in range(count // 2):
        yield folder(f"{number // 20}/{number}")
        yield regular(f"{number // 20}/{number}/file")


def peak(work: Callable[[], object]) -> int:
    tracemalloc.start()
    try:
        work()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def test_directories_that_keep_their_times_take_bits() -> None:
    """A put keeps them to its end."""
    numbers = InodeSet()

    def add() -> None:
        for number in range(11, 30_011):
            numbers.add(number)

    assert peak(add) < 30_000
    assert 11 in numbers
    numbers.discard(11)
    assert [number for number in (10, 11, 12, 30_010, 30_011, 1 << 31) if number in numbers] == [12, 30_010]
    numbers.clear()
    assert 12 not in numbers


@pytest.mark.parametrize("entries", [into_one_directory, into_many_directories])
def test_what_a_check_keeps_does_not_grow_with_the_files(entries: Callable[[int], Iterator[Entry]]) -> None:
    few, many = (filled(entries(count), size=8 * MIB) for count in (200, 600))
    more = peak(lambda: check_ext(many)) - peak(lambda: check_ext(few))
    assert more < 400 * BYTES_FOR_EACH
