# SPDX-License-Identifier: MIT
"""ifcfg-NAME of Red Hat's and SuSE's network scripts, and the gateways that lie in files beside them."""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import islice

from ganeti_os.guest.draft import Draft
from ganeti_os.guest.network.addresses import Interface, parse_address
from ganeti_os.guest.network.shell_values import ShellValue, shell_values
from ganeti_os.guest.network.span import Span

_RED_HAT = "/etc/sysconfig/network-scripts"
_RED_HAT_COMMON = "/etc/sysconfig/network"
_SUSE = "/etc/sysconfig/network"
_FOR_ALL = (_RED_HAT_COMMON, f"{_SUSE}/routes")
_COPIES = ("~", ".bak", ".old", ".orig", ".rpmnew", ".rpmorig", ".rpmsave")
_KINDS = {
    "IPADDR": "address",
    "PREFIX": "prefix",
    "PREFIXLEN": "prefix",
    "NETMASK": "netmask",
    "NETWORK": "network",
    "BROADCAST": "broadcast",
    "GATEWAY": "gateway",
    "IPV6ADDR": "address",
    "IPV6_DEFAULTGW": "gateway",
}
# SuSE numbers by any suffix (IPADDR_0), Red Hat by digits (IPADDR0).
_NAMES = frozenset(
    {"BOOTPROTO", "DEVICE", *_KINDS} | {f"{kind}{sep}{n}" for kind in _KINDS for sep in ("", "_") for n in range(10)}
)
_MOST = 16  # default routes in a file; a guest may write a hundred thousand
_ROUTE = re.compile(rb"^[ \t]*+default[ \t]++([0-9A-Fa-f.:]++)", re.MULTILINE)


def ifcfg_interfaces(draft: Draft) -> Iterator[Interface]:
    """Yield what each file configures; of several static interfaces the one that reaches it has the gateway for all."""
    for directory in (_RED_HAT, _SUSE):
        found = [
            _interface(path, shell_values(draft.read(path) or b"", _NAMES))
            for path in draft.files(directory, "ifcfg-*")
            if not path.endswith(_COPIES)
        ]
        static = [interface for interface in found if interface.addresses and not interface.is_loopback]
        for interface in static:
            for path, gateway in _gateways(draft, directory, interface):
                address = parse_address(gateway.text)
                is_for_all = len(static) > 1 and path in _FOR_ALL
                if not is_for_all or (address is not None and interface.reaches(address)):
                    interface.add(path, "gateway", gateway)
        yield from found


def _interface(path: str, values: list[ShellValue]) -> Interface:
    plain = {value.name: value.span for value in values if value.span is not None}
    device = plain.get("DEVICE", Span(0, 0, b"")).text.decode("latin-1")
    interface = Interface(device or path.rpartition("/ifcfg-")[2])
    if plain.get("BOOTPROTO", Span(0, 0, b"")).text.lower().startswith((b"dhcp", b"bootp")):
        return interface
    for name, span in plain.items():
        kind = _KINDS.get(name) or _KINDS.get(name.rstrip("0123456789").rstrip("_"))
        if kind is not None and span.text:
            interface.add(path, kind, span)
    return interface


def _gateways(draft: Draft, directory: str, interface: Interface) -> Iterator[tuple[str, Span]]:
    """Yield what the files beside the interface's own say, and which file does."""
    if directory == _RED_HAT:
        if draft.is_file(_RED_HAT_COMMON):
            for value in shell_values(draft.read(_RED_HAT_COMMON) or b"", {"GATEWAY"})[:_MOST]:
                if value.span is not None:
                    yield _RED_HAT_COMMON, value.span
        return
    for name in ("routes", f"ifroute-{interface.name}"):
        for path in draft.files(directory, name.replace("[", "[[]")):
            for route in islice(_ROUTE.finditer(draft.read(path) or b""), _MOST):
                yield path, Span.of(route, 1)
