# SPDX-License-Identifier: MIT
"""Assignments in the files that a guest's boot scripts source: found and replaced in place, never evaluated."""

from __future__ import annotations

import re
from collections.abc import Container
from dataclasses import dataclass

from pydiskimg.system.edits.span import Span

# Possessive: a line of a million blanks must not be tried a million times.
_ASSIGNMENT = re.compile(rb"^[ \t]*+(?:export[ \t]++)?([A-Za-z_][A-Za-z0-9_]*+)=", re.MULTILINE)
_VALUE = re.compile(
    rb"(?:\"(?P<double>[^\"\\$`\r\n]*+)\"|'(?P<single>[^'\r\n]*+)'|(?P<bare>[A-Za-z0-9._:/%@+,-]*+))"
    rb"[ \t]*+(?:;[ \t]*+)?(?:(?<=[ \t;])#[^\n]*+)?\r?(?:\n|\Z)"
)


@dataclass(frozen=True, slots=True)
class ShellValue:
    """An assignment to name in a line. span is the value inside its quotes, or None if it is not plain text."""

    name: str
    span: Span | None


def shell_values(data: bytes, names: Container[str]) -> list[ShellValue]:
    """Return the assignments to names, one a line, in the order of the file."""
    found = []
    for match in _ASSIGNMENT.finditer(data):
        name = match.group(1).decode("ascii")
        if name in names:
            value = _VALUE.match(data, match.end())
            span = Span.of(value, value.lastgroup) if value and value.lastgroup else None
            found.append(ShellValue(name, span))
    return found
