# SPDX-License-Identifier: MIT
"""What the calls of qemu-img in two runs of an iotest did, one by qemu-img alone and one by pydiskimg where it can."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from difflib import SequenceMatcher, unified_diff
from typing import Any

from tests.foreign.outcomes import PASSED, WORDING
from tests.foreign.streams import ERROR, OUTPUT

Call = dict[str, Any]  # a line of the log of tests/foreign/qemu_img.py
_WRONG_PATTERN = "Pattern verification failed"  # qemu-io's words


@dataclass(frozen=True)
class Run:
    """One run of a test: pass, fail, skip or hang, what it printed when it failed, and its calls of qemu-img."""

    state: str
    output: str = ""
    calls: list[Call] = field(default_factory=list)


@dataclass(frozen=True)
class Pair:
    """The same call in both runs."""

    theirs: Call
    ours: Call

    @property
    def words(self) -> str:
        """The call, its paths without directories."""
        return re.sub(r"\S*/", "", " ".join(self.ours["words"]))

    @property
    def difference(self) -> str:
        """What differs: status, image, output (standard output) or nothing. Standard error is not compared."""
        if self.theirs["status"] != self.ours["status"]:
            return "status"
        if self.theirs.get("made") != self.ours.get("made"):
            return "image"
        return "output" if said(self.theirs, OUTPUT) != said(self.ours, OUTPUT) else ""

    @property
    def has_own_sentences(self) -> bool:
        return said(self.theirs, ERROR) != said(self.ours, ERROR)

    def shown(self) -> str:
        """A sentence for a reader."""
        if self.difference not in ("status", "image"):
            a, b = (said(call, OUTPUT).splitlines() for call in (self.theirs, self.ours))
            lines = unified_diff(a, b, n=0, lineterm="")
            return f"{self.words}: {' '.join(line for line in lines if line[:2] not in ('--', '++', '@@'))}"
        key = {"status": "status", "image": "made"}[self.difference]
        wanted, got = self.theirs.get(key), self.ours.get(key)
        if isinstance(wanted, dict) and isinstance(got, dict):
            names = [name for name in {*wanted, *got} if wanted.get(name) != got.get(name)]
            wanted, got = ({name: facts.get(name) for name in names} for facts in (wanted, got))
        return f"{self.words}: expected {wanted}, got {got}; {said(self.ours, ERROR).strip()[-200:]}".rstrip("; ")


def said(call: Call, stream: int) -> str:
    """Return what a call wrote to one of its streams."""
    return "".join(text for number, text in call["said"] if number == stream)


def pairs(theirs: Run, ours: Run) -> Iterator[Pair]:
    """Yield the calls that pydiskimg took, each with qemu-img's; what only one of the runs calls is left out."""
    wanted, got = ([tuple(call["words"]) for call in run.calls] for run in (theirs, ours))
    for block in SequenceMatcher(None, wanted, got, autojunk=False).get_matching_blocks():
        both = zip(theirs.calls[block.a :][: block.size], ours.calls[block.b :][: block.size], strict=True)
        yield from (Pair(one, other) for one, other in both if other["ours"])


def compared(theirs: Run, ours: Run) -> tuple[str, str]:
    """Return in which way our run of a test that passes with qemu-img differs, the worst first, and a detail."""
    if ours.state == "hang":
        return "hang", "the time limit has passed"
    if ours.output.count(_WRONG_PATTERN) > theirs.output.count(_WRONG_PATTERN):
        return "wrong data", "qemu-io reads another pattern"
    if found := next(filter(None, map(_fault, ours.calls)), None):
        return found
    both = list(pairs(theirs, ours))
    differing = {kind: [pair.shown() for pair in both if pair.difference == kind] for kind in ("status", "image")}
    if kind := next((kind for kind, shown in differing.items() if shown), ""):
        return kind, "; ".join(differing[kind])
    return _compared_outputs(ours, both)


def _compared_outputs(ours: Run, both: list[Pair]) -> tuple[str, str]:
    if ours.state == "pass":
        return WORDING if any(pair.has_own_sentences for pair in both) else PASSED, ""
    if ours.state == "skip":
        return "text", "ours is not run to its end"
    return "text", "; ".join(pair.shown()[:400] for pair in both if pair.difference == "output")


def _fault(call: Call) -> tuple[str, str] | None:
    """What is wrong with a call, whatever qemu-img did."""
    error, words = said(call, ERROR), Pair(call, call).words
    if "Traceback (most recent call last)" in error:
        return "traceback", f"{words}: {error.strip().splitlines()[-1]}"
    if call.get("data", "").startswith("differs"):
        return "wrong data", f"{words}: {call['data']}"
    return None


class Tally:
    """Counts calls by subcommand: all, those that pydiskimg took, and of these those that did the same."""

    def __init__(self) -> None:
        self.all: Counter[str] = Counter()
        self.ours: Counter[str] = Counter()
        self.equal: Counter[str] = Counter()
        self.sentences = 0  # calls of which only standard error differs
        self.copies = 0  # converted images that qemu-img compare finds equal to their source

    def add(self, theirs: Run, ours: Run) -> None:
        """Count the calls of a test. Standard output that the test does not compare (it passes) counts as equal."""
        both = list(pairs(theirs, ours))
        self.all.update(subcommand(call) for call in ours.calls)
        self.ours.update(subcommand(call) for call in ours.calls if call["ours"])
        ignored = {"", "output"} if ours.state == "pass" else {""}
        equal = [pair for pair in both if pair.difference in ignored]
        self.equal.update(subcommand(pair.ours) for pair in equal)
        self.sentences += sum(pair.has_own_sentences for pair in equal)
        self.copies += sum(call.get("data") == "same" for call in ours.calls)

    def table(self) -> str:
        """Return the counts as a table for the document."""
        lines = ["| subcommand | calls | by pydiskimg | equal | differ |", "| --- | --- | --- | --- | --- |"]
        lines += [_row(name, self.all[name], self.ours[name], self.equal[name]) for name in sorted(self.all)]
        return "\n".join([*lines, _row("all", self.all.total(), self.ours.total(), self.equal.total())])


def subcommand(call: Call) -> str:
    """Return which subcommand of qemu-img a call is of."""
    first: str = next(iter(call["words"]), "")
    return first if re.fullmatch("[a-z]+", first) else "none"


def _row(name: str, calls: int, ours: int, equal: int) -> str:
    return f"| {name} | {calls} | {ours} | {equal} | {ours - equal} |"
