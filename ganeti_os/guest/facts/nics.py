# SPDX-License-Identifier: MIT
"""The addresses of an instance: those of its NICs in Ganeti, and the administrator's files in NETWORKS_DIR.

instances/NAME assigns ADDRESS, ADDRESS6 and SUBNET; subnets/SUBNET assigns NETMASK and GATEWAY, NETMASK6 and GATEWAY6.
Either may assign DNS_SERVERS and DNS_SEARCH.
"""

from __future__ import annotations

import ipaddress
import logging
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from ipaddress import IPv4Network, IPv6Network
from typing import Any

from ganeti_os.request import InstanceNic, Request
from ganeti_os.settings.kinds import DNS_SEARCH, DNS_SERVERS, ValueKind
from ganeti_os.settings.settings import Settings
from ganeti_os.settings.shellfile import Assignment, SettingsError, read_shell_file
from pydiskimg.system.edits.ip_address import IPAddress, parse_address

log = logging.getLogger(__name__)

IPNetwork = IPv4Network | IPv6Network


@dataclass(frozen=True, slots=True)
class NewAddress:
    """An address for a NIC; network is the one that contains it, or None if it is not known."""

    address: IPAddress
    network: IPNetwork | None = None
    gateway: IPAddress | None = None


@dataclass(frozen=True, slots=True)
class NicNetwork:
    """The wanted configuration of a NIC: at most one address of each family; none if it is not known.

    Only one NIC has name servers and domains: the first whose address has a gateway, else the first with an address. A
    NIC without an address gets them by DHCP.
    """

    index: int
    mac: str | None = None
    addresses: tuple[NewAddress, ...] = ()
    name_servers: tuple[IPAddress, ...] = ()
    search: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class _FileNetwork:
    """The contents of the files in NETWORKS_DIR about an instance's first NIC."""

    addresses: tuple[NewAddress, ...] = ()
    name_servers: tuple[IPAddress, ...] = ()
    search: tuple[str, ...] = ()


def nic_networks(request: Request, settings: Settings) -> tuple[NicNetwork, ...]:
    """Return the wanted configuration of each NIC of the instance, in Ganeti's order.

    Ganeti's address of a family has precedence over that of the files (NIC 0). Raises SettingsError for invalid files.
    """
    files = _file_network(request.instance, settings)
    nics = {nic.index: NicNetwork(nic.index, nic.mac, _of_nic(nic)) for nic in request.nics}
    if files.addresses:
        first = nics.get(0, NicNetwork(0))
        nics[0] = replace(first, addresses=_joined(first.addresses, files.addresses))
    servers = files.name_servers or settings.dns_servers
    domain = request.instance.partition(".")[2]
    search = files.search or settings.dns_search or ((domain,) if domain and servers else ())
    resolving = _resolving(nics.values())
    if resolving is not None:
        nics[resolving.index] = replace(resolving, name_servers=servers, search=search)
    return tuple(nics[index] for index in sorted(nics))


def with_one_default_route(nics: Iterable[NicNetwork]) -> tuple[NicNetwork, ...]:
    """Return the NICs with one gateway of each family, that of the first NIC that has one: several would conflict."""
    seen: set[int] = set()
    found = []
    for nic in nics:
        addresses = tuple(
            replace(one, gateway=None) if one.gateway is not None and one.gateway.version in seen else one
            for one in nic.addresses
        )
        seen.update(one.gateway.version for one in addresses if one.gateway is not None)
        found.append(replace(nic, addresses=addresses))
    return tuple(found)


def _joined(known: tuple[NewAddress, ...], files: tuple[NewAddress, ...]) -> tuple[NewAddress, ...]:
    """Return one address of each family: the known ones, unless the files have more details of the same address."""
    by_family = {one.address.version: one for one in files}
    for one in known:
        told = by_family.get(one.address.version)
        if told is None or told.address != one.address or one.network is not None:
            by_family[one.address.version] = one
    return tuple(by_family[version] for version in sorted(by_family))


def _resolving(nics: Iterable[NicNetwork]) -> NicNetwork | None:
    """Return the NIC by which name servers are reached, None if none has an address."""
    static = sorted((nic for nic in nics if nic.addresses), key=lambda nic: nic.index)
    routed = [nic for nic in static if any(one.gateway for one in nic.addresses)]
    return next(iter([*routed, *static]), None)


def check_network_files(instance: str, settings: Settings) -> None:
    """Raise SettingsError for files in NETWORKS_DIR about the instance that are not valid; nothing is logged."""
    _file_network(instance, settings, tell=lambda *_: None)


def file_address(instance: str, settings: Settings) -> NewAddress | None:
    """Return the ADDRESS of the instance in NETWORKS_DIR; None if it has none."""
    return next(iter(_file_network(instance, settings).addresses), None)


def _file_network(instance: str, settings: Settings, *, tell: Callable[[str, str], None] = log.warning) -> _FileNetwork:
    path = f"{settings.networks_dir}/instances/{instance}"
    values = _read(path)
    addresses = {name: found for name in ("ADDRESS", "ADDRESS6") if (found := _address(values, name, path)) is not None}
    if not addresses:
        if values:
            tell("%s assigns no ADDRESS, so it is not used", path)
        return _FileNetwork()
    subnet = values.get("SUBNET")
    of_subnet: Mapping[str, Assignment] = {}
    subnet_path = ""
    if subnet is not None:
        if "/" in subnet.value or subnet.value.startswith("."):
            raise SettingsError(f"{path}:{subnet.line}: SUBNET is {subnet.value!r}; expected the name of a file")
        subnet_path = f"{settings.networks_dir}/subnets/{subnet.value}"
        of_subnet = _read(subnet_path)
        if not of_subnet:
            tell("%s does not describe the subnet; the guest keeps its netmask and gateway", subnet_path)
    return _FileNetwork(
        tuple(_in_subnet(name, address, of_subnet, subnet_path) for name, address in addresses.items()),
        *(
            _words(name, kind, (values, path), (of_subnet, subnet_path))
            for name, kind in (("DNS_SERVERS", DNS_SERVERS), ("DNS_SEARCH", DNS_SEARCH))
        ),
    )


def _in_subnet(name: str, address: IPAddress, values: Mapping[str, Assignment], path: str) -> NewAddress:
    """Return an address with the details of a subnet's file for its family; ADDRESS may be of either."""
    six = "6" if name == "ADDRESS6" else ""
    gateway = _address(values, f"GATEWAY{six}", path, like=address)
    return NewAddress(address, _network(f"NETMASK{six}", values, address, path), gateway)


def _words(name: str, kind: ValueKind, *assigned: tuple[Mapping[str, Assignment], str]) -> Any:
    """Return the value of a list from the first file that has it, or empty."""
    for values, path in assigned:
        found = values.get(name)
        if found is not None:
            try:
                return kind.check(found.value)
            except ValueError:
                raise SettingsError(
                    f"{path}:{found.line}: {name} is {found.value!r}; expected {kind.expected}"
                ) from None
    return ()


def _read(path: str) -> Mapping[str, Assignment]:
    """Return the assignments in the file, without empty values; an empty mapping if the file does not exist."""
    try:
        return {name: found for name, found in read_shell_file(path).items() if found.value}
    except FileNotFoundError:
        return {}


def _address(
    values: Mapping[str, Assignment], name: str, path: str, *, like: IPAddress | None = None
) -> IPAddress | None:
    """Return an address, of the family of like if that is given; None if it is not assigned."""
    found = values.get(name)
    if found is None:
        return None
    address = parse_address(found.value)
    if address is None or (like is not None and address.version != like.version):
        expected = f"an address of IPv{like.version}, as {like} is" if like is not None else "an IP address"
        raise SettingsError(f"{path}:{found.line}: {name} is {found.value!r}; expected {expected}")
    if "%" in found.value:  # an interface of the node, or a name that the guest may not have
        raise SettingsError(f"{path}:{found.line}: {name} is {found.value!r}; expected an address without an interface")
    return address


def _network(name: str, values: Mapping[str, Assignment], address: IPAddress, path: str) -> IPNetwork | None:
    netmask = values.get(name)
    if netmask is None:
        return None
    try:
        return ipaddress.ip_interface(f"{address}/{netmask.value}").network
    except ValueError:
        raise SettingsError(
            f"{path}:{netmask.line}: {name} is {netmask.value!r}; expected the netmask of {address}, or the length of "
            "its prefix"
        ) from None


def _of_nic(nic: InstanceNic) -> tuple[NewAddress, ...]:
    """Return Ganeti's address of a NIC, in its network. Ganeti has one, of either family.

    If its network has an IPv6 subnet, the guest itself derives the NIC's IPv6 address from the MAC (SLAAC).
    """
    if not nic.ip or nic.ip == "none":
        return ()
    address = parse_address(nic.ip)
    if address is None:
        log.warning("NIC_%d_IP is %r, which is not an IP address; it is not used", nic.index, nic.ip)
        return ()
    suffix = "" if address.version == 4 else "6"
    try:
        network = ipaddress.ip_network(nic.network.get(f"SUBNET{suffix}", ""))
    except ValueError:
        return (NewAddress(address),)
    if address not in network:
        return (NewAddress(address),)
    return (NewAddress(address, network, parse_address(nic.network.get(f"GATEWAY{suffix}", ""))),)
