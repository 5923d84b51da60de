# SPDX-License-Identifier: MIT
"""*.network of systemd-networkd: the first by its name that matches an interface is used, so ours come first."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from ganeti_os.guest.network.writing.existing_files import VIRTUAL, Foreign
from ganeti_os.guest.network.writing.nic_plan import NicPlan, is_ours, write_own_files
from ganeti_os.guest.syntax.ini import ini_values
from pydiskimg.system.edits.draft import Draft

_DIRECTORY = "/etc/systemd/network"
_VENDOR = ("/usr/lib/systemd/network", "/lib/systemd/network", "/usr/local/lib/systemd/network")
_PATTERN = "0-ganeti-nic*.network"  # before the 00- and 05- of images
_WILD = re.compile(r"[*?\[!]")
_OF_OTHERS = ("bridge", "bond", "vlan", "vrf", "macvlan")
# Shipped with systemd, for containers and virtual machines that the system itself starts.
_CONTAINERS = re.compile(r"/80-(?:container|vm|namespace|6rd|wifi|auto-link-local|iwd|ethernet)[^/]*$")

PATHS = (f"{_DIRECTORY}/",)


def networkd_foreign(draft: Draft) -> Foreign:
    """Return the configuration of the guest's other *.network files."""
    foreign = Foreign()
    for directory in (_DIRECTORY, *_VENDOR):
        for path in draft.files(directory, "*.network"):
            data = draft.read(path) or b""
            if is_ours(draft, path):
                foreign.note_own(path, data)
            elif not (directory in _VENDOR and _CONTAINERS.search(path)):
                _note(foreign, path, data)
    return foreign


def _note(foreign: Foreign, path: str, data: bytes) -> None:
    names: list[str] = []
    matches = []
    for value in ini_values(data):
        section, key, text = value.section, value.key, value.span.text.decode("latin-1")
        if section == "match":
            matches.append(key)
            names += text.split() if key in ("name", "originalname") else []
            if key == "kind" or (key == "type" and text not in ("ether", "ethernet")):
                return
        elif section == "network" and key in _OF_OTHERS:
            foreign.note_odd(f"{path}: {key}")
    if names and all(VIRTUAL.fullmatch(name) or name == "lo" for name in names):
        return
    for name in names or [path]:
        by_mac = not names and any("macaddress" in key for key in matches)
        foreign.note(name, is_pattern=bool(_WILD.search(name)) if names else not by_mac)


def write_networkd(draft: Draft, plans: Sequence[NicPlan], *, replaces: bool) -> None:
    """Write a file for each NIC. Others stay: ours have precedence, and the others may be for a later NIC.

    With replaces, files with static addresses are removed, because no NIC must have these.
    """
    if replaces:
        for path in draft.files(_DIRECTORY, "*.network"):
            values = list(ini_values(draft.read(path) or b""))
            static = any(one.section in ("network", "address") and one.key == "address" for one in values)
            loopback = any(one.key == "name" and one.span.text == b"lo" for one in values)
            if static and not loopback and not is_ours(draft, path):
                draft.remove(path, "taken away: its addresses are not the instance's")
    files = {f"{_DIRECTORY}/0-ganeti-{plan.name}.network": "\n".join(_lines(plan)).encode("ascii") for plan in plans}
    write_own_files(draft, files, directory=_DIRECTORY, pattern=_PATTERN)


def _lines(plan: NicPlan) -> Iterator[str]:
    yield from ("[Match]", f"MACAddress={plan.mac}", "Type=ether", "", "[Network]")
    if not plan.is_static:
        yield from ("DHCP=yes", "")
        return
    yield from (f"Address={one.interface}" for one in plan.addresses)
    yield from (f"DNS={server}" for server in plan.name_servers)
    if plan.search:
        yield f"Domains={' '.join(plan.search)}"
    yield ""
    for one in plan.addresses:
        if one.gateway is not None:
            yield from ("[Route]", f"Gateway={one.gateway}")
            if one.is_on_link:
                yield "GatewayOnlink=yes"  # this spelling until systemd 241, and still accepted
            yield ""
