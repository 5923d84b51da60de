# SPDX-License-Identifier: MIT
"""ifcfg-NAME of Red Hat's and SuSE's network scripts, and the gateways in their other files."""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import islice

from ganeti_os.guest.facts.addresses import Field, Interface
from ganeti_os.guest.network.files import NetworkFiles
from ganeti_os.guest.network.ip_commands import ip_route
from pydiskimg.system.edits.ip_address import parse_address
from pydiskimg.system.edits.shell_values import ShellValue, shell_values
from pydiskimg.system.edits.span import Span

_RED_HAT = "/etc/sysconfig/network-scripts"
_RED_HAT_COMMON = "/etc/sysconfig/network"
_SUSE = "/etc/sysconfig/network"
_FOR_ALL = (_RED_HAT_COMMON, f"{_SUSE}/routes")
_BESIDE = {_RED_HAT: ("route-*", "route6-*", "rule-*", "rule6-*"), _SUSE: ("ifroute-*", "ifrule-*", "routes")}
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
    "HWADDR": "mac",
}
# SuSE numbers by any suffix (IPADDR_0, IPADDR_web), Red Hat by digits (IPADDR0).
_NAME = re.compile(f"({'|'.join(sorted(_KINDS, reverse=True))})((?:_?[0-9]{{1,6}}|_[A-Za-z0-9]{{1,32}})?)")
_OTHERS = ("START", "END", "SECONDARIES")  # Red Hat's: a range, and more addresses
_NOT_A_NAME = re.compile(r"[/\0]")
_MOST = 16  # default routes in a file; a guest may write a hundred thousand
_ROUTE = re.compile(rb"^[ \t]*+(?:default|0\.0\.0\.0(?:/0)?|::/0)[ \t]++([0-9A-Fa-f.:]++)", re.MULTILINE)
_OPERANDS = re.compile(rb"^[ \t]*+(?:(?:to[ \t]++)?default|0\.0\.0\.0/0|::/0)[ \t][^\n]*+", re.MULTILINE)
_NUMBERED = re.compile(r"(ADDRESS|NETMASK|GATEWAY)([0-9]{1,6})")


class _Names:
    """The relevant variables: any of _KINDS, with its number."""

    def __contains__(self, name: object) -> bool:
        return isinstance(name, str) and (name in ("BOOTPROTO", "DEVICE") or _kind(name) is not None)


class _RouteNames:
    def __contains__(self, name: object) -> bool:
        return isinstance(name, str) and _NUMBERED.fullmatch(name) is not None


def _kind(name: str) -> tuple[str, str] | None:
    """Return the kind and the number of a variable."""
    match = _NAME.fullmatch(name)
    if match is None or match.group(2).removeprefix("_") in _OTHERS:
        return None
    return _KINDS[match.group(1)], match.group(2)


def ifcfg_interfaces(files: NetworkFiles) -> Iterator[Interface]:
    """Yield the configuration of each file; of several static interfaces, the one that reaches it has the common
    gateway.
    """
    for directory in (_RED_HAT, _SUSE):
        found = [
            _interface(path, shell_values(files.read(path), _Names())) for path in files.files(directory, "ifcfg-*")
        ]
        if not found:
            continue
        for pattern in _BESIDE[directory]:
            for path in files.files(directory, pattern):
                files.read(path)
        static = [interface for interface in found if interface.addresses and not interface.is_loopback]
        for interface in static:
            for gateway in _gateways(files, directory, interface):
                address = parse_address(gateway.span.text)
                is_for_all = len(static) > 1 and gateway.path in _FOR_ALL
                if not is_for_all or (address is not None and interface.reaches(address)):
                    interface.add(gateway.path, "gateway", gateway.span)
        yield from found


def _interface(path: str, values: list[ShellValue]) -> Interface:
    plain = {value.name: value.span for value in values if value.span is not None}
    device = plain.get("DEVICE", Span(0, 0, b"")).text.decode("latin-1")
    interface = Interface(device or path.rpartition("/ifcfg-")[2])
    is_static = not plain.get("BOOTPROTO", Span(0, 0, b"")).text.lower().startswith((b"dhcp", b"bootp"))
    for name, span in plain.items():
        kind = _kind(name)
        if kind is not None and span.text and (is_static or kind[0] == "mac"):
            interface.add(path, kind[0], span, kind[1])
    return interface


def _gateways(files: NetworkFiles, directory: str, interface: Interface) -> Iterator[Field]:
    """Yield the default gateways in the other files of the interface."""
    if directory == _RED_HAT:
        if files.is_file(_RED_HAT_COMMON):
            for value in shell_values(files.read(_RED_HAT_COMMON), {"GATEWAY"})[:_MOST]:
                if value.span is not None:
                    yield Field(_RED_HAT_COMMON, "gateway", value.span)
        for name in ("route", "route6"):
            path = f"{directory}/{name}-{interface.name}"
            if not _NOT_A_NAME.search(interface.name) and files.is_file(path):
                yield from islice(_red_hat_routes(path, files.read(path)), _MOST)
        return
    for name in ("routes", f"ifroute-{interface.name}"):
        for path in files.files(directory, name.replace("[", "[[]")):
            for route in islice(_ROUTE.finditer(files.read(path)), _MOST):
                yield Field(path, "gateway", Span.of(route, 1))


def _red_hat_routes(path: str, data: bytes) -> Iterator[Field]:
    """Yield the gateways of default routes, in either syntax: of `ip route`, or ADDRESS0=, NETMASK0=, GATEWAY0=."""
    for line in islice(_OPERANDS.finditer(data), _MOST):
        for kind, span in ip_route(data, *line.span()).values:
            yield Field(path, kind, span)
    values = {value.name: value.span for value in shell_values(data, _RouteNames()) if value.span is not None}
    for name, span in values.items():
        address = values.get(name.replace("GATEWAY", "ADDRESS"))
        if name.startswith("GATEWAY") and address is not None and address.text == b"0.0.0.0":
            yield Field(path, "gateway", span)
