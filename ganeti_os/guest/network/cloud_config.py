# SPDX-License-Identifier: MIT
"""cloud-init's network configuration, version 2: each NIC by its MAC address (ADR 0108).

YAML is written here as text with JSON's strings, which are valid YAML.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence

from ganeti_os.guest.facts.nics import NewAddress, NicNetwork, with_one_default_route
from ganeti_os.guest.network.writing.nic_plan import HEADER

# Only netplan accepts "default": cloud-init's own renderers refuse it.
_DEFAULT = {4: "0.0.0.0/0", 6: "::/0"}


def is_known(nic: NicNetwork) -> bool:
    """True if an address of the NIC is known with its netmask: an address alone configures nothing."""
    return any(address.network is not None for address in nic.addresses)


def network_config(nics: Sequence[NicNetwork]) -> bytes:
    """Return the contents of a seed's network-config for the NICs; those without a known address use DHCP."""
    lines = ["version: 2", "ethernets:"]
    for nic in with_one_default_route(nics):
        lines += _nic(nic)
    return HEADER + "\n".join(lines).encode("ascii") + b"\n"


def _nic(nic: NicNetwork) -> Iterator[str]:
    # The name is included because renderers other than netplan's use the name, which cloud-init gives by the MAC.
    name = f"eth{nic.index}"
    # networkd uses the first file that matches, and netplan's are named by these keys: images have their own files,
    # such as Debian's all-en, which also matches eth0 by its other name.
    yield f'  "0-{name}":' if nic.mac else f"  {name}:"
    if nic.mac:
        yield f"    match: {{macaddress: {json.dumps(nic.mac.lower())}}}"
        yield f"    set-name: {name}"
    if not is_known(nic):
        yield "    dhcp4: true"
        if nic.index:
            yield "    optional: true"  # the boot does not wait for an answer on a second NIC
        return
    known = [address for address in nic.addresses if address.network is not None]
    yield f"    addresses: {_list([_interface(address) for address in known])}"
    routes = [address for address in known if address.gateway is not None]
    if routes:
        yield "    routes:"
        yield from map(_default_route, routes)
    if nic.name_servers or nic.search:
        servers, search = _list([str(server) for server in nic.name_servers]), _list(list(nic.search))
        yield f"    nameservers: {{addresses: {servers}, search: {search}}}"


def _interface(address: NewAddress) -> str:
    assert address.network is not None
    return f"{address.address}/{address.network.prefixlen}"


def _default_route(address: NewAddress) -> str:
    assert address.network is not None
    assert address.gateway is not None
    outside = address.gateway not in address.network and not address.gateway.is_link_local
    on_link = ", on-link: true" if outside else ""
    return f'      - {{to: "{_DEFAULT[address.address.version]}", via: "{address.gateway}"{on_link}}}'


def _list(items: list[str]) -> str:
    return json.dumps(items)
