# SPDX-License-Identifier: MIT
"""A list of ranges: nothing that was put in is ever missing, and its memory is bounded."""

from __future__ import annotations

from itertools import accumulate, pairwise

from hypothesis import given
from hypothesis import strategies as st

from pydiskimg.ranges import RangeList

# Steps from one boundary to the next; zero makes an empty range or a touching neighbour.
STEPS = st.lists(st.integers(0, 20000), max_size=60).map(lambda steps: list(accumulate(steps)))


def ranges_of(boundaries: list[int]) -> list[tuple[int, int]]:
    return list(zip(boundaries[::2], boundaries[1::2], strict=False))


@given(STEPS)
def test_what_was_put_in(boundaries: list[int]) -> None:
    ranges = ranges_of(boundaries)
    found = list(RangeList(ranges))
    assert sum(end - start for start, end in found) == sum(end - start for start, end in ranges)
    assert all(start < end for start, end in found)
    assert all(one[1] < other[0] for one, other in pairwise(found))


@given(STEPS, st.integers(1, 5))
def test_a_bounded_list_covers_more_and_never_less(boundaries: list[int], most: int) -> None:
    ranges = ranges_of(boundaries)
    found = RangeList(ranges, max_ranges=most)
    assert len(list(found)) <= most
    for start, end in ranges:
        assert list(found.within(start, end)) == ([(start, end)] if start < end else [])
    for start, end in found:
        assert any(start == one[0] < one[1] for one in ranges)
        assert any(end == one[1] > one[0] for one in ranges)


@given(STEPS, st.integers(0, 200000), st.integers(0, 50000))
def test_within(boundaries: list[int], start: int, length: int) -> None:
    end = start + length
    cut = [(max(first, start), min(last, end)) for first, last in RangeList(ranges_of(boundaries))]
    assert list(RangeList(ranges_of(boundaries)).within(start, end)) == [(a, b) for a, b in cut if a < b]
