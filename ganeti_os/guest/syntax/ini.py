# SPDX-License-Identifier: MIT
"""Lines KEY=VALUE in [sections], as systemd-networkd and NetworkManager write them."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from pydiskimg.system.edits.span import Span

# systemd continues a line that ends with a backslash.
_LINE = re.compile(
    rb"^[ \t]*+(?:\[(?P<section>[^\]\r\n]*+)\]"
    rb"|(?P<key>[A-Za-z0-9_.-]++)[ \t]*+=(?:[ \t]|\\\r?\n)*+(?P<value>(?:[^\r\n\\]|\\(?!\r?\n)|\\\r?\n)*+))",
    re.MULTILINE,
)


@dataclass(frozen=True, slots=True)
class IniValue:
    """number counts the sections, of which several may have one name; section and key are in lower case."""

    number: int
    section: str
    key: str
    span: Span


def ini_values(data: bytes) -> Iterator[IniValue]:
    """Yield the assignment in each line, in the order of the file."""
    number, section = 0, ""
    for match in _LINE.finditer(data):
        if match.group("section") is not None:
            number += 1
            section = match.group("section").decode("latin-1").lower()
            continue
        text = match.group("value").rstrip()
        start = match.start("value")
        key = match.group("key").decode("ascii").lower()
        yield IniValue(number, section, key, Span(start, start + len(text), text))
