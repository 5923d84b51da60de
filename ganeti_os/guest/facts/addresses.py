# SPDX-License-Identifier: MIT
"""A static address in a guest's files, in a form common to all their formats."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from ipaddress import IPv4Network, IPv6Network

from pydiskimg.system.edits.ip_address import IPAddress, parse_address
from pydiskimg.system.edits.span import Span
from pydiskimg.text import printable

DEFAULT_ROUTES = frozenset({b"default", b"0.0.0.0/0", b"::/0", b"0.0.0.0/0.0.0.0", b"0/0"})
_LOOPBACK = "lo"
_PREFIX_DIGITS = 3
_SHOWN = 64  # characters
_DIGITS = re.compile("([0-9]+)")
_MAC = re.compile(rb"[0-9A-Fa-f]{2}(?:[:-][0-9A-Fa-f]{2}){5}")


@dataclass(frozen=True, slots=True)
class Field:
    """A value in a file: kind is address, prefix, netmask, network, broadcast, gateway or mac.

    group is the same for an address and its other fields, if an interface's addresses are numbered. owner is the
    address that a prefix follows.
    """

    path: str
    kind: str
    span: Span
    group: str = ""
    owner: bytes | None = None


@dataclass(slots=True)
class Interface:
    """One stanza, section or file about an interface. addresses and others are empty if it is not static.

    macs are those by which the interface is matched. names_only: it only names the interface, or repeats other files,
    and so decides nothing.
    """

    name: str
    addresses: list[Field] = field(default_factory=list)
    others: list[Field] = field(default_factory=list)
    macs: list[Field] = field(default_factory=list)
    names_only: bool = False

    @property
    def device(self) -> str:
        """The name without the number of an alias: eth0:1 is another address of eth0."""
        return self.name.partition(":")[0]

    @property
    def shown(self) -> str:
        """The device's name for a message: the guest may give it any name."""
        return printable(self.device, limit=_SHOWN)

    @property
    def is_loopback(self) -> bool:
        return self.device == _LOOPBACK

    def add(self, path: str, kind: str, span: Span, group: str = "") -> None:
        """Add a value; an address may be followed by its prefix. A value that is not an address is skipped."""
        if kind == "mac":
            self.macs += [Field(path, kind, mac) for mac in mac_spans(span)]
            return
        text, slash, mask = span.text.partition(b"%" if kind == "gateway" else b"/")  # fe80::1%eth0
        address = parse_address(text)
        if kind == "address" and address is not None and address.is_unspecified:  # networkd takes one from a pool
            return
        if kind in ("address", "gateway") and slash:
            if kind == "address" and address is not None:
                self._add_mask(path, Span(span.end - len(mask), span.end, mask), group, text)
            span = Span(span.start, span.start + len(text), text)
        if kind in ("prefix", "netmask"):
            self._add_mask(path, span, group, None)
        elif parse_address(span.text) is not None:
            (self.addresses if kind == "address" else self.others).append(Field(path, kind, span, group))

    def _add_mask(self, path: str, span: Span, group: str, owner: bytes | None) -> None:
        """Add the length of a network's prefix, in either form."""
        if span.text.isdigit() and len(span.text) <= _PREFIX_DIGITS:
            self.others.append(Field(path, "prefix", span, group, owner))
        elif parse_address(span.text) is not None:
            self.others.append(Field(path, "netmask", span, group, owner))

    def reaches(self, gateway: IPAddress) -> bool:
        """True if the gateway is in the network of an address, according to a prefix or netmask."""
        masks = [field.span.text for field in self.others if field.kind in ("prefix", "netmask")]
        return any(gateway in network for field in self.addresses for network in _networks(field.span.text, masks))

    def of_family(self, version: int) -> set[IPAddress]:
        """Return the different addresses of one family."""
        found = (parse_address(field.span.text) for field in self.addresses)
        return {address for address in found if address is not None and address.version == version}

    def belonging(self, old: IPAddress) -> Iterator[Field]:
        """Yield the address's own fields, and the gateways of its family."""
        for one in [*self.addresses, *self.others]:
            if self._belongs(one, old):
                yield one

    def _belongs(self, one: Field, old: IPAddress) -> bool:
        address = parse_address(one.span.text)
        if one.kind == "address":
            return address == old
        if one.kind == "gateway":
            return address is not None and address.version == old.version
        if one.owner is not None:
            return parse_address(one.owner) == old
        group = [field for field in self.addresses if field.group == one.group] or self.addresses
        found = [parsed for field in group if (parsed := parse_address(field.span.text)) is not None]
        # A number alone: of the stanza's first family.
        version = address.version if address is not None else min((each.version for each in found), default=0)
        return version == old.version and {each for each in found if each.version == version} == {old}


def mac_spans(span: Span) -> Iterator[Span]:
    """Yield the hardware addresses in a list of them."""
    for word in re.finditer(rb"[^\s;,\"']++", span.text):
        if _MAC.fullmatch(word[0]):
            yield Span(span.start + word.start(), span.start + word.end(), word[0])


def _networks(address: bytes, masks: list[bytes]) -> Iterator[IPv4Network | IPv6Network]:
    for mask in masks:
        with suppress(ValueError):
            yield ipaddress.ip_interface(f"{address.decode('ascii')}/{mask.decode('latin-1')}").network


def natural_order(name: str) -> list[tuple[int, str]]:
    """Return a key that sorts eth10 after eth2."""
    return [(int(part[:9]), part) if part.isdigit() else (0, part) for part in _DIGITS.split(name)]
