# SPDX-License-Identifier: MIT
"""ifcfg-NAME of Red Hat's network scripts, which NetworkManager reads, too, up to RHEL 9."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from ganeti_os.guest.network.writing.existing_files import VIRTUAL, Foreign
from ganeti_os.guest.network.writing.nic_plan import NicPlan, StaticAddress, is_ours, text_of, write_own_files
from pydiskimg.system.edits.draft import Draft
from pydiskimg.system.edits.shell_values import shell_values

_DIRECTORY = "/etc/sysconfig/network-scripts"
_COPIES = ("~", ".bak", ".old", ".orig", ".rpmnew", ".rpmorig", ".rpmsave", ".template")
_SCRIPT = f"{_DIRECTORY}/ifup-eth"
_FIRST = 999  # of NetworkManager's priorities
_ODD = frozenset({"BRIDGE", "MASTER", "SLAVE", "VLAN", "BONDING_OPTS", "TEAM_MASTER", "TEAM_CONFIG", "PHYSDEV"})
_READ = _ODD | {"DEVICE", "TYPE", "HWADDR"}

PATHS = (f"{_DIRECTORY}/", "/etc/sysconfig/network")


def ifcfg_of_others(draft: Draft, directory: str) -> list[str]:
    """Return the paths of the files ifcfg-* that are not ours, without the loopback's and copies."""
    paths = draft.files(directory, "ifcfg-*")
    return [path for path in paths if not path.endswith((*_COPIES, "/ifcfg-lo")) and not is_ours(draft, path)]


def foreign_beside_own(draft: Draft, directory: str, pattern: str) -> Foreign:
    """Return a Foreign that records which of the matching files are ours, and nothing else yet."""
    foreign = Foreign()
    for path in draft.files(directory, pattern):
        if is_ours(draft, path):
            foreign.note_own(path, draft.read(path) or b"")
    return foreign


def ifcfg_foreign(draft: Draft) -> Foreign:
    """Return the configuration of the other files."""
    foreign = foreign_beside_own(draft, _DIRECTORY, "ifcfg-*")
    for path in ifcfg_of_others(draft, _DIRECTORY):
        values = {one.name: one.span.text if one.span else b"" for one in shell_values(draft.read(path) or b"", _READ)}
        name = values.get("DEVICE", b"").decode("latin-1") or path.rpartition("/ifcfg-")[2]
        is_ethernet = values.get("TYPE", b"Ethernet").lower() == b"ethernet"
        if not is_ethernet or VIRTUAL.fullmatch(name) or _ODD & values.keys():
            foreign.note_odd(f"{path}: not a plain ethernet")
        foreign.note(name.partition(":")[0])
    return foreign


def write_ifcfg(draft: Draft, plans: Sequence[NicPlan], *, replaces: bool) -> None:
    """Write a file for each NIC, and its routes if it cannot have them; with replaces, other NICs' files go."""
    if replaces:
        for path in ifcfg_of_others(draft, _DIRECTORY):
            name = path.rpartition("/ifcfg-")[2]
            draft.remove(path, "taken away: the image's own network")
            for kind in ("route", "route6"):
                draft.remove(f"{_DIRECTORY}/{kind}-{name}", "taken away: the image's own network")
    by_scripts = draft.is_file(_SCRIPT)
    named = {plan.index for plan in plans if by_scripts and any(map(_needs_name, plan.addresses))}
    files = {f"{_DIRECTORY}/ifcfg-{plan.name}": text_of(_lines(plan, is_named=plan.index in named)) for plan in plans}
    write_own_files(draft, files, directory=_DIRECTORY, pattern="ifcfg-nic*")
    for version, kind in ((4, "route"), (6, "route6")):
        on_link = [(plan, one) for plan in plans for one in plan.addresses if by_scripts and one.is_on_link]
        routes = {
            f"{_DIRECTORY}/{kind}-{plan.name}": text_of(_routes(plan, one))
            for plan, one in on_link
            if one.version == version
        }
        write_own_files(draft, routes, directory=_DIRECTORY, pattern=f"{kind}-nic*")


def _needs_name(one: StaticAddress) -> bool:
    """True for a gateway that the scripts reach by a separate route, or by a device's name in the scope of a link.

    NetworkManager makes such a route itself.
    """
    return one.is_on_link or (one.gateway is not None and one.gateway.is_link_local)


def _lines(plan: NicPlan, *, is_named: bool) -> Iterator[str]:
    yield from ("TYPE=Ethernet", f"NAME={plan.name}", f"HWADDR={plan.mac.upper()}", "ONBOOT=yes")
    if is_named:
        yield f"DEVICE={plan.name}"  # initscripts' udev rule names it so by HWADDR
    yield f"AUTOCONNECT_PRIORITY={_FIRST}"
    yield "BOOTPROTO=none" if plan.is_static else "BOOTPROTO=dhcp"
    yield from _address_lines(plan, is_named=is_named)
    for number, server in enumerate(plan.name_servers, 1):
        yield f"DNS{number}={server}"
    if plan.name_servers and plan.search:
        yield f'DOMAIN="{" ".join(plan.search)}"'


def _address_lines(plan: NicPlan, *, is_named: bool) -> Iterator[str]:
    four, six = plan.of_family(4), plan.of_family(6)
    if four is not None:
        network = four.interface.network
        yield from (f"IPADDR={four.interface.ip}", f"PREFIX={network.prefixlen}", f"NETMASK={network.netmask}")
        if four.gateway is not None and not (is_named and four.is_on_link):
            yield f"GATEWAY={four.gateway}"
    yield "IPV6INIT=yes"
    if six is not None:
        yield from ("IPV6_AUTOCONF=no" if six.gateway is not None else "IPV6_AUTOCONF=yes", f"IPV6ADDR={six.interface}")
        if six.gateway is not None and not (is_named and six.is_on_link):
            scope = f"%{plan.name}" if six.gateway.is_link_local and is_named else ""
            yield f"IPV6_DEFAULTGW={six.gateway}{scope}"


def _routes(plan: NicPlan, one: StaticAddress) -> Iterator[str]:
    assert one.gateway is not None
    yield f"{one.gateway}/{one.gateway.max_prefixlen} dev {plan.name}"
    yield f"default via {one.gateway} dev {plan.name}"
