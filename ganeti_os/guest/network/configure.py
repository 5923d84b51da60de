# SPDX-License-Identifier: MIT
"""Configure the network of an instance as in Ganeti: each NIC by the guest's own files if they are right, or by new
ones.

change_addresses() has already replaced addresses in place. After that (ADR 0098) a NIC whose addresses are in a file of
the guest is right, and that file is not changed. The others get new files.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from ganeti_os.guest.facts.addresses import Field, Interface
from ganeti_os.guest.facts.instance import Facts
from ganeti_os.guest.network.files import NetworkFiles
from ganeti_os.guest.network.systems import System, enable, network_system
from ganeti_os.guest.network.writing.existing_files import Foreign
from ganeti_os.guest.network.writing.nic_plan import NicPlan, nic_plans
from ganeti_os.guest.network.writing.resolver import write_resolver
from pydiskimg.system.edits.draft import Draft
from pydiskimg.system.edits.ip_address import parse_address

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class _Decision:
    """plans are written; with replaces, the guest's own files about NICs are removed."""

    plans: tuple[NicPlan, ...]
    replaces: bool = False


def configure_network(draft: Draft, facts: Facts) -> None:
    """Write the network configuration of the NICs into the guest, after change_addresses().

    Not for a guest in which cloud-init does that at boot. Raises StorageError or GuestError for files that cannot be
    read.
    """
    plans = nic_plans(facts.nics)
    if not plans:
        return
    system = network_system(draft)
    if system is None:
        static = ", ".join(str(one.interface) for plan in plans for one in plan.addresses)
        if static:
            log.warning("no known program configures the guest's network; it does not get %s", static)
        return
    foreign = system.foreign(draft)
    known = _known(draft, system, foreign)
    decision = _decide(system, plans, foreign, known, is_new=facts.is_new)
    if decision is None:
        return
    if decision.plans or any(foreign.own.values()):
        system.write(draft, decision.plans, replaces=decision.replaces)
    if decision.plans and facts.is_new:
        enable(draft, system)
    if not system.keeps_resolver:
        write_resolver(draft, plans, is_new=facts.is_new)


def _decide(
    system: System, plans: tuple[NicPlan, ...], foreign: Foreign, known: list[_Known], *, is_new: bool
) -> _Decision | None:
    """Return what to write; None if all files stay, also those written before."""
    right = {plan.index for plan in plans if plan.is_static and any(one.is_right(plan) for one in known)}
    rest = tuple(plan for plan in plans if plan.index not in right)
    if not any(plan.is_static for plan in rest):
        # DHCP: the guest's own configuration stays, unless it has none for a NIC.
        enough = foreign.covers(len(plans) if is_new else 1)
        rest = () if enough else rest
    if not rest or right:
        return _Decision(tuple(plan for plan in rest if plan.is_static or not foreign.covers(len(plans))))
    if any(foreign.own.values()) and not is_new:
        # Earlier files replaced those of the guest; others were added since by its administrator.
        by_others = bool(foreign.devices) and not system.comes_first
        return _Decision(tuple(plan for plan in rest if plan.is_static or not by_others))
    return None if _stays(system, rest, foreign, [] if is_new else known) else _Decision(rest, replaces=True)


def _stays(system: System, rest: tuple[NicPlan, ...], foreign: Foreign, known: list[_Known]) -> bool:
    """True, with a warning, if the guest's own files must not be replaced."""
    if known:
        log.warning(
            "the addresses in the guest's own network files are not changed, so it does not get %s; if they are not "
            "wanted, remove them and rename the instance again",
            ", ".join(str(one.interface) for plan in rest for one in plan.addresses),
        )
    elif foreign.odd:
        text = "%s: the guest's network files have more than its NICs, so they are not changed: %s"
        log.warning(text, system.name, foreign.odd)
    return bool(known or foreign.odd)


@dataclass(slots=True)
class _Known:
    """The configuration of one interface in the guest's own files."""

    addresses: set[str]
    gateways: set[str]

    def is_right(self, plan: NicPlan) -> bool:
        wanted = {str(one.interface.ip) for one in plan.addresses}
        gateways = {str(one.gateway) for one in plan.addresses if one.gateway is not None}
        return wanted <= self.addresses and gateways <= self.gateways


def _known(draft: Draft, system: System, foreign: Foreign) -> list[_Known]:
    """Return the static interfaces of the system's files, without those written by this package."""
    devices: dict[str, _Known] = {}
    for interface in system.read(NetworkFiles(draft)):
        if not interface.is_loopback and not interface.names_only:
            _add(devices.setdefault(interface.device, _Known(set(), set())), interface, system, foreign)
    return [one for one in devices.values() if one.addresses]


def _add(known: _Known, interface: Interface, system: System, foreign: Foreign) -> None:
    for one in _theirs([*interface.addresses, *interface.others], system, foreign):
        address = parse_address(one.span.text)
        if address is not None and one.kind == "address":
            known.addresses.add(str(address))
        elif address is not None and one.kind == "gateway":
            known.gateways.add(str(address))


def _theirs(fields: Sequence[Field], system: System, foreign: Foreign) -> Iterator[Field]:
    for one in fields:
        if one.path.startswith(system.paths) and one.span.start not in foreign.own.get(one.path, ()):
            yield one
