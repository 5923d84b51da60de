# SPDX-License-Identifier: MIT
"""hosts(5): the guest's own names and addresses in /etc/hosts."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping

from ganeti_os.guest.draft import Draft
from ganeti_os.guest.names import Renaming
from ganeti_os.guest.span import Span, substituted

PATH = "/etc/hosts"
_LINE = re.compile(rb"^([^#\n]*+)", re.MULTILINE)  # without its comment
_WORD = re.compile(rb"[^\s#]++")


def change_hosts(draft: Draft, renaming: Renaming, addresses: Mapping[bytes, bytes]) -> None:
    """Replace the old names in the columns of names, and old addresses by new ones in the first column.

    addresses are spelled as the guest spells them.
    """
    data = draft.read(PATH)
    if data is None:
        return
    names, moved = [], []
    for words in _lines(data):
        address = addresses.get(words[0].text)
        if address is not None and address != words[0].text:
            moved.append((words[0], address))
        names += [(word, new) for word in words[1:] if (new := renaming.replaced_bytes(word.text)) != word.text]
    counts = [(len(names), "name", "names"), (len(moved), "address", "addresses")]
    what = ", ".join(f"{count} {one if count == 1 else many}" for count, one, many in counts if count)
    draft.change(PATH, substituted(data, names + moved), what)


def _lines(data: bytes) -> Iterator[list[Span]]:
    for line in _LINE.finditer(data):
        words = [Span.of(word) for word in _WORD.finditer(data, *line.span(1))]
        if words:
            yield words
