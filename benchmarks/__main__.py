# SPDX-License-Identifier: MIT
"""The table of all rows, or of those that are named: `python -m benchmarks --help`."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from benchmarks import svg
from benchmarks.bench import Bench
from benchmarks.kept import keep, kept
from benchmarks.options import HERE, bench, chosen, end_by_signals, parser
from benchmarks.results import Result, lines, page
from benchmarks.rows import Row
from benchmarks.table import DRAWN, ROWS

_TITLE = "How many times as fast pydiskimg is"


def main(argv: Sequence[str] | None = None) -> None:
    known = parser("Measure pydiskimg against its peers, in turns.", "rows", rounds=5)
    known.add_argument(
        "--without", action="append", default=[], metavar="PEER", help="leave these out, also by pattern"
    )
    known.add_argument(
        "--continue",
        dest="go_on",
        action="store_true",
        help="measure only what an earlier run has not measured; its rows are taken as they were",
    )
    arguments = known.parse_args(argv)
    names = chosen(ROWS, arguments.names)
    if arguments.list:
        for name in names:
            print(f"{name:28} {ROWS[name].what}")
        return
    made = bench(arguments)
    results = [measured(made, ROWS[name].without(arguments.without), go_on=arguments.go_on) for name in names]
    output = arguments.output
    if output is None and not arguments.names and not arguments.small:
        output = HERE  # a whole table replaces the old one
    if output:
        drawn = [result for result in results if result.row.name in DRAWN] or results
        marks = {
            result.row.name: [
                svg.Mark(one.peer, one.clock.median, one.clock.least, one.clock.most, one.wanted)
                for one in result.comparisons
            ]
            for result in drawn
            if result.comparisons
        }
        output.mkdir(parents=True, exist_ok=True)
        (output / "results.md").write_text(page(results, arguments.rounds, arguments.directory))
        (output / "ratios.svg").write_text(svg.ratios(_TITLE, marks))
        print(f"written: {output / 'results.md'}, {output / 'ratios.svg'}", file=sys.stderr)


def measured(made: Bench, row: Row, *, go_on: bool) -> Result:
    """Measure a row, keep its measurements, and print its lines as soon as they are known.

    With go_on, a row that was measured before is not measured again.
    """
    for peer in row.peers:
        if not peer.available:
            print(f"{row.name}: {peer.name} is not installed", file=sys.stderr)
    result = kept(made.kept, row) if go_on else None
    if result is None:
        result = Result(row, made.measure(row))
        keep(made.kept, result)
    print("\n".join(lines(result)), flush=True)
    return result


if __name__ == "__main__":
    end_by_signals()
    main()
