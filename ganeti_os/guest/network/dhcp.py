# SPDX-License-Identifier: MIT
"""The names that a guest's DHCP clients send, and others derived from the host name: one table of lines."""

from __future__ import annotations

import logging
import re
from dataclasses import dataclass

from ganeti_os.guest.network.files import NetworkFiles
from ganeti_os.guest.network.ifupdown import ifupdown_paths
from ganeti_os.guest.network.keyfile import keyfile_paths
from ganeti_os.guest.network.netplan import netplan_paths
from ganeti_os.guest.network.networkd import DIRECTORIES
from pydiskimg.system.edits.draft import Draft
from pydiskimg.system.edits.renaming import Renaming
from pydiskimg.system.edits.span import Span, substituted

log = logging.getLogger(__name__)

_QUOTE = rb"[\"']?"
_NAME = rb"([A-Za-z0-9_-]++(?:\.[A-Za-z0-9_-]++)*)"
_END = rb"\.?+(?![^\s\"';])"


def _line(before: bytes) -> re.Pattern[bytes]:
    return re.compile(rb"^[ \t]*+" + before + _QUOTE + _NAME + _END, re.MULTILINE | re.IGNORECASE)


_DHCLIENT = _line(rb"(?:send|supersede)[ \t]++(?:host-name|fqdn\.fqdn)[ \t]++")
_IFCFG = _line(rb"(?:DHCP_HOSTNAME|DHCP_FQDN|DHCLIENT_HOSTNAME_OPTION)=")
_INTERFACES = _line(rb"hostname[ \t]++")
_UDHCPC = re.compile(rb"(?<=[ \t\"'])hostname:" + _NAME + _END)  # udhcpc_opts -x hostname:NAME
_NETWORKD = _line(rb"Hostname[ \t]*+=[ \t]*+")
_KEYFILE = _line(rb"dhcp-(?:hostname|fqdn)[ \t]*+=[ \t]*+")
_NETPLAN = re.compile(
    rb"(?:^|[{,])[ \t]*+" + _QUOTE + rb"hostname" + _QUOTE + rb":[ \t]*+" + _QUOTE + _NAME
    + rb"\.?+(?![^\s\"';,}])", re.MULTILINE,
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class _Rule:
    """Files in a directory whose names match, and the line with a name, as its one group."""

    directory: str
    pattern: str
    line: re.Pattern[bytes]


_RULES = (
    _Rule("/etc", "dhclient*.conf", _DHCLIENT),
    _Rule("/etc/dhcp", "dhclient*.conf", _DHCLIENT),
    _Rule("/etc/dhcp3", "dhclient*.conf", _DHCLIENT),
    _Rule("/etc", "dhcpcd.conf", _line(rb"hostname[ \t]++")),
    _Rule("/etc/network", "interfaces", _INTERFACES),
    _Rule("/etc/network/interfaces.d", "*", _INTERFACES),
    _Rule("/etc/sysconfig/network-scripts", "ifcfg-*", _IFCFG),
    _Rule("/etc/sysconfig/network", "ifcfg-*", _IFCFG),
    _Rule("/etc/sysconfig/network", "dhcp", _IFCFG),
    _Rule("/etc/NetworkManager/system-connections", "*", _KEYFILE),
    _Rule("/etc/systemd/network", "*.network", _NETWORKD),
    _Rule("/etc/netplan", "*.yaml", _NETPLAN),
    _Rule("/etc", "mailname", _line(rb"")),
)


def change_client_names(draft: Draft, renaming: Renaming) -> None:
    """Replace the old name where it is sent to a DHCP server, and in /etc/mailname."""
    for rule in _RULES:
        for path in draft.files(rule.directory, rule.pattern):
            _change(draft, path, rule.line, renaming)
    files = NetworkFiles(draft, quiet=True)  # change_addresses() logs unreadable files
    interfaces = ifupdown_paths(files)
    for line, paths in (
        (_INTERFACES, interfaces),
        (_UDHCPC, interfaces),
        (_NETWORKD, [path for found in files.drop_ins(DIRECTORIES, "*.network").values() for path in found]),
        (_NETWORKD, files.search_path(DIRECTORIES, "*.network")),
        (_KEYFILE, keyfile_paths(files)),
        (_NETPLAN, netplan_paths(files)),
    ):
        for path in paths:
            if files.read(path):
                _change(draft, path, line, renaming)


def _change(draft: Draft, path: str, line: re.Pattern[bytes], renaming: Renaming) -> None:
    data = draft.read(path) or b""
    spans = [Span.of(match, 1) for match in line.finditer(data)]
    replacements = [(span, new) for span in spans if (new := renaming.replaced_bytes(span.text)) != span.text]
    draft.change(path, substituted(data, replacements), "the name that is announced")
