# SPDX-License-Identifier: MIT
"""The kinds of extents of two Sources, side by side: whole tables at once where they are alike.

a          D H D H D H D H | H        a column: a byte for each cluster or subcluster, or one for all that is alike
b          D H D H D H D H | H
"""

from __future__ import annotations

from pydiskimg.extents import Kind
from pydiskimg.images.qcow2.runs import DATA, HOLE, ZERO, runs_of_kinds
from pydiskimg.startup import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from pydiskimg.extents import Extent
    from pydiskimg.protocols import KindColumn

_CODES = {Kind.DATA: DATA, Kind.ZERO: ZERO, Kind.HOLE: HOLE}
_KINDS = {code: kind for kind, code in _CODES.items()}


def columns_of(extents: Iterable[Extent]) -> Iterator[KindColumn]:
    """Yield a column of one kind for each extent."""
    for extent in extents:
        yield extent.start, extent.length, extent.start + extent.length, bytes((_CODES[extent.kind],))


def side_by_side(a: Iterator[KindColumn], b: Iterator[KindColumn], unit: int) -> Iterator[tuple[int, int, Kind, Kind]]:
    """Yield (start, length, kind in a, kind in b) of the ranges in which neither changes; neighbours may be alike.

    If both are alike and change within unit bytes (a power of two), the whole unit may be DATA if any of its bytes is.
    """
    one, other = next(a, None), next(b, None)
    while one is not None and other is not None:
        if one == other:
            for start, end, kind in _runs(_coarse(one, unit)):
                yield start, end - start, kind, kind
        else:
            yield from _one_by_one(a, b, one, other)
        one, other = next(a, None), next(b, None)


def _one_by_one(
    a: Iterator[KindColumn], b: Iterator[KindColumn], one: KindColumn, other: KindColumn
) -> Iterator[tuple[int, int, Kind, Kind]]:
    """Yield ranges, from one and other on, until a column of both ends at the same byte."""
    mine, theirs = _runs(one), _runs(other)
    run, their_run = next(mine), next(theirs)
    position = run[0]
    while True:
        end = min(run[1], their_run[1])
        yield position, end - position, run[2], their_run[2]
        position = end
        if run[1] > end:
            after: tuple[int, int, Kind] | None = run
        else:
            after = next(mine, None)
        their_after = their_run if their_run[1] > end else next(theirs, None)
        if after is None and their_after is None:
            return
        if after is None:
            if (column := next(a, None)) is None:
                return
            mine = _runs(column)
            after = next(mine)
        if their_after is None:
            if (column := next(b, None)) is None:
                return
            theirs = _runs(column)
            their_after = next(theirs)
        run, their_run = after, their_after


def _runs(column: KindColumn) -> Iterator[tuple[int, int, Kind]]:
    """Yield (start, end, kind) of the runs of a column."""
    start, step, end, kinds = column
    for code, first, after in runs_of_kinds(kinds):
        yield start + first * step, min(start + after * step, end), _KINDS[code]


def _coarse(column: KindColumn, unit: int) -> KindColumn:
    start, step, end, kinds = column
    count = unit // step
    if count < 2 or len(kinds) < count or start % unit:
        return column
    from pydiskimg.images.qcow2.subclusters import coarse  # only here: few images have subclusters

    return start, unit, end, coarse(kinds.ljust(-(-len(kinds) // count) * count, kinds[-1:]), count)
