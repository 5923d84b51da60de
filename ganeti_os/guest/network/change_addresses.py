# SPDX-License-Identifier: MIT
"""Replace the guest's static addresses if it is certain which belongs to which NIC; otherwise only warn."""

from __future__ import annotations

import ipaddress
import logging
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import chain

from ganeti_os.guest.facts.addresses import Field, Interface
from ganeti_os.guest.facts.nics import NewAddress, NicNetwork
from ganeti_os.guest.facts.tokens import SpanSet, address_tokens, comments, like, mac_tokens
from ganeti_os.guest.network.address_choice import Choice, Chooser
from ganeti_os.guest.network.dhcpcd import dhcpcd_interfaces
from ganeti_os.guest.network.files import NetworkFiles
from ganeti_os.guest.network.gentoo import gentoo_interfaces
from ganeti_os.guest.network.ifcfg import ifcfg_interfaces
from ganeti_os.guest.network.ifupdown import ifupdown_interfaces
from ganeti_os.guest.network.keyfile import keyfile_interfaces
from ganeti_os.guest.network.macs import devices_by_mac, moved_macs
from ganeti_os.guest.network.netplan import installer_interfaces, netplan_interfaces
from ganeti_os.guest.network.networkd import networkd_interfaces
from ganeti_os.guest.network.replacements import Edits
from ganeti_os.guest.network.udev import udev_names
from pydiskimg.system.edits.draft import Draft
from pydiskimg.system.edits.ip_address import IPAddress, parse_address
from pydiskimg.system.edits.span import Span

log = logging.getLogger(__name__)

_FORMATS = (
    ifupdown_interfaces,
    ifcfg_interfaces,
    networkd_interfaces,
    netplan_interfaces,
    installer_interfaces,
    keyfile_interfaces,
    gentoo_interfaces,
    dhcpcd_interfaces,
    udev_names,
)
# Read word by word: an address that is known to have moved is replaced here, too.
_MORE = (
    ("/etc/wicked/ifconfig", "*.xml"),
    ("/etc/netctl", "*"),
    ("/etc/conf.d", "network"),
    ("/etc/conf.d", "staticroute"),
    ("/etc", "ifconfig.*"),
    ("/etc/sysconfig/networking/devices", "ifcfg-*"),
    ("/etc/sysconfig/static-routes", "*"),
    ("/etc/sysconfig", "static-routes*"),
)
_LIMIT = 1000  # addresses, prefixes, gateways; a guest with more is not processed


@dataclass(frozen=True, slots=True)
class Moved:
    """addresses are the replaced ones with their new ones, in the guest's spelling; paths the files that had them.

    old_addresses and old_macs (in lower case, with colons) are those that the instance no longer has. searched are the
    files that were read for them.
    """

    addresses: Mapping[bytes, bytes] = field(default_factory=dict)
    paths: frozenset[str] = frozenset()
    old_addresses: frozenset[IPAddress] = frozenset()
    old_macs: frozenset[str] = frozenset()
    searched: tuple[str, ...] = ()


def change_addresses(
    draft: Draft,
    nics: Sequence[NicNetwork],
    *,
    old: IPAddress | None = None,
    named: frozenset[IPAddress] = frozenset(),
) -> Moved:
    """Replace the guest's static addresses by the new ones, and a NIC's former hardware address by its own.

    old is the address that NIC 0 is known to have had, if any; named are those that /etc/hosts gives the system's old
    name. An address that stays is logged with the reason; no contents of a file raise an error.
    """
    files = NetworkFiles(draft)
    found = [item for item in chain.from_iterable(read(files) for read in _FORMATS) if not item.is_loopback]
    for directory, pattern in _MORE:
        for path in files.files(directory, pattern):
            files.read(path)
    if sum(len(item.addresses) + len(item.others) + len(item.macs) for item in found) > _LIMIT:
        log.warning(
            "the guest's files contain more than %d addresses, prefixes and gateways; none of them is changed", _LIMIT
        )
        return Moved(old_addresses=_gone(nics, {old} if old else set()), searched=tuple(files.paths))
    return _Change(draft, files, found, nics, old, named).run()


def _gone(nics: Sequence[NicNetwork], old: set[IPAddress]) -> frozenset[IPAddress]:
    """Return the old addresses that are not one of the instance's now."""
    return frozenset(old - {new.address for nic in nics for new in nic.addresses})


@dataclass(slots=True)
class _Change:
    """One run: which addresses move, then what is written to which file."""

    draft: Draft
    files: NetworkFiles
    found: list[Interface]
    nics: Sequence[NicNetwork]
    old: IPAddress | None
    named: frozenset[IPAddress]
    moved: dict[bytes, bytes] = field(default_factory=dict)
    words: dict[IPAddress, NewAddress] = field(default_factory=dict)
    prefixes: dict[IPAddress, int] = field(default_factory=dict)

    def run(self) -> Moved:
        edits = Edits(self.files)
        macs = moved_macs(self.files, self.found, self.nics)
        choices = self._choices(macs)
        chosen: set[tuple[str, Span]] = set()
        for choice in choices:
            chosen |= self._write(edits, choice)
        self._note_known()
        kept = {(one.path, one.span) for item in self.found for one in item.addresses} - chosen
        for path in self.files.paths:
            if path not in self.files.kept:
                self._write_words(edits, path, macs, SpanSet((s.start, s.end) for at, s in kept if at == path))
        paths = edits.apply(self.draft)
        old = _gone(self.nics, {*self.words, *({self.old} if self.old else ())})
        return Moved(self.moved, paths, old, frozenset(macs), tuple(self.files.paths))

    def _choices(self, macs: dict[str, str]) -> list[Choice]:
        static = {one.span.text.decode() for interface in self.found for one in interface.addresses}
        if static and not any(nic.addresses for nic in self.nics):
            log.info("the guest keeps its static addresses (%s): no new one is known", ", ".join(sorted(static)))
        by_mac = devices_by_mac(self.found, macs)
        chooser = Chooser(self.files, self.found, len(self.nics), by_mac, self.named)
        pairs = [(nic, new) for nic in self.nics for new in nic.addresses]
        choices = [chooser.choose(nic, new, old=self.old if nic.index == 0 else None) for nic, new in pairs]
        return [choice for choice in choices if choice is not None]

    def _write(self, edits: Edits, choice: Choice) -> set[tuple[str, Span]]:
        """Write a new address with its network and gateway; return the locations of the address."""
        values = _values(choice.new)
        _warn_of_another_network(choice, self.files)
        locations = set()
        for one in choice.fields:
            if one.kind == "address":
                locations.add((one.path, one.span))
                self.moved[one.span.text] = values["address"]
                self.words[choice.old] = choice.new
            if one.kind == "prefix" and one.span.text.isdigit():
                self.prefixes[choice.old] = int(one.span.text[:4])
            if one.kind in values:
                note = f"{one.span.text.decode('latin-1')} is now {values[one.kind].decode()}"
                edits.replace(one.path, one.span, values[one.kind], note if one.kind == "address" else one.kind)
        return locations

    def _note_known(self) -> None:
        """Replace the address that NIC 0 is known to have had also where only words identify it."""
        for nic in self.nics:
            for new in nic.addresses if nic.index == 0 else ():
                if self.old is not None and self.old.version == new.address.version and self.old != new.address:
                    self.words.setdefault(self.old, new)
                    self.moved.setdefault(str(self.old).encode("ascii"), str(new.address).encode("ascii"))

    def _write_words(self, edits: Edits, path: str, macs: dict[str, str], kept: SpanSet) -> None:
        """Replace moved addresses wherever a network file has them, except in comments and for other interfaces."""
        data = self.files.read(path)
        taken, remarks = edits.taken(path), comments(data)
        for token in address_tokens(data, self.words):
            start = token.span.start
            if start in taken or start in remarks or start in kept:
                continue
            new = self.words[token.address]
            text = str(new.address).encode("ascii")
            edits.replace(path, token.span, text, f"{token.span.text.decode()} is now {new.address}")
            is_prefix = token.prefix is not None and int(token.prefix.text) == self.prefixes.get(token.address)
            if token.prefix is not None and is_prefix and new.network is not None:
                edits.replace(path, token.prefix, str(new.network.prefixlen).encode("ascii"), "prefix")
        for span, mac in mac_tokens(data, macs):
            if span.start not in remarks:
                edits.replace(path, span, like(macs[mac], span.text), f"{span.text.decode()} is now {macs[mac]}")


def _values(new: NewAddress) -> dict[str, bytes]:
    """Return the new value of each kind of field; unknown ones are left out."""
    values: dict[str, object] = {"address": new.address}
    if new.network is not None:
        values |= {
            "prefix": new.network.prefixlen,
            "netmask": new.network.netmask,
            "network": new.network.network_address,
            "broadcast": new.network.broadcast_address,
        }
    if new.gateway is not None:
        values["gateway"] = new.gateway
    return {kind: str(value).encode("ascii") for kind, value in values.items()}


def _warn_of_another_network(choice: Choice, files: NetworkFiles) -> None:
    """Warn of a netmask or gateway that may be wrong now, because no new one is known."""
    new = choice.new
    masks = [one for one in choice.fields if one.kind in ("prefix", "netmask")]
    network = None
    with suppress(ValueError, IndexError):
        network = ipaddress.ip_interface(f"{choice.old}/{masks[0].span.text.decode('latin-1')}").network
    if new.network is None:
        if network is not None and new.address not in network:
            text = "%s: %s is not in %s, and its network is not known; the netmask and gateway are kept"
            log.warning(text, choice.name, new.address, network)
        return
    for one in choice.fields:
        gateway = parse_address(one.span.text) if one.kind == "gateway" else None
        if gateway is None or gateway.is_link_local:
            continue
        location = files.location(one.path, one.span.start)
        if new.gateway is None and gateway not in new.network:
            text = "%s: the gateway %s is kept, although it is not in %s: no other one is known"
            log.warning(text, location, gateway, new.network)
        elif _needs_route(one, new, was_inside=network is not None and gateway in network):
            text = "%s: the gateway %s is not in %s; the file must say that it is on the link"
            log.warning(text, location, new.gateway, new.network)


def _needs_route(one: Field, new: NewAddress, *, was_inside: bool) -> bool:
    """True for a gateway outside of its network; NetworkManager makes a route to it by itself."""
    is_outside = new.gateway is not None and new.network is not None and new.gateway not in new.network
    is_link_local = new.gateway is not None and new.gateway.is_link_local
    return is_outside and not is_link_local and was_inside and "/NetworkManager/" not in one.path
