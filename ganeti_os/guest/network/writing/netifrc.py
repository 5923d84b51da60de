# SPDX-License-Identifier: MIT
"""/etc/conf.d/net of Gentoo's netifrc, and a service net.NAME for each NIC: by names alone."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from ganeti_os.guest.network.writing.appended_lines import own_block, with_block
from ganeti_os.guest.network.writing.existing_files import VIRTUAL, Foreign
from ganeti_os.guest.network.writing.nic_plan import NicPlan
from ganeti_os.guest.network.writing.stable_names import has_udev, write_names
from pydiskimg.system.edits.draft import Draft

_PATH = "/etc/conf.d/net"
_SERVICES = "/etc/init.d"
_RUNLEVEL = "/etc/runlevels/default"
_ODD = re.compile(rb"^[ \t]*+(bridge_\w++|slaves_\w++|vlans_\w++|bridge_\w*+|iptunnel_\w++)", re.MULTILINE)

PATHS = (_PATH,)


def _enabled(draft: Draft) -> list[str]:
    """Return the names of the interfaces whose service is in the default runlevel."""
    names = [path.rpartition("/net.")[2] for path in draft.files(_RUNLEVEL, "net.*")]
    return [name for name in names if name != "lo"]


def netifrc_foreign(draft: Draft) -> Foreign:
    """Return the running configuration that is not ours."""
    foreign = Foreign()
    data = (draft.read(_PATH) or b"") if draft.is_file(_PATH) else b""
    own = own_block(data)
    foreign.own[_PATH] = own
    ours = {name.decode("ascii") for name in re.findall(rb"config_([a-z0-9]++)=", data[own.start : own.stop])}
    for name in _enabled(draft):
        if name not in ours:
            foreign.note(name)
            if VIRTUAL.fullmatch(name):
                foreign.note_odd(f"{_RUNLEVEL}/net.{name}: not a plain ethernet")
    for match in _ODD.finditer(data):
        if match.start() not in own:
            foreign.note_odd(f"{_PATH}: {match[1].decode('ascii')}")
    return foreign


def write_netifrc(draft: Draft, plans: Sequence[NicPlan], *, replaces: bool) -> None:
    """Write our lines, and enable a service for each NIC; with replaces, other NICs' services are disabled."""
    by_udev = has_udev(draft)
    names = {plan.index: plan.name if by_udev else f"eth{plan.index}" for plan in plans}
    if replaces:
        for name in _enabled(draft):
            if name not in names.values():
                draft.remove(f"{_RUNLEVEL}/net.{name}", "taken away: the image's own network")
        draft.remove(f"{_RUNLEVEL}/dhcpcd", "taken away: the image's own network")
    write_names(draft, plans if by_udev else ())
    data = draft.read(_PATH) or b""
    lines = "".join(f"{line}\n" for plan in plans for line in _lines(plan, names[plan.index]))
    if data or plans:
        draft.change(_PATH, with_block(data, lines.encode("ascii")), "the network of the instance")
    for name in names.values():
        draft.symlink(f"{_SERVICES}/net.{name}", f"{_SERVICES}/net.lo", "the service of a NIC")
        draft.symlink(f"{_RUNLEVEL}/net.{name}", f"{_SERVICES}/net.{name}", "the service of a NIC is enabled")


def _lines(plan: NicPlan, name: str) -> Iterator[str]:
    if not plan.is_static:
        yield f'config_{name}="dhcp"'
        return
    yield f'config_{name}="' + "\n".join(str(one.interface) for one in plan.addresses) + '"'
    routes = [
        f"default via {one.gateway}{' onlink' if one.is_on_link else ''}"
        for one in plan.addresses
        if one.gateway is not None
    ]
    if routes:
        yield f'routes_{name}="' + "\n".join(routes) + '"'
    if plan.name_servers:
        yield f'dns_servers_{name}="{" ".join(map(str, plan.name_servers))}"'
        if plan.search:
            yield f'dns_search_{name}="{" ".join(plan.search)}"'
