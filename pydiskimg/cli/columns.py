# SPDX-License-Identifier: MIT
"""Rows of text in columns, or as CSV, as the virt-* tools print their tables."""

from __future__ import annotations

from pydiskimg.startup import TYPE_CHECKING
from pydiskimg.text import columns_of, printable

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterator, Sequence
    from typing import TypeAlias

    from pydiskimg.cli import Arguments

    Row: TypeAlias = Sequence[str | int | None]

_NONE = "-"


def add_columns_options(parser: argparse.ArgumentParser) -> None:
    """Add --csv and --no-title."""
    parser.add_argument("--csv", action="store_true", help="fields separated by commas, quoted where needed")
    parser.add_argument("--no-title", action="store_true", help="leave out the line of titles")


def table_lines(
    titles: Sequence[str], rows: Sequence[Row], arguments: Arguments, *, to_the_right: bool = False
) -> Iterator[str]:
    """Yield the rows after their titles, in the form that add_columns_options() declares; None is an empty field.

    to_the_right: all columns but the first are aligned to the right, as numbers are.
    """
    titles = [] if arguments.no_title else titles
    return _csv(titles, rows) if arguments.csv else _columns(titles, rows, to_the_right=to_the_right)


def aligned(rows: Sequence[Sequence[str]]) -> Iterator[str]:
    """Yield the rows as lines with the fields below each other."""
    for line in zip(*(_aligned(column, is_number=False) for column in zip(*rows, strict=True)), strict=True):
        yield "  ".join(line).rstrip()


def _columns(titles: Sequence[str], rows: Sequence[Row], *, to_the_right: bool) -> Iterator[str]:
    """Yield lines with the fields below each other, numbers to the right."""
    table = [list(titles)] if titles else []
    table += [[_NONE if field in (None, "") else printable(str(field)) for field in row] for row in rows]
    numeric = [number or (to_the_right and at > 0) for at, number in enumerate(_numeric(rows))]
    by_column = zip(*table, strict=True)
    columns = [_aligned(column, is_number=number) for column, number in zip(by_column, numeric, strict=False)]
    for line in zip(*columns, strict=True):
        yield "  ".join(line).rstrip()


def _numeric(rows: Sequence[Row]) -> Iterator[bool]:
    """Return for each column whether it has numbers; without rows the result is empty, and nothing is printed."""
    for column in zip(*rows, strict=True):
        yield any(isinstance(field, int) for field in column)


def _aligned(column: Sequence[str], *, is_number: bool) -> list[str]:
    width = max(map(columns_of, column))
    rooms = [" " * (width - columns_of(field)) for field in column]
    return [room + field if is_number else field + room for room, field in zip(rooms, column, strict=True)]


def _csv(titles: Sequence[str], rows: Sequence[Row]) -> Iterator[str]:
    for row in [titles, *rows] if titles else rows:
        yield ",".join(csv_field("" if field is None else str(field)) for field in row)


def csv_field(field: str) -> str:
    """Return a field of CSV, with quotes where it needs them."""
    if any(character in field for character in ' ",\n'):
        return '"' + field.replace('"', '""') + '"'
    return field
