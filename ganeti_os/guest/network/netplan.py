# SPDX-License-Identifier: MIT
"""netplan's YAML, as far as its files look in practice: keys by their indentation, addresses as words.

A YAML file may say the same in other ways (one line in braces, anchors); an address that is not found stays.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from ganeti_os.guest.draft import Draft
from ganeti_os.guest.network.addresses import Interface
from ganeti_os.guest.network.span import Span

_DEPTH = 32  # of keys and list items inside each other
_KINDS = (b"ethernets", b"bonds", b"bridges", b"vlans", b"wifis")
_DEFAULT = (b"default", b"0.0.0.0/0", b"::/0")
_LINE = re.compile(rb"^( *+)([^#\s][^\r\n]*+)", re.MULTILINE)
_ITEM = re.compile(rb"-(?: ++|$)")
_KEY = re.compile(rb"[\"']?([\w.@-]++)[\"']?:(?=\s|$)")
_WORD = re.compile(rb"[^\s\[\],\"'{}#]++")

_Path = tuple[bytes, ...]


def netplan_interfaces(draft: Draft) -> Iterator[Interface]:
    """Yield each interface of each file."""
    for path in draft.files("/etc/netplan", "*.yaml"):
        interfaces: dict[bytes, Interface] = {}
        routes: dict[_Path, dict[bytes, Span]] = {}
        for keys, word in _words(draft.read(path) or b""):
            if len(keys) < 4 or keys[0] != b"network" or keys[1] not in _KINDS:
                continue
            interface = interfaces.setdefault(keys[2], Interface(keys[2].decode("latin-1")))
            if keys[3] == b"addresses":
                text = word.text.removesuffix(b":")  # an item with options of its own
                interface.add(path, "address", Span(word.start, word.start + len(text), text))
            elif keys[3] in (b"gateway4", b"gateway6"):
                interface.add(path, "gateway", word)
            elif keys[3] == b"routes" and len(keys) == 6:
                routes.setdefault(keys[:5], {})[keys[5]] = word
        for keys, route in routes.items():
            if b"via" in route and b"to" in route and route[b"to"].text in _DEFAULT:
                interfaces[keys[2]].add(path, "gateway", route[b"via"])
        yield from interfaces.values()


def _words(data: bytes) -> Iterator[tuple[_Path, Span]]:
    """Yield each word of each value with the keys above it; an item of a list is a key of its own."""
    stack: list[tuple[int, bytes]] = []
    for line in _LINE.finditer(data):
        column, position, end = len(line.group(1)), line.start(2), line.end(2)
        while item := _ITEM.match(data, position, end):
            # A list may be indented as little as the key that it belongs to.
            _leave(stack, column, items_only=True)
            stack.append((column, b"- %d" % position))
            column, position = column + item.end() - position, item.end()
        key = _KEY.match(data, position, end)
        if key:
            _leave(stack, column, items_only=False)
            stack.append((column, key.group(1)))
            position = key.end()
        if len(stack) > _DEPTH:
            return
        keys = tuple(name for _, name in stack)
        for word in _WORD.finditer(data, position, _comment(data, position, end)):
            yield keys, Span.of(word)


def _leave(stack: list[tuple[int, bytes]], column: int, *, items_only: bool) -> None:
    while stack and (
        stack[-1][0] > column or (stack[-1][0] == column and not (items_only and not stack[-1][1].startswith(b"- ")))
    ):
        stack.pop()


def _comment(data: bytes, position: int, end: int) -> int:
    found = data.find(b" #", position, end)
    return end if found < 0 else found
