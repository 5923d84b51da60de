# SPDX-License-Identifier: MIT
"""netplan's YAML: one file for all NICs. Another file that names an ethernet might match a NIC before ours."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence

from ganeti_os.guest.network.writing.existing_files import Foreign
from ganeti_os.guest.network.writing.nic_plan import HEADER, NicPlan, StaticAddress, is_ours, text_of
from ganeti_os.guest.syntax.yaml_nodes import Mapping, YamlError, yaml_document
from pydiskimg.system.edits.draft import Draft

_DIRECTORY = "/etc/netplan"
_PATH = f"{_DIRECTORY}/95-ganeti.yaml"
_RENDERER = re.compile(rb"^[ \t]*+[\"']?renderer[\"']?[ \t]*+:[ \t]*+[\"']?NetworkManager", re.MULTILINE)
_TOTAL = 128 << 10  # bytes of all files; PyYAML reads about 200 KB a second
_PLAIN = ("version", "renderer", "ethernets")

PATHS = (f"{_DIRECTORY}/",)


def netplan_foreign(draft: Draft) -> Foreign:
    """Return the configuration of the other files."""
    foreign = Foreign()
    rest = _TOTAL
    for path in draft.files(_DIRECTORY, "*.yaml"):
        data = draft.read(path) or b""
        rest -= len(data)
        if is_ours(draft, path):
            foreign.note_own(path, data)
            continue
        sections = _sections(data) if rest >= 0 else None
        if sections is None:
            foreign.note_odd(f"{path}: its form is unknown")
            continue
        for kind, names in sections.items():
            if kind not in _PLAIN:
                foreign.note_odd(f"{path}: {kind}")
            elif kind == "ethernets":
                for name, is_matched in names.items():
                    foreign.note(name, is_pattern=is_matched)
    return foreign


def _sections(data: bytes) -> dict[str, dict[str, bool]] | None:
    """Return the interfaces of each kind, and whether each is matched by something other than its name.

    Return None for files that cannot be interpreted, also if no YAML library is installed.
    """
    try:
        document = yaml_document(data)
    except (YamlError, ModuleNotFoundError):
        return None
    if document is None:
        return {}
    network = document.get("network") if isinstance(document, Mapping) else None
    if not isinstance(network, Mapping):
        return None
    found: dict[str, dict[str, bool]] = {}
    for kind, value in network.items():
        names = value.items() if isinstance(value, Mapping) else []
        found[kind.value] = {
            name.value: isinstance(each, Mapping) and isinstance(each.get("match"), Mapping) for name, each in names
        }
    return found


def remove_foreign_netplan(draft: Draft) -> None:
    """Remove other files that name ethernets: the new file names each NIC."""
    for path in draft.files(_DIRECTORY, "*.yaml"):
        if not is_ours(draft, path) and "ethernets" in (_sections(draft.read(path) or b"") or {}):
            draft.remove(path, "taken away: the image's own network")


def write_netplan(draft: Draft, plans: Sequence[NicPlan], *, replaces: bool) -> None:
    """Write our file; with replaces, files that name other ethernets are removed, except for their renderer."""
    renderer = ""
    for path in draft.files(_DIRECTORY, "*.yaml"):
        data = draft.read(path) or b""
        if _RENDERER.search(data):
            renderer = "  renderer: NetworkManager\n"
    if replaces:
        remove_foreign_netplan(draft)
    if not plans:
        if draft.is_file(_PATH) and is_ours(draft, _PATH):
            draft.remove(_PATH, "taken away: it is for NICs that the instance no longer has")
        return
    lines = ["network:", "  version: 2", *([renderer.rstrip()] if renderer else []), "  ethernets:"]
    lines += [line for plan in plans for line in _lines(plan)]
    data = HEADER + text_of(lines)
    draft.change(_PATH, data, "the network of the instance", mode=0o600)


def _lines(plan: NicPlan) -> Iterator[str]:
    yield from (f"    {plan.name}:", "      match:", f'        macaddress: "{plan.mac}"')
    if not plan.is_static:
        yield "      dhcp4: true"
        return
    yield from ("      dhcp4: false", "      addresses:")
    yield from (f'        - "{one.interface}"' for one in plan.addresses)
    if plan.name_servers:
        yield "      nameservers:"
        yield f"        addresses: {json.dumps([str(server) for server in plan.name_servers])}"
        if plan.search:
            yield f"        search: {json.dumps(plan.search)}"
    routed = [one for one in plan.addresses if one.gateway is not None]
    if routed:
        yield "      routes:"
        yield from (line for one in routed for line in _route(one))


def _route(one: StaticAddress) -> Iterator[str]:
    yield f'        - to: "{"0.0.0.0/0" if one.version == 4 else "::/0"}"'  # not "default": netplan before 0.103
    yield f'          via: "{one.gateway}"'
    if one.is_on_link:
        yield "          on-link: true"
