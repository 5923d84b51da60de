# SPDX-License-Identifier: MIT
"""The addresses of an instance: what Ganeti knows of its NICs, and the administrator's files in NETWORKS_DIR.

instances/NAME assigns ADDRESS and SUBNET, subnets/SUBNET assigns NETMASK and GATEWAY.
"""

from __future__ import annotations

import ipaddress
import logging
from collections.abc import Mapping
from dataclasses import dataclass, replace
from ipaddress import IPv4Network, IPv6Network

from ganeti_os.guest.network.addresses import IPAddress, parse_address
from ganeti_os.protocol import InstanceNic, Request
from ganeti_os.settings import Settings
from ganeti_os.shellfile import Assignment, SettingsError, read_shell_file

log = logging.getLogger(__name__)

IPNetwork = IPv4Network | IPv6Network


@dataclass(frozen=True, slots=True)
class NewAddress:
    """What a NIC is to have; network is the one that the address lies in, or None when nobody told."""

    address: IPAddress
    network: IPNetwork | None = None
    gateway: IPAddress | None = None


@dataclass(frozen=True, slots=True)
class NicNetwork:
    """What one NIC of the instance is to have: at most one address of each family; none where it is not known."""

    index: int
    mac: str | None = None
    addresses: tuple[NewAddress, ...] = ()
    name_servers: tuple[IPAddress, ...] = ()
    search: tuple[str, ...] = ()


def nic_networks(request: Request, settings: Settings) -> tuple[NicNetwork, ...]:
    """Return what each NIC of the instance is to have, in Ganeti's order.

    Ganeti's address comes before that of the files (NIC 0). Raises SettingsError for files that make no sense.
    """
    known = _new_addresses(request, settings)
    macs = {nic.index: nic.mac for nic in request.nics}
    return tuple(
        NicNetwork(index, macs.get(index), (known[index],) if index in known else ())
        for index in sorted(macs.keys() | known.keys())
    )


def _new_addresses(request: Request, settings: Settings) -> dict[int, NewAddress]:
    found = {nic.index: address for nic in request.nics if (address := _of_nic(nic)) is not None}
    own = file_address(request.instance, settings)
    if own is not None and (0 not in found or (found[0].address == own.address and found[0].network is None)):
        found[0] = own
    return found


def file_address(instance: str, settings: Settings) -> NewAddress | None:
    """Return what NETWORKS_DIR says of the instance; None when it says nothing."""
    path = f"{settings.networks_dir}/instances/{instance}"
    values = _read(path)
    address = _address(values, "ADDRESS", path)
    if address is None:
        if values:
            log.warning("%s assigns no ADDRESS, so it is not used", path)
        return None
    subnet = values.get("SUBNET")
    if subnet is None:
        return NewAddress(address)
    if "/" in subnet.value or subnet.value.startswith("."):
        raise SettingsError(f"{path}:{subnet.line}: SUBNET is {subnet.value!r}; expected the name of a file")
    path = f"{settings.networks_dir}/subnets/{subnet.value}"
    values = _read(path)
    if not values:
        log.warning("%s tells nothing of the subnet; the guest keeps its netmask and gateway", path)
        return NewAddress(address)
    gateway = _address(values, "GATEWAY", path, like=address)
    return NewAddress(address, _network(values.get("NETMASK"), address, path), gateway)


def _read(path: str) -> Mapping[str, Assignment]:
    """Return what the file assigns, without empty values; nothing when there is no such file."""
    try:
        return {name: found for name, found in read_shell_file(path).items() if found.value}
    except FileNotFoundError:
        return {}


def _address(
    values: Mapping[str, Assignment], name: str, path: str, *, like: IPAddress | None = None
) -> IPAddress | None:
    """Return an address, of the family of like if that is given; None when it is not assigned."""
    found = values.get(name)
    if found is None:
        return None
    address = parse_address(found.value)
    if address is None or (like is not None and address.version != like.version):
        expected = f"an address of IPv{like.version}, as {like} is" if like is not None else "an IP address"
        raise SettingsError(f"{path}:{found.line}: {name} is {found.value!r}; expected {expected}")
    return address


def _network(netmask: Assignment | None, address: IPAddress, path: str) -> IPNetwork | None:
    if netmask is None:
        return None
    try:
        return ipaddress.ip_interface(f"{address}/{netmask.value}").network
    except ValueError:
        raise SettingsError(
            f"{path}:{netmask.line}: NETMASK is {netmask.value!r}; expected the netmask of {address}, or the length of "
            "its prefix"
        ) from None


def _of_nic(nic: InstanceNic) -> NewAddress | None:
    if not nic.ip or nic.ip == "none":
        return None
    address = parse_address(nic.ip)
    if address is None:
        log.warning("NIC_%d_IP is %r, which is no IP address; it is not used", nic.index, nic.ip)
        return None
    suffix = "" if address.version == 4 else "6"
    found = NewAddress(address)
    try:
        network = ipaddress.ip_network(nic.network.get(f"SUBNET{suffix}", ""))
    except ValueError:
        return found
    if address not in network:
        return found
    gateway = parse_address(nic.network.get(f"GATEWAY{suffix}", ""))
    return replace(found, network=network, gateway=gateway)
