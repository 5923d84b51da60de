# SPDX-License-Identifier: MIT
"""ip(8), route(8) and ifconfig(8) in the lines of a guest's network files: the addresses and routes that they set."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field

from ganeti_os.guest.facts.addresses import DEFAULT_ROUTES
from pydiskimg.system.edits.ip_address import parse_address
from pydiskimg.system.edits.span import Span

# A command ends at ; & |; a quotation mark is a word of its own.
_WORD = re.compile(rb"[;&|]++|(?:[^\s;&|\"'`()\\]|\\[^\n])++")
_WORDS = 64  # of one command
_BROADCAST = (b"broadcast", b"brd")
_ROUTE_VERBS = (b"add", b"append", b"change", b"replace", b"prepend", b"del", b"delete")
_ADDRESS_VERBS = (b"add", b"change", b"replace", b"del", b"delete")


@dataclass(slots=True)
class Command:
    """One command: device is the interface in it, if any; values are (kind, span) as in a Field."""

    device: bytes | None = None
    values: list[tuple[str, Span]] = field(default_factory=list)

    @property
    def gives_address(self) -> bool:
        return any(kind == "address" for kind, _ in self.values)


def commands(data: bytes, start: int, end: int) -> Iterator[Command]:
    """Yield the addresses and default routes of each command between two bytes."""
    for words in _simple_commands(data, start, end):
        names = [word.text.rpartition(b"/")[2] for word in words]
        for name, read in ((b"ip", _ip), (b"route", _route), (b"ifconfig", _ifconfig)):
            if name in names:
                yield read(words[names.index(name) + 1 :])
                break


def ip_route(data: bytes, start: int, end: int) -> Command:
    """Return the values of the operands of `ip route add`, as in each line of Red Hat's route-NAME."""
    return _ip_route([Span.of(word) for word in _WORD.finditer(data, start, end)][:_WORDS])


def _simple_commands(data: bytes, start: int, end: int) -> Iterator[list[Span]]:
    words: list[Span] = []
    for match in _WORD.finditer(data, start, end):
        if match[0][:1] in b";&|":
            yield words
            words = []
        elif len(words) < _WORDS:
            words.append(Span.of(match))
    yield words


def _ip(words: list[Span]) -> Command:
    words = [word for word in words if not word.text.startswith(b"-")]
    if len(words) < 3:
        return Command()
    what, verb = words[0].text, words[1].text
    if b"address".startswith(what) and verb in _ADDRESS_VERBS:
        return _ip_address(words[2:])
    if b"route".startswith(what) and verb in _ROUTE_VERBS:
        return _ip_route(words[2:])
    return Command()


def _ip_address(words: list[Span]) -> Command:
    found, previous = Command(), b""
    for word in words:
        if previous == b"dev":
            found.device = word.text
        elif previous in _BROADCAST:
            found.values.append(("broadcast", word))
        elif previous in (b"", b"local") and _is_address(word):
            found.values.append(("address", word))
        previous = word.text
    return found


def _ip_route(words: list[Span]) -> Command:
    found, previous, is_default = Command(), b"", False
    for word in words:
        is_default = is_default or (previous in (b"", b"to") and word.text in DEFAULT_ROUTES)
        if previous == b"dev":
            found.device = word.text
        elif previous in (b"via", b"inet", b"inet6") and is_default and _is_address(word):
            found.values.append(("gateway", word))
        previous = word.text
    return found


def _route(words: list[Span]) -> Command:
    found, previous, texts = Command(), b"", [word.text for word in words]
    is_default = not DEFAULT_ROUTES.isdisjoint(texts) or b"0.0.0.0" in texts
    for word in words:
        if previous in (b"gw", b"via") and is_default and _is_address(word):
            found.values.append(("gateway", word))
        elif previous == b"dev":
            found.device = word.text
        previous = word.text
    return found


def _ifconfig(words: list[Span]) -> Command:
    if not words:
        return Command()
    found, previous = Command(words[0].text), b""
    for word in words[1:]:
        if previous in (b"netmask", b"prefixlen"):
            found.values.append(("netmask", word))
        elif previous in _BROADCAST:
            found.values.append(("broadcast", word))
        elif previous in (b"", b"inet", b"inet6", b"add") and _is_address(word):
            found.values.append(("address", word))
        previous = word.text
    return found


def _is_address(word: Span) -> bool:
    return parse_address(word.text.partition(b"/")[0]) is not None
