# SPDX-License-Identifier: MIT
"""Replacements in the guest's network files, by file and location; two that disagree leave the location unchanged."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from dataclasses import dataclass, field

from ganeti_os.guest.facts.tokens import SpanSet
from ganeti_os.guest.network.files import NetworkFiles
from pydiskimg.system.edits.draft import Draft
from pydiskimg.system.edits.span import Span, substituted

log = logging.getLogger(__name__)

_TOLD = 10  # notes about one file in the log


@dataclass(slots=True)
class _File:
    new: dict[Span, bytes] = field(default_factory=dict)
    disputed: set[Span] = field(default_factory=set)
    notes: dict[str, None] = field(default_factory=dict)


class Edits:
    """Collects the texts to be written at each location."""

    def __init__(self, files: NetworkFiles) -> None:
        self._files = files
        self._edits: dict[str, _File] = {}

    def replace(self, path: str, span: Span, text: bytes, note: str) -> None:
        """Give a location another text; note describes it for the log."""
        edits = self._edits.setdefault(path, _File())
        if edits.new.setdefault(span, text) != text:
            edits.disputed.add(span)
        if span.text != text:
            edits.notes[note] = None

    def taken(self, path: str) -> SpanSet:
        """Return the locations of a file that have a new text."""
        edits = self._edits.get(path, _File())
        return SpanSet((span.start, span.end) for span in edits.new)

    def apply(self, draft: Draft) -> frozenset[str]:
        """Change the files of the draft, and return the paths of those that change."""
        changed = set()
        for path, edits in self._edits.items():
            edits.disputed |= _overlapping(edits.new)
            for span in sorted(edits.disputed):
                location = self._files.location(path, span.start)
                log.warning(
                    "%s: %s is kept: it would be another one for each NIC", location, span.text.decode("latin-1")
                )
            data = self._files.read(path)
            new = substituted(data, ((span, text) for span, text in edits.new.items() if span not in edits.disputed))
            if new != data:
                draft.change(path, new, ", ".join(list(edits.notes)[:_TOLD]))
                changed.add(path)
        return frozenset(changed)


def _overlapping(spans: Iterable[Span]) -> set[Span]:
    """Return the spans that begin inside an earlier one."""
    found, end = set(), 0
    for span in sorted(spans):
        if span.start < end:
            found.add(span)
        end = max(end, span.end)
    return found
