# SPDX-License-Identifier: MIT
"""Choose the static address of a guest that a NIC's new address replaces."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass

from ganeti_os.guest.facts.addresses import Field, Interface, natural_order
from ganeti_os.guest.facts.nics import NewAddress, NicNetwork
from ganeti_os.guest.facts.tokens import plain_mac
from ganeti_os.guest.network.files import NetworkFiles
from ganeti_os.guest.network.macs import KERNEL_NAME
from pydiskimg.system.edits.ip_address import IPAddress, parse_address

log = logging.getLogger(__name__)

_TOLD = 8  # addresses in one message


@dataclass(frozen=True, slots=True)
class Choice:
    """The address old becomes new in these fields, which include its prefix and gateway."""

    name: str
    old: IPAddress
    new: NewAddress
    fields: tuple[Field, ...]


@dataclass(frozen=True, slots=True)
class Chooser:
    """found are the guest's interfaces; by_mac are the names of those that the guest matches by hardware address.

    named are the addresses of the system's old name in /etc/hosts: of several, one of these is its own.
    """

    files: NetworkFiles
    found: list[Interface]
    nic_count: int
    by_mac: Mapping[str, set[str]]
    named: frozenset[IPAddress] = frozenset()

    def choose(self, nic: NicNetwork, new: NewAddress, *, old: IPAddress | None) -> Choice | None:
        """Return the replacement by the new address; None if it is already there, or in doubt.

        old is the address that the NIC is known to have had.
        """
        version = new.address.version
        static = [interface for interface in self.found if not interface.names_only and interface.of_family(version)]
        if old is not None and old != new.address:
            known = [interface for interface in static if old in interface.of_family(version)]
            if known:
                return self._choice(known, old, new)
        own, is_certain = self._own(nic, static)
        addresses = {address for interface in own for address in interface.of_family(version)}
        if not addresses or new.address in addresses:
            return None
        if len(addresses & self.named) == 1:
            addresses &= self.named
        if self.nic_count > 1 and not is_certain:
            self._warn(own, nic, new, "it is not clear which of the guest's interfaces is that NIC")
        elif len(addresses) > 1:
            self._warn(own, nic, new, f"{own[0].shown} has {len(addresses)} addresses")
        else:
            (found,) = addresses
            return self._choice([item for item in own if found in item.of_family(version)], found, new)
        return None

    def _own(self, nic: NicNetwork, static: list[Interface]) -> tuple[list[Interface], bool]:
        """Return the interfaces that may be the NIC, and whether one of them certainly is."""
        names = self._names(nic, static)
        own = [interface for interface in static if names is None or interface.device in names]
        if own or not self._by_mac(nic):
            return own, names is not None
        return [interface for interface in static if not self._is_told_by_mac(interface)], False

    def _by_mac(self, nic: NicNetwork) -> set[str]:
        return self.by_mac.get(plain_mac(nic.mac or ""), set())

    def _is_told_by_mac(self, interface: Interface) -> bool:
        """True for an interface that the guest matches by hardware address; a bridge over it then has the addresses."""
        return any(interface.device in names for names in self.by_mac.values())

    def _choice(self, chosen: list[Interface], old: IPAddress, new: NewAddress) -> Choice:
        copies = [item for item in self.found if item.names_only and old in item.of_family(old.version)]
        fields = [one for interface in [*chosen, *copies] for one in interface.belonging(old)]
        devices = {interface.device for interface in chosen}
        for interface in self.found:  # a stanza or file with only the gateway
            if interface.device in devices and interface not in chosen and not interface.of_family(old.version):
                gateways = (one for one in interface.belonging(old) if one.kind == "gateway")
                fields += gateways
        return Choice(chosen[0].shown, old, new, tuple(dict.fromkeys(fields)))

    def _names(self, nic: NicNetwork, static: list[Interface]) -> set[str] | None:
        """Return the names of the interface that is a NIC, None if any may be or none is known.

        The hardware address decides, else the kernel's own names, else the order if there is one for each NIC.
        """
        names = self._by_mac(nic)
        if names and (self.nic_count > 1 or any(interface.device in names for interface in static)):
            return names
        if self.nic_count <= 1:
            return None
        devices = {interface.device for interface in self.found if not interface.names_only}
        ordered = sorted(devices, key=natural_order)
        if all(map(KERNEL_NAME.fullmatch, ordered)):
            return {f"eth{nic.index}"} if f"eth{nic.index}" in devices else None
        return {ordered[nic.index]} if len(ordered) == self.nic_count and nic.index < self.nic_count else None

    def _warn(self, static: list[Interface], nic: NicNetwork, new: NewAddress, why: str) -> None:
        version = new.address.version
        fields = [one for item in static for one in item.addresses if _is_of(one, version)]
        told = fields[:_TOLD]
        listed = [f"{self.files.location(one.path, one.span.start)}: {one.span.text.decode()}" for one in told]
        more = f" and {len(fields) - _TOLD} more" if len(fields) > _TOLD else ""
        log.warning("NIC %d has %s now, but %s; unchanged: %s%s", nic.index, new.address, why, ", ".join(listed), more)


def _is_of(one: Field, version: int) -> bool:
    address = parse_address(one.span.text)
    return address is not None and address.version == version
