# SPDX-License-Identifier: MIT
"""Help as text: paragraphs as wide as the terminal, and the list of all commands, which needs no parser.

argparse takes longer to import than Python takes to start, and its textwrap breaks options at their hyphens.
"""

from __future__ import annotations

import os

from pydiskimg.cli.commands import COMMANDS, DESCRIPTION, EXIT_STATUS, GROUPS, LEFT_OUT_SUBCOMMANDS
from pydiskimg.startup import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

_COLUMNS = 80  # without a terminal
_MOST_COLUMNS = 100  # the eye does not find the next line of a longer one
_USAGE = "usage: pydiskimg [-h] [-V] COMMAND ..."
_OPTIONS = {
    "-h, --help": "show this help and exit; also: pydiskimg help COMMAND",
    "-V, --version": "print the version",
}


def help_width() -> int:
    """Return the width of help: COLUMNS or the terminal's width, minus argparse's margin, and at most 100."""
    columns = os.environ.get("COLUMNS", "")
    width = int(columns) if columns.isascii() and columns.isdecimal() and len(columns) < 9 else 0
    if not width:
        try:
            width = os.get_terminal_size(1).columns
        except OSError:
            width = 0
    return min(width or _COLUMNS, _MOST_COLUMNS) - 2


def wrapped(text: str, width: int) -> list[str]:
    """Return text as lines of at most width characters, broken only at blanks; a longer word is a line of its own."""
    lines: list[str] = []
    line = ""
    for word in text.split():
        if line and len(line) + 1 + len(word) > width:
            lines.append(line)
            line = word
        else:
            line = f"{line} {word}" if line else word
    return [*lines, line] if line else lines


def example_lines(examples: str, width: int) -> Iterator[str]:
    """Yield the commands of examples, one per line, each continued by a backslash if it is too long.

    A comment that does not fit after its command is on the line before.
    """
    yield "examples:"
    for line_given in examples.splitlines():
        example, _, comment = line_given.partition(" # ")
        if len(line_given) + 2 <= width:
            example = line_given
        else:
            yield from (f"  # {line}" for line in wrapped(comment, max(width - 4, 1)))
        example = example.rstrip()
        lines = [example] if len(example) + 2 <= width else wrapped(example, max(width - 8, 1))
        for number, line in enumerate(lines):
            more = "" if number + 1 == len(lines) else " \\"
            yield f"{'      ' if number else '  '}{line}{more}"


def left_out_text(options: dict[str, str]) -> str:
    """Return the sentence that lists qemu-img's options that pydiskimg lacks, with the reasons; empty if there are
    none.
    """
    rows = "; ".join(f"{name} ({reason})" for name, reason in options.items())
    return f"Of qemu-img left out: {rows}." if rows else ""


def overview() -> str:
    """Return the text of --help: all commands by their subject."""
    width = help_width()
    lines = [*wrapped(_USAGE, width), "", *wrapped(DESCRIPTION, width)]
    column = max(map(len, COMMANDS))
    for title, rows in [*GROUPS.items(), ("options", _OPTIONS)]:
        lines += ["", f"{title}:"]
        for name, text in rows.items():
            first, *others = wrapped(text, max(width - column - 4, 16))
            lines += [f"  {name:{column}}  {first}", *(" " * (column + 4) + line for line in others)]
    lines += ["", *wrapped(f"{EXIT_STATUS} {left_out_text(LEFT_OUT_SUBCOMMANDS)}", width)]
    return "".join(f"{line}\n" for line in lines)
