# SPDX-License-Identifier: MIT
"""Extent is a value."""

from __future__ import annotations

import copy
import pickle

import pytest

from pydiskimg.extents import Extent, Kind, merged


def test_an_extent_is_a_value() -> None:
    extent = Extent(4, 8, Kind.ZERO)
    assert extent == Extent(start=4, length=8, kind=Kind.ZERO)
    assert len({extent, Extent(4, 8, Kind.ZERO), copy.copy(extent), pickle.loads(pickle.dumps(extent))}) == 1
    for other in (Extent(5, 8, Kind.ZERO), Extent(4, 9, Kind.ZERO), Extent(4, 8, Kind.DATA), (4, 8, Kind.ZERO)):
        assert extent != other
    assert repr(extent) == "Extent(start=4, length=8, kind=Kind.ZERO)"
    assert extent.end == 12
    match extent:
        case Extent(start, length, kind):
            assert (start, length, kind) == (4, 8, Kind.ZERO)


@pytest.mark.parametrize("name", ["start", "length", "kind", "other"])
def test_an_extent_does_not_change(name: str) -> None:
    extent = Extent(4, 8, Kind.ZERO)
    with pytest.raises(AttributeError, match=name):
        setattr(extent, name, 1)
    with pytest.raises(AttributeError):
        delattr(extent, name)
    assert extent == Extent(4, 8, Kind.ZERO)


def test_neighbours_of_one_kind_are_joined() -> None:
    pieces = [Extent(0, 1, Kind.DATA), Extent(1, 0, Kind.ZERO), Extent(1, 2, Kind.DATA), Extent(3, 1, Kind.HOLE)]
    assert list(merged(pieces)) == [Extent(0, 3, Kind.DATA), Extent(3, 1, Kind.HOLE)]
