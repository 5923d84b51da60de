# SPDX-License-Identifier: MIT
"""Replace pieces of a file, while every other byte stays."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, order=True)
class Span:
    """text is what lies from start to end (bytes) of a file's contents."""

    start: int
    end: int
    text: bytes

    @classmethod
    def of(cls, match: re.Match[bytes], group: int | str = 0) -> Span:
        """Return the location of a group of a match; the group must have matched."""
        return cls(match.start(group), match.end(group), match.group(group))


def substituted(data: bytes, replacements: Iterable[tuple[Span, bytes]]) -> bytes:
    """Return data with each span replaced; the spans do not overlap."""
    parts = []
    position = 0
    for span, new in sorted(replacements):
        parts += [data[position : span.start], new]
        position = span.end
    return b"".join([*parts, data[position:]])
