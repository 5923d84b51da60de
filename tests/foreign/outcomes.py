# SPDX-License-Identifier: MIT
"""The results of a suite's tests, and which of them were expected."""

from __future__ import annotations

import tomllib
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

PASSED = "passed"
WORDING = "wording"  # as PASSED; only sentences differ
NOT_RUN = "not run"  # it cannot be run here, or fails without us, too
EXPECTATIONS = Path(__file__).with_name("expectations.toml")


@dataclass(frozen=True)
class Outcome:
    """One test: PASSED, WORDING, NOT_RUN, or a word for the way in which it differs; detail is for a reader."""

    test: str
    kind: str
    detail: str = ""


@dataclass(frozen=True)
class Expectation:
    kind: str
    reason: str


@dataclass(frozen=True)
class Difference:
    """A reason, and the tests of a suite that differ in one way for it."""

    suite: str
    kind: str
    reason: str
    tests: tuple[str, ...]


def read_differences(text: str) -> Iterator[Difference]:
    """Yield what the expectations' TOML text lists; raises ValueError for a test that is listed twice."""
    seen = set()
    for suite, entries in tomllib.loads(text).items():
        for entry in entries:
            tests = tuple(entry["tests"])
            for test in tests:
                if (suite, test) in seen:
                    raise ValueError(f"{suite}: {test} is listed twice")
                seen.add((suite, test))
            yield Difference(suite, entry["kind"], entry["reason"], tests)


def expectations(suite: str, text: str) -> dict[str, Expectation]:
    """Return what text expects to differ in a suite, by test."""
    return {
        test: Expectation(difference.kind, difference.reason)
        for difference in read_differences(text)
        if difference.suite == suite
        for test in difference.tests
    }


def table(differences: Iterable[Difference]) -> str:
    """Return the differences as a table for the document."""
    lines = ["| suite | how | why | tests |", "| --- | --- | --- | --- |"]
    lines += [f"| {item.suite} | {item.kind} | {item.reason} | {', '.join(item.tests)} |" for item in differences]
    return "\n".join(lines) + "\n"


@dataclass(frozen=True)
class Figures:
    """A suite's tests: how many of each kind, what was not expected, and what was expected in vain."""

    kinds: Mapping[str, int]
    differ: int
    unexpected: tuple[Outcome, ...]
    in_vain: tuple[Outcome, ...]


def judged(outcomes: Iterable[Outcome], expected: Mapping[str, Expectation]) -> Figures:
    """Compare outcomes with what is expected; the kind of a difference must be the expected one."""
    kinds: Counter[str] = Counter()
    differ, unexpected, in_vain = 0, [], []
    for outcome in outcomes:
        kinds[outcome.kind] += 1
        expectation = expected.get(outcome.test)
        if outcome.kind in (PASSED, WORDING, NOT_RUN):
            if expectation and outcome.kind != NOT_RUN:
                in_vain.append(outcome)
        elif expectation and expectation.kind == outcome.kind:
            differ += 1
        else:
            unexpected.append(outcome)
    return Figures(kinds, differ, tuple(unexpected), tuple(in_vain))


def summary(suite: str, figures: Figures) -> str:
    """Return the lines that a suite's run ends with."""
    passed = figures.kinds.get(PASSED, 0) + figures.kinds.get(WORDING, 0)
    not_run = figures.kinds.get(NOT_RUN, 0)
    head = f"{suite}: {passed} passed, {figures.differ} differ as listed, {len(figures.unexpected)} unexpected"
    lines = [f"{head}, {not_run} not run"]
    lines += [f"  {count:>5}  {kind}" for kind, count in sorted(figures.kinds.items())]
    lines += [f"  unexpected: {item.test}: {item.kind}: {item.detail}" for item in figures.unexpected]
    lines += [f"  passed, though listed as differing: {item.test}" for item in figures.in_vain]
    return "\n".join(lines)
