# SPDX-License-Identifier: MIT
"""conf.d/net of Gentoo's netifrc: config_NAME="ADDRESS ..." and routes_NAME="default via ..."."""

from __future__ import annotations

import re
from collections.abc import Iterator

from ganeti_os.guest.facts.addresses import DEFAULT_ROUTES, Interface
from ganeti_os.guest.network.files import NetworkFiles
from pydiskimg.system.edits.ip_address import parse_address
from pydiskimg.system.edits.span import Span

_PATH = "/etc/conf.d/net"
# Bounded: a guest may open a hundred thousand of them and close none.
_VALUE = re.compile(
    rb"^[ \t]*+(config|routes)_([A-Za-z0-9_]++)\+?=[ \t]*+"
    rb"(\([^)]{0,4096}+\)|\"[^\"]{0,4096}+\"|'[^']{0,4096}+'|[^\s\"'()#;]{1,128}+)",
    re.MULTILINE,
)
_WORD = re.compile(rb"(?:^|(?<=[\s(]))#[^\n]*+|[^\s\"'()]++", re.MULTILINE)
_KINDS = {b"netmask": "netmask", b"broadcast": "broadcast", b"brd": "broadcast"}


def gentoo_interfaces(files: NetworkFiles) -> Iterator[Interface]:
    """Yield each interface that has a config_NAME; addresses in variables are not found."""
    if not files.is_file(_PATH):
        return
    data = files.read(_PATH)
    interfaces: dict[bytes, Interface] = {}
    values = list(_VALUE.finditer(data))
    for value in values:
        if value.group(1) == b"config":
            interface = interfaces.setdefault(value.group(2), Interface(value.group(2).decode("ascii")))
            _add_config(interface, _words(data, value))
    for value in values:
        if value.group(1) == b"routes" and value.group(2) in interfaces:
            words = _words(data, value)
            for before, via, gateway in zip(words, words[1:], words[2:], strict=False):
                if before.text in DEFAULT_ROUTES and via.text in (b"via", b"gw"):
                    interfaces[value.group(2)].add(_PATH, "gateway", gateway)
    yield from interfaces.values()


def _words(data: bytes, value: re.Match[bytes]) -> list[Span]:
    """Return the words of a value without its comments."""
    found = (Span.of(word) for word in _WORD.finditer(data, *value.span(3)))
    return [word for word in found if not word.text.startswith(b"#")]


def _add_config(interface: Interface, words: list[Span]) -> None:
    previous = b""
    for word in words:
        kind = _KINDS.get(previous)
        if kind is not None:
            interface.add(_PATH, kind, word)
        elif parse_address(word.text.partition(b"/")[0]) is not None:
            interface.add(_PATH, "address", word)
        previous = word.text
