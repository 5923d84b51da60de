# SPDX-License-Identifier: MIT
"""ifcfg-NAME of Red Hat's and SuSE's network scripts, and the gateways that lie in files beside them."""

from __future__ import annotations

import re
from collections.abc import Iterator

from ganeti_os.guest.addresses import Interface
from ganeti_os.guest.draft import Draft
from ganeti_os.guest.shell_values import ShellValue, shell_values
from ganeti_os.guest.span import Span

_RED_HAT = "/etc/sysconfig/network-scripts"
_RED_HAT_COMMON = "/etc/sysconfig/network"
_SUSE = "/etc/sysconfig/network"
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
_ROUTE = re.compile(rb"^[ \t]*+default[ \t]++([0-9A-Fa-f.:]++)", re.MULTILINE)


def ifcfg_interfaces(draft: Draft) -> Iterator[Interface]:
    """Yield what each file configures; the default route's own files count for each static interface."""
    for directory in (_RED_HAT, _SUSE):
        for path in draft.files(directory, "ifcfg-*"):
            if path.endswith(_COPIES):
                continue
            interface = _interface(path, shell_values(draft.read(path) or b"", _NAMES))
            if interface.addresses:
                _add_gateways(draft, directory, interface)
            yield interface


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


def _add_gateways(draft: Draft, directory: str, interface: Interface) -> None:
    if directory == _RED_HAT:
        if draft.is_file(_RED_HAT_COMMON):
            for value in shell_values(draft.read(_RED_HAT_COMMON) or b"", {"GATEWAY"}):
                if value.span is not None:
                    interface.add(_RED_HAT_COMMON, "gateway", value.span)
        return
    for name in ("routes", f"ifroute-{interface.name}"):
        for path in draft.files(directory, name.replace("[", "[[]")):
            for route in _ROUTE.finditer(draft.read(path) or b""):
                interface.add(path, "gateway", Span.of(route, 1))
