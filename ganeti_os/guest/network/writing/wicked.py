# SPDX-License-Identifier: MIT
"""ifcfg-NAME of SUSE's wicked (and its earlier ifup scripts), with routes in ifroute-NAME: by names only."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from ganeti_os.guest.network.writing.existing_files import VIRTUAL, Foreign
from ganeti_os.guest.network.writing.ifcfg import foreign_beside_own, ifcfg_of_others
from ganeti_os.guest.network.writing.nic_plan import NicPlan, text_of, write_own_files
from ganeti_os.guest.network.writing.stable_names import write_names
from pydiskimg.system.edits.draft import Draft
from pydiskimg.system.edits.shell_values import shell_values
from pydiskimg.system.edits.span import substituted
from pydiskimg.system.edits.text import with_lines

_DIRECTORY = "/etc/sysconfig/network"
_ROUTES = f"{_DIRECTORY}/routes"
_CONFIG = f"{_DIRECTORY}/config"
_ODD = re.compile(r"BRIDGE|BONDING_\w+|ETHERDEVICE|VLAN_ID|TEAM_\w+|WIRELESS\w*|TUNNEL\w*")
_ASSIGNED = re.compile(rb"^[ \t]*+([A-Z][A-Z0-9_]*+)=", re.MULTILINE)
_DEFAULT = re.compile(rb"^[ \t]*+default[ \t][^\n]*+\n?", re.MULTILINE)

PATHS = (f"{_DIRECTORY}/",)


def wicked_foreign(draft: Draft) -> Foreign:
    """Return the configuration of the other files."""
    foreign = foreign_beside_own(draft, _DIRECTORY, "if*-nic*")
    for path in ifcfg_of_others(draft, _DIRECTORY):
        name = path.rpartition("/ifcfg-")[2]
        found = {match[1].decode("ascii") for match in _ASSIGNED.finditer(draft.read(path) or b"")}
        if VIRTUAL.fullmatch(name) or any(map(_ODD.fullmatch, found)):
            foreign.note_odd(f"{path}: not a plain ethernet")
        foreign.note(name)
    return foreign


def write_wicked(draft: Draft, plans: Sequence[NicPlan], *, replaces: bool) -> None:
    """Write two files for each NIC, and name the NICs by udev; with replaces, other files and default routes are
    removed.
    """
    if replaces:
        for path in ifcfg_of_others(draft, _DIRECTORY):
            draft.remove(path, "taken away: the image's own network")
            draft.remove(path.replace("/ifcfg-", "/ifroute-"), "taken away: the image's own network")
        routes = draft.read(_ROUTES) if draft.is_file(_ROUTES) else None
        if routes is not None:
            draft.change(_ROUTES, _DEFAULT.sub(b"", routes), "default routes of another network are removed")
    write_names(draft, plans)
    interfaces = {f"{_DIRECTORY}/ifcfg-{plan.name}": text_of(_lines(plan)) for plan in plans}
    write_own_files(draft, interfaces, directory=_DIRECTORY, pattern="ifcfg-nic*")
    routes_of = {f"{_DIRECTORY}/ifroute-{plan.name}": text_of(_routes(plan)) for plan in plans}
    write_own_files(
        draft, {path: data for path, data in routes_of.items() if data}, directory=_DIRECTORY, pattern="ifroute-nic*"
    )
    _write_name_servers(draft, plans)


def _lines(plan: NicPlan) -> Iterator[str]:
    yield "STARTMODE='auto'"
    yield "BOOTPROTO='static'" if plan.is_static else "BOOTPROTO='dhcp'"
    for number, one in enumerate(plan.addresses):
        yield f"IPADDR{f'_{number}' if number else ''}='{one.interface}'"


def _routes(plan: NicPlan) -> Iterator[str]:
    for one in plan.addresses:
        if one.gateway is not None:
            if one.is_on_link:
                yield f"{one.gateway}/{one.gateway.max_prefixlen} - - {plan.name}"
            yield f"default {one.gateway} - {plan.name}"


def _write_name_servers(draft: Draft, plans: Sequence[NicPlan]) -> None:
    """Give the name servers to netconfig, which writes them together with those of DHCP."""
    wanted = {
        "NETCONFIG_DNS_STATIC_SERVERS": " ".join(str(server) for plan in plans for server in plan.name_servers),
        "NETCONFIG_DNS_STATIC_SEARCHLIST": " ".join(domain for plan in plans for domain in plan.search),
    }
    if not wanted["NETCONFIG_DNS_STATIC_SERVERS"] or not draft.is_file(_CONFIG):
        return
    data = draft.read(_CONFIG) or b""
    found = {one.name: one.span for one in shell_values(data, wanted)}
    spans = []
    added = []
    for name, text in wanted.items():
        span = found.get(name)
        if span is None or data[span.start - 1 : span.start] not in (b'"', b"'"):
            added.append(f'{name}="{text}"'.encode("ascii"))  # the last assignment applies
        else:
            spans.append((span, text.encode("ascii")))
    draft.change(_CONFIG, with_lines(substituted(data, spans), *added), "the name servers")
