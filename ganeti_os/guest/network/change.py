# SPDX-License-Identifier: MIT
"""The guest's static addresses: replaced where it is beyond doubt which is which, left with a warning elsewhere."""

from __future__ import annotations

import ipaddress
import logging
import re
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from itertools import chain

from ganeti_os.guest.draft import Draft
from ganeti_os.guest.network.addresses import Field, Interface, IPAddress, natural_order, parse_address
from ganeti_os.guest.network.gentoo import gentoo_interfaces
from ganeti_os.guest.network.ifcfg import ifcfg_interfaces
from ganeti_os.guest.network.ifupdown import ifupdown_interfaces
from ganeti_os.guest.network.netplan import netplan_interfaces
from ganeti_os.guest.network.networkd import keyfile_interfaces, networkd_interfaces
from ganeti_os.guest.network.new_addresses import NewAddress
from ganeti_os.guest.network.span import Span, substituted

log = logging.getLogger(__name__)

_FORMATS = (
    ifupdown_interfaces,
    ifcfg_interfaces,
    networkd_interfaces,
    netplan_interfaces,
    keyfile_interfaces,
    gentoo_interfaces,
)
_LIMIT = 1000  # addresses, prefixes, gateways; a guest with more is not meant to be understood
_KERNEL_NAME = re.compile(r"eth([0-9]{1,3})")


@dataclass(frozen=True, slots=True)
class Moved:
    """addresses are the replaced ones with their new ones, as the guest spells them; paths the files that had them."""

    addresses: Mapping[bytes, bytes]
    paths: frozenset[str]


def change_addresses(
    draft: Draft, new: Mapping[int, NewAddress], *, nic_count: int, old: IPAddress | None = None
) -> Moved:
    """Give the guest's static addresses the new ones, which come by the number of the NIC.

    old is the address that NIC 0 is known to have had, if any. An address that stays is logged with the reason.
    """
    found = [item for item in chain.from_iterable(read(draft) for read in _FORMATS) if not item.is_loopback]
    changes: dict[str, dict[Span, bytes]] = {}
    moved: dict[bytes, bytes] = {}
    paths = set()
    count = sum(len(interface.addresses) + len(interface.others) for interface in found)
    if count > _LIMIT:
        log.warning("the guest's files hold %d addresses and what belongs to them; all of them stay", count)
        return Moved({}, frozenset())
    static = {field.span.text.decode() for interface in found for field in interface.addresses}
    if static and not new:
        log.info("the guest keeps its static addresses (%s): no new one is known", ", ".join(sorted(static)))
    for index, address in sorted(new.items()):
        chosen = _chosen(found, index, address, nic_count=nic_count, old=old if index == 0 else None)
        for interface in chosen:
            _warn_of_another_network(interface, address)
        for field, text in chain.from_iterable(_fields(interface, address) for interface in chosen):
            changes.setdefault(field.path, {})[field.span] = text
            if field.kind == "address":
                moved[field.span.text] = text
                paths.add(field.path)
    for path, spans in changes.items():
        gone = [span.text for span in spans if span.text in moved]
        what = ", ".join(f"{text.decode()} is now {moved[text].decode()}" for text in gone) or "gateway"
        draft.change(path, substituted(draft.read(path) or b"", spans.items()), what)
    return Moved(moved, frozenset(paths))


def _chosen(
    found: list[Interface], index: int, new: NewAddress, *, nic_count: int, old: IPAddress | None
) -> list[Interface]:
    """Return the stanzas or files whose address becomes the new one; none when it is there already, or in doubt."""
    static = [interface for interface in found if _addresses([interface], new)]
    known = [interface for interface in static if _addresses([interface], new) == {old}]
    if known:
        return known
    device = None if nic_count <= 1 else _device(found, index, nic_count)
    if device is not None:
        static = [interface for interface in static if interface.device == device]
    addresses = _addresses(static, new)
    if not addresses or new.address in addresses:
        return []
    listed = ", ".join(sorted(map(str, addresses)))
    if nic_count > 1 and device is None:
        why = "it is not clear which of the guest's interfaces is that NIC"
    elif len(addresses) > 1:
        why = f"it has {len(addresses)} addresses"
    else:
        return static
    log.warning("%s: %s stays, although NIC %d has %s now: %s", static[0].device, listed, index, new.address, why)
    return []


def _addresses(interfaces: Iterable[Interface], new: NewAddress) -> set[IPAddress]:
    """Return the different addresses of the new one's family."""
    texts = (parse_address(field.span.text) for interface in interfaces for field in interface.addresses)
    return {address for address in texts if address is not None and address.version == new.address.version}


def _device(found: list[Interface], index: int, nic_count: int) -> str | None:
    """Return the interface that is NIC index: by the kernel's own names, else by order where there is one for each."""
    devices = sorted({interface.device for interface in found}, key=natural_order)
    numbers = [_KERNEL_NAME.fullmatch(device) for device in devices]
    if all(numbers):
        return f"eth{index}" if f"eth{index}" in devices else None
    return devices[index] if len(devices) == nic_count and index < nic_count else None


def _fields(interface: Interface, new: NewAddress) -> list[tuple[Field, bytes]]:
    """Return what is to be written where; an interface has the values of both families."""
    network = new.network
    values = {"address": str(new.address)}
    if network is not None:
        values |= {
            "prefix": str(network.prefixlen),
            "netmask": str(network.netmask),
            "network": str(network.network_address),
            "broadcast": str(network.broadcast_address),
        }
    if new.gateway is not None:
        values["gateway"] = str(new.gateway)
    return [
        (field, values[field.kind].encode("ascii"))
        for field in [*interface.addresses, *interface.others]
        if field.kind in values and _is_of_family(field, interface, new)
    ]


def _is_of_family(field: Field, interface: Interface, new: NewAddress) -> bool:
    address = parse_address(field.span.text)
    if address is None:  # a prefix: of the address right before it, or of the stanza's first family
        before = [one for one in interface.addresses if (one.path, one.span.end + 1) == (field.path, field.span.start)]
        versions = [found.version for one in before or interface.addresses if (found := parse_address(one.span.text))]
        return min(versions) == new.address.version
    return address.version == new.address.version


def _warn_of_another_network(interface: Interface, new: NewAddress) -> None:
    """Without a word of the new network the guest keeps its netmask and gateway, which may be wrong now."""
    old = next(iter(_addresses([interface], new)))
    masks = [field for field in interface.others if field.kind in ("prefix", "netmask")]
    mask = next((field.span.text for field in masks if _is_of_family(field, interface, new)), None)
    if mask is None or new.network is not None:
        return
    with suppress(ValueError):
        network = ipaddress.ip_interface(f"{old}/{mask.decode('latin-1')}").network
        if new.address not in network:
            text = "%s: %s is not in %s, and nothing tells its network; the netmask and gateway stay"
            log.warning(text, interface.device, new.address, network)
