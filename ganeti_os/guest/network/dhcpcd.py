# SPDX-License-Identifier: MIT
"""dhcpcd.conf: an interface that dhcpcd configures without asking a server."""

from __future__ import annotations

import re
from collections.abc import Iterator

from ganeti_os.guest.facts.addresses import Interface
from ganeti_os.guest.network.files import NetworkFiles
from pydiskimg.system.edits.span import Span

_PATH = "/etc/dhcpcd.conf"
_LINE = re.compile(
    rb"^[ \t]*+(?:(?P<block>interface|profile|ssid)[ \t]++(?P<name>\S++)"
    rb"|static[ \t]++(?P<key>[a-z0-9_]++)[ \t]*+=[ \t]*+(?P<value>\S++)"
    rb"|(?P<inform>inform6?)[ \t]++(?P<address>\S++))",
    re.MULTILINE,
)
_KINDS = {
    b"ip_address": "address",
    b"ip6_address": "address",
    b"subnet_mask": "netmask",
    b"broadcast_address": "broadcast",
    b"routers": "gateway",
}


def dhcpcd_interfaces(files: NetworkFiles) -> Iterator[Interface]:
    """Yield each block `interface` or `profile`; lines before them are for every interface."""
    if not files.is_file(_PATH):
        return
    found = [Interface("any")]
    for line in _LINE.finditer(files.read(_PATH)):
        if line.group("block"):
            found.append(Interface(line.group("name").decode("latin-1")))
        elif line.group("inform"):
            found[-1].add(_PATH, "address", Span.of(line, "address"))
        elif kind := _KINDS.get(line.group("key")):
            found[-1].add(_PATH, kind, Span.of(line, "value"))
    yield from (interface for interface in found if interface.addresses)
