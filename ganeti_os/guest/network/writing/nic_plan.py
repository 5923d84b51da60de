# SPDX-License-Identifier: MIT
"""The plan for a NIC in any format, and how our files are distinguished from other people's."""

from __future__ import annotations

import ipaddress
import logging
from collections.abc import Iterable
from dataclasses import dataclass
from ipaddress import IPv4Interface, IPv6Interface

from ganeti_os.guest.facts.nics import NewAddress, NicNetwork, with_one_default_route
from ganeti_os.guest.facts.tokens import PLAIN_MAC, plain_mac
from pydiskimg.system.edits.draft import Draft
from pydiskimg.system.edits.ip_address import IPAddress

log = logging.getLogger(__name__)

HEADER = b"# Written by the Ganeti OS definition image, which replaces it when the instance is renamed.\n"


@dataclass(frozen=True, slots=True)
class StaticAddress:
    """An address with the length of its prefix, and the gateway of its family."""

    interface: IPv4Interface | IPv6Interface
    gateway: IPAddress | None = None

    @property
    def version(self) -> int:
        return self.interface.version

    @property
    def is_on_link(self) -> bool:
        """True if the gateway is reached on the link, although it is outside of the address's network."""
        gateway = self.gateway
        return gateway is not None and gateway not in self.interface.network and not gateway.is_link_local


@dataclass(frozen=True, slots=True)
class NicPlan:
    """The configuration of a NIC: its addresses, or DHCP if it has none. mac is in lower case, with colons."""

    index: int
    mac: str
    addresses: tuple[StaticAddress, ...] = ()
    name_servers: tuple[IPAddress, ...] = ()
    search: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """The interface's name in files that need one. Neither kernel nor udev gives it to another interface."""
        return f"nic{self.index}"

    @property
    def is_static(self) -> bool:
        return bool(self.addresses)

    def of_family(self, version: int) -> StaticAddress | None:
        return next((one for one in self.addresses if one.version == version), None)

    def servers(self, version: int) -> list[str]:
        """Return the name servers of one family."""
        return [str(one) for one in self.name_servers if one.version == version]


def nic_plans(nics: Iterable[NicNetwork]) -> tuple[NicPlan, ...]:
    """Return the plan for each NIC; one without a hardware address gets none, because the guest cannot identify it.

    An address without a known network or gateway is left out: with a wrong netmask the guest is not reachable, while
    DHCP may know the right one.
    """
    plans = []
    for nic in with_one_default_route(nics):
        mac = plain_mac(nic.mac or "")
        if PLAIN_MAC.fullmatch(mac):
            static = tuple(found for one in nic.addresses if (found := _static(nic.index, one)) is not None)
            plans.append(NicPlan(nic.index, mac, static, nic.name_servers, nic.search))
        elif nic.addresses:
            log.info("NIC %d: its MAC address is not known, so no network configuration is written for it", nic.index)
    return tuple(plans)


def _static(index: int, new: NewAddress) -> StaticAddress | None:
    if new.network is None and new.gateway is None:
        log.info(
            "NIC %d: the network of %s is not known, so it is not written into the guest; put the NIC into a network "
            "of Ganeti's, or a netmask into NETWORKS_DIR",
            index,
            new.address,
        )
        return None
    length = new.address.max_prefixlen if new.network is None else new.network.prefixlen
    gateway = new.gateway if new.gateway is not None and new.gateway.version == new.address.version else None
    return StaticAddress(ipaddress.ip_interface(f"{new.address}/{length}"), gateway)


def text_of(lines: Iterable[str]) -> bytes:
    """Return the contents of a file of these lines."""
    return "".join(f"{line}\n" for line in lines).encode("ascii")


def is_ours(draft: Draft, path: str) -> bool:
    """True for a file that begins with our line."""
    return (draft.read(path) or b"").startswith(HEADER)


def write_own_files(draft: Draft, files: dict[str, bytes], *, directory: str, pattern: str, mode: int = 0o644) -> None:
    """Write files with our line before their contents, and remove other matching ones of ours: for removed NICs."""
    for path in draft.files(directory, pattern):
        if path not in files and is_ours(draft, path):
            draft.remove(path, "taken away: it is for a NIC that the instance no longer has")
    for path, data in files.items():
        draft.change(path, HEADER + data, "the network of the instance", mode=mode)
