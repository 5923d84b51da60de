# SPDX-License-Identifier: MIT
"""Lines KEY=VALUE in [sections], as systemd-networkd and NetworkManager write them."""

from __future__ import annotations

import re
from collections.abc import Iterator

from ganeti_os.guest.span import Span

_LINE = re.compile(
    rb"^[ \t]*+(?:\[(?P<section>[^\]\r\n]*+)\]|(?P<key>[A-Za-z0-9_.-]++)[ \t]*+=[ \t]*+(?P<value>[^\r\n]*+))",
    re.MULTILINE,
)


def ini_values(data: bytes) -> Iterator[tuple[str, str, Span]]:
    """Yield (section, key, value) in the order of the file, section and key in lower case."""
    section = ""
    for match in _LINE.finditer(data):
        if match.group("section") is not None:
            section = match.group("section").decode("latin-1").lower()
            continue
        text = match.group("value").rstrip()
        start = match.start("value")
        yield section, match.group("key").decode("ascii").lower(), Span(start, start + len(text), text)
