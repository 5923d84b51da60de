# SPDX-License-Identifier: MIT
"""A static address as a guest's files configure it, whatever their format."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network

from ganeti_os.guest.network.span import Span

IPAddress = IPv4Address | IPv6Address

_LOOPBACK = "lo"
_DIGITS = re.compile("([0-9]+)")


@dataclass(frozen=True, slots=True)
class Field:
    """A value in a file: kind is address, prefix, netmask, network, broadcast or gateway."""

    path: str
    kind: str
    span: Span


@dataclass(slots=True)
class Interface:
    """One stanza, section or file about an interface. addresses and others are empty where it is not static."""

    name: str
    addresses: list[Field] = field(default_factory=list)
    others: list[Field] = field(default_factory=list)

    @property
    def device(self) -> str:
        """The name without the number of an alias: eth0:1 is one more address of eth0."""
        return self.name.partition(":")[0]

    @property
    def is_loopback(self) -> bool:
        return self.device == _LOOPBACK

    def add(self, path: str, kind: str, span: Span) -> None:
        """Note a value; an address may be followed by its prefix. What is no address is left out."""
        if kind == "netmask" and span.text.isdigit():
            kind = "prefix"
        text, slash, prefix = span.text.partition(b"/")
        if kind in ("address", "gateway") and parse_address(text) is None:
            return
        if kind == "address" and slash:
            start = span.start + len(text) + 1
            self.others.append(Field(path, "prefix", Span(start, span.end, prefix)))
            span = Span(span.start, span.start + len(text), text)
        (self.addresses if kind == "address" else self.others).append(Field(path, kind, span))

    def reaches(self, gateway: IPAddress) -> bool:
        """True when the gateway lies in the network of an address, by what a prefix or netmask tells."""
        masks = [field.span.text for field in self.others if field.kind in ("prefix", "netmask")]
        return any(gateway in network for field in self.addresses for network in _networks(field.span.text, masks))


def _networks(address: bytes, masks: list[bytes]) -> Iterator[IPv4Network | IPv6Network]:
    for mask in masks:
        with suppress(ValueError):
            yield ipaddress.ip_interface(f"{address.decode('ascii')}/{mask.decode('latin-1')}").network


def parse_address(text: bytes | str) -> IPAddress | None:
    """Return the address that a text spells, None when it is none."""
    if len(text) > 45:
        return None
    try:
        return ipaddress.ip_address(text.decode("ascii") if isinstance(text, bytes) else text)
    except (ValueError, UnicodeDecodeError):
        return None


def natural_order(name: str) -> list[tuple[int, str]]:
    """Sort eth10 behind eth2."""
    return [(int(part[:9]), part) if part.isdigit() else (0, part) for part in _DIGITS.split(name)]
