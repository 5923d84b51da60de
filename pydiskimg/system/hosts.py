# SPDX-License-Identifier: MIT
"""hosts(5): the guest's own names and addresses in /etc/hosts."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping

from pydiskimg.system.edits.draft import Draft
from pydiskimg.system.edits.ip_address import IPAddress, parse_address
from pydiskimg.system.edits.renaming import Renaming, short
from pydiskimg.system.edits.span import Span, substituted

PATH = "/etc/hosts"
OWN_ADDRESS = b"127.0.1.1"  # for a host whose own address is not known: Debian's convention
_LOCALHOST = b"127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n"
_LINE = re.compile(rb"^([^#\n]*+)", re.MULTILINE)  # without its comment
_WORD = re.compile(rb"[^\s#]++")


def change_hosts(
    draft: Draft, renaming: Renaming, addresses: Mapping[bytes, bytes], *, own_address: bytes | None = None
) -> None:
    """Replace old names in the columns of names, and old addresses by new ones in the first column.

    On lines about the system (a loopback address, one of addresses, or an old name of the system) an old name is
    replaced in any domain. The line of OWN_ADDRESS or of a new address names the system first, with its domain:
    `hostname -f` prints that name. addresses are spelled as in the guest. With own_address a line is added if none
    names the system.
    """
    data = draft.read(PATH)
    if data is None and own_address is None:
        return
    names: list[tuple[Span, bytes]] = []
    moved: list[tuple[Span, bytes]] = []
    is_named = False
    for words in _lines(data or b""):
        address = addresses.get(words[0].text)
        if address is not None and address != words[0].text:
            moved.append((words[0], address))
        is_first = (address or words[0].text) in (OWN_ADDRESS, own_address, *addresses.values())
        changed = _renamed(words[1:], renaming, is_own=is_first or _is_own(words, renaming))
        is_first = is_first and len(words) > 1
        names += _replacements(words[1:], changed, renaming, is_first=is_first)
        is_named = is_named or is_first or any(renaming.is_new(name.decode("latin-1")) for name in changed)
    new = substituted(data or b"", names + moved)
    what = [*_counted(len(names), "name", "names"), *_counted(len(moved), "address", "addresses")]
    if own_address is not None and not is_named:
        new = _with_own_line(new, own_address, renaming.new)
        what.append("a line for the system")
    draft.change(PATH, new, ", ".join(what))


def _counted(count: int, one: str, many: str) -> list[str]:
    return [f"{count} {one if count == 1 else many} changed"] if count else []


def named_addresses(draft: Draft, renaming: Renaming) -> frozenset[IPAddress]:
    """Return the addresses, except loopback's, on the lines that have an old name of the system."""
    found: set[IPAddress | None] = set()
    for words in _lines(draft.read(PATH) or b""):
        address = parse_address(words[0].text)
        is_own = address is not None and not address.is_loopback
        if is_own and any(renaming.replaced_bytes(word.text) != word.text for word in words[1:]):
            found.add(address)
    return frozenset(address for address in found if address is not None)


def _with_own_line(data: bytes, address: bytes, name: str) -> bytes:
    """Add a line that names the system after the first lines about localhost, where people look for it."""
    line = address + b"\t" + b" ".join(_own_names(name)) + b"\n"
    if not data.strip():
        return _LOCALHOST + line
    lines = data.splitlines(keepends=True)
    if not lines[-1].endswith(b"\n"):
        lines[-1] += b"\n"
    at = next((number + 1 for number, text in enumerate(lines) if text.split()[:1] == [b"127.0.0.1"]), len(lines))
    return b"".join([*lines[:at], line, *lines[at:]])


def _own_names(name: str) -> list[bytes]:
    return [text.encode("ascii") for text in dict.fromkeys((name, short(name)))]


def _is_own(words: list[Span], renaming: Renaming) -> bool:
    """True if a line is about the system itself: by its address, or by an old name of the system in it."""
    address = parse_address(words[0].text)
    return (address is not None and address.is_loopback) or any(
        renaming.replaced_bytes(word.text) != word.text for word in words[1:]
    )


def _renamed(words: list[Span], renaming: Renaming, *, is_own: bool) -> list[bytes]:
    """Return the replacement of each name."""
    names = []
    for word in words:
        found = word.text.decode("latin-1")  # one character for each byte, and no other byte is a letter of a name
        new = renaming.replaced_in_any_domain(found) if is_own else renaming.replaced(found)
        names.append(word.text if new is None else new.encode("latin-1"))
    return names


def _replacements(
    words: list[Span], changed: list[bytes], renaming: Renaming, *, is_first: bool
) -> Iterator[tuple[Span, bytes]]:
    """Yield each changed word, or the names as a whole if the system must come first."""
    if is_first and not _names_first(changed[0].decode("latin-1"), renaming.new):
        own = _own_names(renaming.new)
        others = [name for name in changed if not renaming.is_new(name.decode("latin-1").removesuffix("."))]
        yield Span(words[0].start, words[-1].end, b""), b" ".join([*own, *dict.fromkeys(others)])
        return
    for word, name in zip(words, changed, strict=True):
        if name != word.text:
            yield word, name


def _names_first(found: str, new: str) -> bool:
    """True if the first name of a line is the instance's, in its domain if it has one."""
    name = found.removesuffix(".").lower()
    return name == new.lower() if "." in new else short(name) == new.lower()


def _lines(data: bytes) -> Iterator[list[Span]]:
    for line in _LINE.finditer(data):
        words = [Span.of(word) for word in _WORD.finditer(data, *line.span(1))]
        if words:
            yield words
