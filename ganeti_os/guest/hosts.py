# SPDX-License-Identifier: MIT
"""hosts(5): the guest's own names and addresses in /etc/hosts."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping

from ganeti_os.guest.draft import Draft
from ganeti_os.guest.network.addresses import parse_address
from ganeti_os.guest.network.span import Span, substituted
from ganeti_os.guest.renaming import Renaming

PATH = "/etc/hosts"
_LINE = re.compile(rb"^([^#\n]*+)", re.MULTILINE)  # without its comment
_WORD = re.compile(rb"[^\s#]++")


def change_hosts(draft: Draft, renaming: Renaming, addresses: Mapping[bytes, bytes]) -> None:
    """Replace the old names in the columns of names, and old addresses by new ones in the first column.

    On the system's own lines (a loopback address, one of addresses, or the instance's old name) the old name is
    replaced in whatever domain it is: the first name there is what `hostname -f` says. addresses are spelled as the
    guest spells them.
    """
    data = draft.read(PATH)
    if data is None:
        return
    names: list[tuple[Span, bytes]] = []
    moved: list[tuple[Span, bytes]] = []
    for words in _lines(data):
        address = addresses.get(words[0].text)
        if address is not None and address != words[0].text:
            moved.append((words[0], address))
        names += _renamed(words[1:], renaming, is_own=address is not None or _is_own(words, renaming))
    counts = [(len(names), "name", "names"), (len(moved), "address", "addresses")]
    what = ", ".join(f"{count} {one if count == 1 else many}" for count, one, many in counts if count)
    draft.change(PATH, substituted(data, names + moved), what)


def _is_own(words: list[Span], renaming: Renaming) -> bool:
    """Tell whether a line is about the system itself: by its address, or by a name that is the instance's old one."""
    address = parse_address(words[0].text)
    return (address is not None and address.is_loopback) or any(
        renaming.replaced_bytes(word.text) != word.text for word in words[1:]
    )


def _renamed(words: list[Span], renaming: Renaming, *, is_own: bool) -> Iterator[tuple[Span, bytes]]:
    for word in words:
        found = word.text.decode("latin-1")  # one character for each byte, and no other byte is a letter of a name
        new = renaming.replaced_in_any_domain(found) if is_own else renaming.replaced(found)
        if new is not None and new != found:
            yield word, new.encode("latin-1")


def _lines(data: bytes) -> Iterator[list[Span]]:
    for line in _LINE.finditer(data):
        words = [Span.of(word) for word in _WORD.finditer(data, *line.span(1))]
        if words:
            yield words
