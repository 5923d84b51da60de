# SPDX-License-Identifier: MIT
"""Lines KEY=VALUE in [sections], as systemd-networkd and NetworkManager write them."""

from __future__ import annotations

import re
from collections.abc import Iterator

from ganeti_os.guest.network.span import Span

_LINE = re.compile(
    rb"^[ \t]*+(?:\[(?P<section>[^\]\r\n]*+)\]|(?P<key>[A-Za-z0-9_.-]++)[ \t]*+=[ \t]*+(?P<value>[^\r\n]*+))",
    re.MULTILINE,
)


def ini_values(data: bytes) -> Iterator[tuple[int, str, str, Span]]:
    """Yield (number, section, key, value) in the order of the file, section and key in lower case.

    number counts the sections, of which several may have one name.
    """
    number, section = 0, ""
    for match in _LINE.finditer(data):
        if match.group("section") is not None:
            number += 1
            section = match.group("section").decode("latin-1").lower()
            continue
        text = match.group("value").rstrip()
        start = match.start("value")
        key = match.group("key").decode("ascii").lower()
        yield number, section, key, Span(start, start + len(text), text)
