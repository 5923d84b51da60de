# SPDX-License-Identifier: MIT
"""NetworkManager's keyfiles, one connection each."""

from __future__ import annotations

import re
from collections.abc import Iterator

from ganeti_os.guest.facts.addresses import DEFAULT_ROUTES, Interface
from ganeti_os.guest.network.files import NetworkFiles
from ganeti_os.guest.syntax.ini import IniValue, ini_values
from pydiskimg.system.edits.span import Span

_DIRECTORIES = (
    "/etc/NetworkManager/system-connections",
    "/run/NetworkManager/system-connections",
    "/usr/lib/NetworkManager/system-connections",
)
# ADDRESS/PREFIX,GATEWAY and DESTINATION/PREFIX,GATEWAY,METRIC; "/", "," and ";" are interchangeable there.
_ADDRESS_KEY = re.compile(r"address(?:es)?[0-9]*+")
_ROUTE_KEY = re.compile(r"routes?[0-9]*+")
_WORD = re.compile(rb"[^/;,\s]++")
_HARDWARE = ("ethernet", "802-3-ethernet", "wifi", "802-11-wireless", "infiniband")


def keyfile_paths(files: NetworkFiles) -> list[str]:
    """Return the connections that NetworkManager reads."""
    return files.search_path(_DIRECTORIES, "*")


def keyfile_interfaces(files: NetworkFiles) -> Iterator[Interface]:
    """Yield each connection as one interface; it is named by interface-name=, or by the file."""
    for path in keyfile_paths(files):
        interface = Interface(path.rpartition("/")[2].removesuffix(".nmconnection"))
        for value in ini_values(files.read(path)):
            key = (value.section, value.key)
            if key == ("connection", "interface-name"):
                interface.name = value.span.text.decode("latin-1")
            elif value.key == "mac-address" and value.section in _HARDWARE:
                interface.add(path, "mac", value.span)
            elif value.section in ("ipv4", "ipv6"):
                _add(interface, path, value)
        yield interface


def _add(interface: Interface, path: str, value: IniValue) -> None:
    if value.key == "gateway":
        interface.add(path, "gateway", value.span)
    elif _ADDRESS_KEY.fullmatch(value.key):
        words = _words(value.span)
        if len(words) > 1 and words[1].text.isdigit():
            address, prefix, *gateway = words
            # One span for both, so that the prefix is known to belong to this address.
            if prefix.start == address.end + 1:
                interface.add(path, "address", Span(address.start, prefix.end, address.text + b"/" + prefix.text))
            else:
                interface.add(path, "address", address, value.key)
                interface.add(path, "prefix", prefix, value.key)
        else:
            address, *gateway = words or [value.span]
            interface.add(path, "address", address)
        for word in gateway[:1]:
            interface.add(path, "gateway", word)
    elif _ROUTE_KEY.fullmatch(value.key):
        words = _words(value.span)
        if len(words) > 2 and words[0].text + b"/" + words[1].text in DEFAULT_ROUTES:
            interface.add(path, "gateway", words[2])


def _words(span: Span) -> list[Span]:
    found = (Span(span.start + word.start(), span.start + word.end(), word[0]) for word in _WORD.finditer(span.text))
    return list(found)
