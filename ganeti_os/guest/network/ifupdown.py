# SPDX-License-Identifier: MIT
"""interfaces(5) of Debian's ifupdown."""

from __future__ import annotations

import re
from collections.abc import Iterator

from ganeti_os.guest.draft import Draft
from ganeti_os.guest.network.addresses import Interface
from ganeti_os.guest.network.span import Span

_LINE = re.compile(rb"^[ \t]*+([^#\s][^\n]*+)", re.MULTILINE)
_WORD = re.compile(rb"\S++")
_STARTS = (b"iface", b"auto", b"mapping", b"source", b"source-directory", b"no-auto-down", b"no-scripts", b"template")
_KINDS = ("address", "netmask", "network", "broadcast", "gateway")


def ifupdown_interfaces(draft: Draft) -> Iterator[Interface]:
    """Yield a stanza `iface` as one interface each."""
    paths = [*draft.files("/etc/network", "interfaces"), *draft.files("/etc/network/interfaces.d", "*")]
    for path in paths:
        yield from _stanzas(path, draft.read(path) or b"")


def _stanzas(path: str, data: bytes) -> Iterator[Interface]:
    stanza: Interface | None = None
    static = False
    for line in _LINE.finditer(data):
        words = [Span.of(word) for word in _WORD.finditer(data, *line.span(1))]
        keyword = words[0].text
        if keyword in _STARTS or keyword.startswith(b"allow-"):
            if stanza is not None:
                yield stanza
            stanza = None
            if keyword == b"iface" and len(words) > 3:
                stanza = Interface(words[1].text.decode("latin-1"))
                static = words[3].text == b"static"
        elif stanza is not None and static and len(words) > 1 and keyword.decode("latin-1") in _KINDS:
            stanza.add(path, keyword.decode("ascii"), words[1])
    if stanza is not None:
        yield stanza
