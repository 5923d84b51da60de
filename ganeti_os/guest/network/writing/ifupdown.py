# SPDX-License-Identifier: MIT
"""/etc/network/interfaces of ifupdown, ifupdown2, ifupdown-ng and busybox: our stanzas are at the end of the file.

They identify an interface only by its name, so udev gives the NIC one. Without udev, Debian's ifupdown finds it by its
hardware address, but only with ifup -a: commands with the interface's name find no stanza then (ADR 0099).
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from ganeti_os.guest.network.writing.appended_lines import own_block, with_block
from ganeti_os.guest.network.writing.existing_files import VIRTUAL, Foreign
from ganeti_os.guest.network.writing.nic_plan import NicPlan, StaticAddress
from ganeti_os.guest.network.writing.stable_names import has_udev, write_names
from pydiskimg.system.edits.draft import Draft

_PATH = "/etc/network/interfaces"
_DIRECTORY = "/etc/network/interfaces.d"
_PROGRAMS = ("/sbin/ifup", "/usr/sbin/ifup")
_LARGEST_PROGRAM = 512 << 10  # bytes; Debian's has 90 KB, busybox 1 MB
_MATCHES_BY_MAC = b"/sys/class/net/%s/%s"  # in the program, since 0.8.11 (Debian 9)
_LINE = re.compile(rb"^[ \t]*+([^#\s](?:[^\\\n]|\\(?:[^\n]|\n|\Z))*+)\n?", re.MULTILINE)
_STARTS = re.compile(rb"(?:iface|template|mapping|rename|source|source-directory|auto|allow-[\w-]+|no-[\w-]+)\Z")
_METHODS = (b"dhcp", b"static", b"auto", b"manual", b"loopback")
_ODD_OPTIONS = (b"bridge", b"bond", b"slaves", b"vlan", b"wpa-", b"wireless", b"vrf", b"tunnel")

PATHS = ("/etc/network/",)


@dataclass(slots=True)
class _Stanza:
    """A line that starts a stanza, with the options after it: start and end are bytes of the file."""

    words: list[bytes]
    start: int
    end: int
    options: list[bytes]

    @property
    def keyword(self) -> bytes:
        return self.words[0]

    @property
    def names(self) -> list[bytes]:
        return self.words[1:2] if self.keyword in (b"iface", b"template") else self.words[1:]

    @property
    def is_for_loopback(self) -> bool:
        return all(name.partition(b":")[0] == b"lo" for name in self.names)


def _stanzas(data: bytes) -> Iterator[_Stanza]:
    """Yield the stanzas outside of our own lines."""
    own = own_block(data)
    stanza: _Stanza | None = None
    for line in _LINE.finditer(data):
        words = line.group(1).replace(b"\\\n", b" ").split()
        if not words or line.start() in own:
            continue
        if _STARTS.match(words[0]):
            if stanza is not None:
                yield stanza
            stanza = _Stanza(words, line.start(), line.end(), [])
        elif stanza is not None:
            stanza.options.append(words[0])
            stanza.end = line.end()
    if stanza is not None:
        yield stanza


def _paths(draft: Draft) -> list[str]:
    return [*draft.files("/etc/network", "interfaces"), *draft.files(_DIRECTORY, "*")]


def ifupdown_foreign(draft: Draft) -> Foreign:
    """Return the configuration of the stanzas that are not ours."""
    foreign = Foreign()
    for path in _paths(draft):
        data = draft.read(path) or b""
        foreign.own[path] = own_block(data)
        for stanza in _stanzas(data):
            if not stanza.is_for_loopback or stanza.keyword == b"source":
                _note(foreign, path, stanza)
    return foreign


def _note(foreign: Foreign, path: str, stanza: _Stanza) -> None:
    text = b" ".join(stanza.words[:4]).decode("latin-1")[:80]
    if stanza.keyword in (b"source", b"source-directory"):
        if not all(b"interfaces.d" in name for name in stanza.names):
            foreign.note_odd(f"{path}: {text}")
    elif stanza.keyword == b"iface":
        name = stanza.names[0].decode("latin-1") if stanza.names else ""
        foreign.note(name.partition(":")[0])
        is_virtual = VIRTUAL.fullmatch(name) is not None
        has_method = stanza.words[2:3] in ([b"inet"], [b"inet6"])
        is_odd = has_method and not all(word in _METHODS for word in stanza.words[3:4])
        if is_virtual or is_odd or any(option.startswith(_ODD_OPTIONS) for option in stanza.options):
            foreign.note_odd(f"{path}: {text}")
    elif stanza.keyword in (b"mapping", b"rename", b"template"):
        foreign.note_odd(f"{path}: {text}")


def write_interfaces(draft: Draft, plans: Sequence[NicPlan], *, replaces: bool) -> None:
    """Write our stanzas; with replaces, those of interfaces other than loopback are removed."""
    if replaces:
        for path in _paths(draft):
            data = draft.read(path) or b""
            rest = _without_interfaces(data)
            if rest != data:
                draft.change(path, rest, "the image's own interfaces are removed")
    by_udev = has_udev(draft)
    by_mac = not by_udev and _matches_by_mac(draft)
    write_names(draft, plans if by_udev else ())
    lines = "\n".join(_lines(plan, by_mac=by_mac, by_udev=by_udev) for plan in plans)
    data = draft.read(_PATH) or b""
    if data or plans:
        start = data or b"auto lo\niface lo inet loopback\n"
        draft.change(_PATH, with_block(start, lines.encode("ascii")), "the network of the instance")


def _without_interfaces(data: bytes) -> bytes:
    parts = []
    position = 0
    for stanza in _stanzas(data):
        if stanza.is_for_loopback or stanza.keyword.startswith(b"source"):
            continue
        kept = b""
        if stanza.keyword != b"iface" and b"lo" in stanza.names:
            kept = stanza.keyword + b" lo\n"
        parts += [data[position : stanza.start], kept]
        position = stanza.end
    return b"".join([*parts, data[position:]])


def _matches_by_mac(draft: Draft) -> bool:
    for path in _PROGRAMS:
        status = draft.stat(path)
        if status is not None and draft.is_file(path) and status.st_size <= _LARGEST_PROGRAM:
            return _MATCHES_BY_MAC in (draft.read(path) or b"")
    return False


def _lines(plan: NicPlan, *, by_mac: bool, by_udev: bool) -> str:
    name = plan.name if by_mac or by_udev else f"eth{plan.index}"
    lines = [f"auto mac/{plan.mac}={name}" if by_mac else f"auto {name}"]
    if not plan.is_static:
        lines.append(f"iface {name} inet dhcp")
    for number, one in enumerate(plan.addresses):
        lines += _stanza(name, one, plan if number == 0 else None)
    return "".join(f"{line}\n" for line in lines)


def _stanza(name: str, one: StaticAddress, plan: NicPlan | None) -> Iterator[str]:
    """Yield the lines of one family; with the plan also the lines that are needed once."""
    family = "inet" if one.version == 4 else "inet6"
    yield f"iface {name} {family} static"
    yield f"    address {one.interface.ip}"
    mask = one.interface.netmask if one.version == 4 else one.interface.network.prefixlen
    yield f"    netmask {mask}"
    if one.gateway is not None and not one.is_on_link:
        yield f"    gateway {one.gateway}"
    elif one.gateway is not None:
        ip = "ip" if one.version == 4 else "ip -6"
        yield f"    up {ip} route add {one.gateway}/{one.gateway.max_prefixlen} dev $IFACE"
        yield f"    up {ip} route add default via {one.gateway} dev $IFACE"
    elif one.version == 6:
        yield "    accept_ra 1"
    if plan is not None and plan.name_servers:
        yield f"    dns-nameservers {' '.join(map(str, plan.name_servers))}"
        if plan.search:
            yield f"    dns-search {' '.join(plan.search)}"
