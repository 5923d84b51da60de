# SPDX-License-Identifier: MIT
"""Keyfiles of NetworkManager: of several that match a NIC the one with the highest priority is used."""

from __future__ import annotations

import re
import uuid
from collections.abc import Iterator, Sequence

from ganeti_os.guest.network.writing.existing_files import Foreign
from ganeti_os.guest.network.writing.nic_plan import NicPlan, is_ours, text_of, write_own_files
from ganeti_os.guest.syntax.ini import ini_values
from pydiskimg.system.edits.draft import Draft

_DIRECTORY = "/etc/NetworkManager/system-connections"
_PATTERN = "ganeti-nic*"
_ETHERNET = (b"ethernet", b"802-3-ethernet")
_MASTERS = ("master", "controller", "slave-type", "port-type")
# arbitrary; it turns a MAC address into a connection's UUID
_NAMESPACE = uuid.UUID("5f0c9d53-3b6e-5c0c-a3e4-9be6a1f0b7d2")
_NO_AUTO_DEFAULT = re.compile(rb"^[ \t]*+no-auto-default[ \t]*+=[ \t]*+\*", re.MULTILINE)
_FIRST = 999  # the highest possible priority
_ADDRESS = re.compile(r"address(?:es)?[0-9]*+")

PATHS = (f"{_DIRECTORY}/",)


def keyfile_foreign(draft: Draft) -> Foreign:
    """Return the configuration of other connections. Without any, NetworkManager makes one with DHCP for each NIC."""
    foreign = Foreign(for_all=not _is_without_default(draft))
    for path in draft.files(_DIRECTORY, "*"):
        data = draft.read(path) or b""
        if is_ours(draft, path):
            foreign.note_own(path, data)
            continue
        values = _values(data)
        if values.get(("connection", "type")) not in _ETHERNET:
            continue
        if any(("connection", key) in values for key in _MASTERS):
            foreign.note_odd(f"{path}: part of a bridge or bond")
        name = values.get(("connection", "interface-name"), b"").decode("latin-1")
        is_bound = bool(name) or ("ethernet", "mac-address") in values
        foreign.note(name or path, is_pattern=not is_bound)
    return foreign


def _values(data: bytes) -> dict[tuple[str, str], bytes]:
    return {(one.section, one.key): one.span.text for one in ini_values(data)}


def _is_without_default(draft: Draft) -> bool:
    """True if NetworkManager ignores NICs without a file, as on servers of Red Hat's."""
    paths = draft.files("/etc/NetworkManager", "NetworkManager.conf")
    for directory in ("/usr/lib/NetworkManager/conf.d", "/etc/NetworkManager/conf.d"):
        paths += draft.files(directory, "*.conf")
    return any(_NO_AUTO_DEFAULT.search(draft.read(path) or b"") for path in paths)


def write_keyfiles(draft: Draft, plans: Sequence[NicPlan], *, replaces: bool) -> None:
    """Write a connection for each NIC; with replaces, other connections with static addresses are removed."""
    if replaces:
        for path in draft.files(_DIRECTORY, "*"):
            values = _values(draft.read(path) or b"")
            static = any(section in ("ipv4", "ipv6") and _ADDRESS.fullmatch(key) for section, key in values)
            is_ethernet = values.get(("connection", "type")) in _ETHERNET
            if static and is_ethernet and not is_ours(draft, path):
                draft.remove(path, "taken away: its addresses are not the instance's")
    files = {f"{_DIRECTORY}/ganeti-{plan.name}.nmconnection": text_of(_lines(plan)) for plan in plans}
    # NetworkManager accepts no file that others may read.
    write_own_files(draft, files, directory=_DIRECTORY, pattern=_PATTERN, mode=0o600)


def _lines(plan: NicPlan) -> Iterator[str]:
    yield from (
        "[connection]",
        f"id=ganeti-{plan.name}",
        f"uuid={uuid.uuid5(_NAMESPACE, plan.mac)}",
        "type=ethernet",
        f"autoconnect-priority={_FIRST}",
        "",
        "[ethernet]",
        f"mac-address={plan.mac.upper()}",
    )
    for version, section in ((4, "ipv4"), (6, "ipv6")):
        yield from ("", f"[{section}]")
        one = plan.of_family(version)
        if one is None:
            yield "method=disabled" if version == 4 and plan.is_static else "method=auto"
        else:
            # Without a gateway of its own an IPv6 address uses the router's announcements.
            yield "method=auto" if version == 6 and one.gateway is None else "method=manual"
            # NetworkManager itself makes a route on the link to a gateway outside of the network.
            yield f"address1={one.interface}" + (f",{one.gateway}" if one.gateway is not None else "")
        if servers := plan.servers(version):
            yield f"dns={';'.join(servers)};"
            if plan.search:
                yield f"dns-search={';'.join(plan.search)};"
