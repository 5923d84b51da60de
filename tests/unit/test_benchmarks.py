# SPDX-License-Identifier: MIT
"""The rows of the benchmarks: what their commands name is declared, and plots are drawn of what was measured."""

from __future__ import annotations

import re
from xml.etree import ElementTree

import pytest

from benchmarks import svg
from benchmarks.bench import NAME, OURS
from benchmarks.growth import SERIES, Step, exponent, plot
from benchmarks.inputs import INPUTS
from benchmarks.options import chosen
from benchmarks.results import Result, lines
from benchmarks.rows import Limit, Peer, Row
from benchmarks.scale import FULL, SMALL
from benchmarks.table import DRAWN, ROWS
from benchmarks.targets import TARGETS
from benchmarks.turns import Taken, in_turns

KNOWN = {*INPUTS, *TARGETS, *FULL.numbers, "python", "inflate", "deflate", "temporary"}
ASSIGNED = re.compile(r"\b([a-z]+)=\$")
ROW = Row("row", "what", "true", (Peer("peer", "true", 2.0), Peer("other", "true")), Limit("limit", "true", 1.25))


@pytest.mark.parametrize("row", ROWS.values(), ids=ROWS)
def test_what_a_row_names_is_declared(row: Row) -> None:
    limit = (row.limit.command,) if row.limit else ()
    text = "\n".join((row.before, row.ours, row.check, *limit, *(peer.command for peer in row.peers)))
    assert set(NAME.findall(text)) - set(ASSIGNED.findall(text)) <= KNOWN
    assert row.peers or row.limit


def test_names_are_of_one_thing() -> None:
    assert not set(INPUTS) & set(TARGETS)
    assert not {*INPUTS, *TARGETS} & set(FULL.numbers)


def test_what_is_drawn_is_in_the_table() -> None:
    assert len(set(DRAWN)) == len(DRAWN)
    assert set(DRAWN) <= set(ROWS)


def test_small_inputs_are_smaller() -> None:
    assert all(SMALL.numbers[name] < number for name, number in FULL.numbers.items())


def test_ratios_are_of_medians_and_rounds() -> None:
    taken = {
        "pydiskimg": [Taken(1.0, 1.0, 200 << 20), Taken(2.0, 1.0, 100 << 20), Taken(9.0, 1.0, 100 << 20)],
        "limit": [Taken(1.0, 1.0, 0)] * 3,
        "peer": [Taken(4.0, 3.0, 50 << 20)] * 3,
        "other": [Taken(1.0, 1.0, 0)] * 3,
    }
    result = Result(ROW, taken)
    one, other = result.comparisons
    assert (one.clock.median, one.clock.least, one.clock.most, one.processor.median) == (2.0, 4 / 9, 4.0, 3.0)
    assert one.reached
    assert other.clock.median == 0.5
    first, second = lines(result)
    assert "| **2.00** |" in first
    assert "2.00 (at most 1.25: missed)" in first
    assert "200: above 150" in first
    assert "**0.50**" in second


def test_a_slow_peer_takes_part_in_the_first_rounds() -> None:
    clock = iter(range(1, 20))
    contenders = {name: lambda: Taken(next(clock), 1, 1) for name in (OURS, "slow", "quick")}
    taken = in_turns(contenders, rounds=3, few={"slow": 1})
    assert [[one.seconds for one in some] for some in taken.values()] == [[1, 4, 6], [2], [3, 5, 7]]
    row = Row("row", "what", "ours", (Peer("slow", "slow", rounds=1), Peer("quick", "quick")))
    slow, quick = Result(row, taken).comparisons
    assert (slow.clock.median, quick.clock.median) == (2, 1.25)
    assert "| **2.00** | one round |" in next(lines(Result(row, taken)))


def test_ratios_are_drawn() -> None:
    marks = {"<row>": [svg.Mark("a & b", 3.0, 2.0, 4.0, 2.0), svg.Mark("c", 0.5, 0.4, 0.6, 1.0)]}
    root = ElementTree.fromstring(svg.ratios("title", marks))
    told = [element.text for element in root.iter("{http://www.w3.org/2000/svg}title")]
    assert told == ["a & b: 3.00 times, rounds 2.00 to 4.00", "c: 0.50 times, rounds 0.40 to 0.60"]


def test_growth_is_drawn_and_its_exponent_computed() -> None:
    steps = [Step(size, size**1.5, size, 1 << 20) for size in (1, 4, 16)]
    assert exponent(steps) == pytest.approx(1.5)
    for series in SERIES.values():
        root = ElementTree.fromstring(plot(series, dict.fromkeys(series.curves, steps)))
        curves = root.findall("{http://www.w3.org/2000/svg}polyline")
        assert len(curves) == 2 * len(series.curves)


def test_rows_are_chosen_by_patterns() -> None:
    assert chosen(["a-1", "a-2", "b"], ["a-*"]) == ["a-1", "a-2"]
    assert chosen(["a", "b"], []) == ["a", "b"]
    with pytest.raises(SystemExit, match="no row is named c"):
        chosen(["a", "b"], ["c"])
