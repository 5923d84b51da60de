# SPDX-License-Identifier: MIT
"""*.network of systemd-networkd, and the keyfiles of NetworkManager: sections that name addresses."""

from __future__ import annotations

import re
from collections.abc import Iterator

from ganeti_os.guest.draft import Draft
from ganeti_os.guest.network.addresses import Interface
from ganeti_os.guest.network.ini import ini_values
from ganeti_os.guest.network.span import Span

_NETWORKD = {
    ("network", "address"): "address",
    ("address", "address"): "address",
    ("network", "gateway"): "gateway",
}
_DEFAULT = (b"0.0.0.0/0", b"::/0")
# ADDRESS/PREFIX,GATEWAY in a keyfile; to NetworkManager "/", "," and ";" are one as good as the other there.
_ADDRESS_KEY = re.compile(r"address(?:es)?[0-9]*+")
_WORD = re.compile(rb"[^/;,\s]++")


def networkd_interfaces(draft: Draft) -> Iterator[Interface]:
    """Yield each *.network file as one interface; it is named by [Match] Name=, or by the file."""
    for path in draft.files("/etc/systemd/network", "*.network"):
        interface = Interface(path.rpartition("/")[2].removesuffix(".network"))
        routes: dict[int, dict[str, Span]] = {}
        for number, section, key, span in ini_values(draft.read(path) or b""):
            if (section, key) == ("match", "name"):
                interface.name = span.text.decode("latin-1")
            elif section == "route":
                routes.setdefault(number, {})[key] = span
            elif kind := _NETWORKD.get((section, key)):
                interface.add(path, kind, span)
        for route in routes.values():
            if "gateway" in route and ("destination" not in route or route["destination"].text in _DEFAULT):
                interface.add(path, "gateway", route["gateway"])
        yield interface


def keyfile_interfaces(draft: Draft) -> Iterator[Interface]:
    """Yield each connection as one interface; it is named by interface-name=, or by the file."""
    for path in draft.files("/etc/NetworkManager/system-connections", "*"):
        interface = Interface(path.rpartition("/")[2].removesuffix(".nmconnection"))
        for _, section, key, span in ini_values(draft.read(path) or b""):
            if (section, key) == ("connection", "interface-name"):
                interface.name = span.text.decode("latin-1")
            elif section in ("ipv4", "ipv6"):
                _add(interface, path, key, span)
        yield interface


def _add(interface: Interface, path: str, key: str, span: Span) -> None:
    if key == "gateway":
        interface.add(path, "gateway", span)
    elif _ADDRESS_KEY.fullmatch(key):
        words = [
            Span(span.start + match.start(), span.start + match.end(), match[0]) for match in _WORD.finditer(span.text)
        ]
        has_prefix = len(words) > 1 and words[1].text.isdigit()
        kinds = ("address", "prefix", "gateway") if has_prefix else ("address", "gateway")
        for kind, word in zip(kinds, words, strict=False):
            interface.add(path, kind, word)
