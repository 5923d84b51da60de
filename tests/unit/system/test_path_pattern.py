# SPDX-License-Identifier: MIT
"""Patterns from a guest: the same results as with re, in bounded time, and clear refusals."""

from __future__ import annotations

import re
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pydiskimg.system.edits.path_pattern import (
    Budget,
    BudgetError,
    PatternError,
    is_literal,
    literal_beginning,
    matches,
)


def found(pattern: str, path: str) -> bool:
    return matches(pattern.encode(), path.encode(), Budget(10_000_000))


@pytest.mark.parametrize(
    ("pattern", "path", "expected"),
    [
        ("/etc", "/etc", True),
        ("/etc", "/etc/", False),
        ("/etc(/.*)?", "/etc", True),
        ("/etc(/.*)?", "/etc/a/b", True),
        ("/etc(/.*)?", "/etcetera", False),
        (r"/etc/rc\.d/[^/]*", "/etc/rc.d/x", True),
        (r"/etc/rc\.d/[^/]*", "/etc/rcxd/x", False),
        (r"/etc/rc\.d/[^/]*", "/etc/rc.d/x/y", False),
        ("/dev/[shmx]d[^/]*", "/dev/xda", True),
        ("/a{2,3}", "/aa", True),
        ("/a{2,3}", "/aaaa", False),
        ("/a{2}", "/aa", True),
        ("/a{2,}", "/aaaaa", True),
        ("/a{0}b", "/b", True),
        ("/(?:a|b)+", "/abba", True),
        ("/(a|bc|)x", "/x", True),
        (r"/\d+\w\s\S", "/12_ x", True),
        (r"/[\d-]+", "/1-2", True),
        ("/[]a]+", "/]a", True),
        ("/[^]a]", "/]", False),
        ("/[[:alpha:]_]+", "/aB_", True),
        ("/[[:digit:]]", "/x", False),
        ("/.*?x", "/abx", True),
        ("/a.b", "/a\nb", True),
    ],
)
def test_what_matches(pattern: str, path: str, expected: bool) -> None:
    assert found(pattern, path) is expected


_STRANGE = (
    *("/(a", "/a)", "/[a", "/[a-", "/*+*", "/a**", "/a*+", "/(?=a)", "/(?<n>a)", r"/(a)\1", r"/\bx", "/a{300}"),
    *("/a{3,2}", "/x^", "/x$y", "/[[.a.]]", "/[[:punct:]]", "/[z-a]", "/(a{200}){200}", "/a\\"),
    "/" + "(" * 21 + ")" * 21,
)


@pytest.mark.parametrize("pattern", _STRANGE)
def test_what_is_not_understood_is_said(pattern: str) -> None:
    with pytest.raises(PatternError) as error:
        found(pattern, "/a")
    assert str(error.value)


@pytest.mark.parametrize(
    "pattern",
    [
        *("/(a*)*b", "/(a|aa)+b", "/(.*)*(.*)*b", "/" + "a?" * 200 + "a" * 200, "/((a*)*)*b"),
        # Groups of nothing take no instruction, however often they are repeated.
        *("/" + "(" * 20 + "){255}" * 20 + "b", "/((((a{0}){255}){255}){255}){255}b", "/(a" + "()" * 4000 + "){255}b"),
    ],
)
def test_no_pattern_takes_long(pattern: str) -> None:
    started = time.monotonic()
    assert not found(pattern, "/" + "a" * 190)
    assert time.monotonic() - started < 5


def test_the_budget_ends_what_is_long_all_the_same() -> None:
    budget = Budget(250)
    assert not matches(b"/(a*)*b", b"/a", budget)
    with pytest.raises(BudgetError):
        matches(b"/(a*)*b", b"/aaaaaaaaaaaaaaaa", budget)


_ATOMS = st.sampled_from(
    ["a", "b", "/", ".", "[ab]", "[^a]", r"\.", "(a|b)", "(a/)?", "(?:ab|)", "[a-b/]", "()", "(a{0})"]
)
_PATTERNS = st.lists(st.tuples(_ATOMS, st.sampled_from(["", "", "*", "+", "?", "{1,2}"])), max_size=5)


@given(_PATTERNS, st.text("ab/.", max_size=8))
def test_the_answers_are_those_of_re(parts: list[tuple[str, str]], path: str) -> None:
    pattern = "".join(atom + ("" if atom.endswith("?") else quantifier) for atom, quantifier in parts)
    expected = re.fullmatch(pattern, path, re.DOTALL) is not None
    assert found(pattern, path) is expected
    if expected:
        assert path.encode().startswith(literal_beginning(pattern.encode()))
    if is_literal(pattern.encode()) and expected:
        assert literal_beginning(pattern.encode()) == path.encode()


@given(st.binary(max_size=40))
def test_any_bytes_end_in_an_answer_or_one_error(pattern: bytes) -> None:
    try:
        matches(pattern, b"/etc/ssh/x", Budget(1_000_000))
    except PatternError:
        return


@pytest.mark.parametrize(
    ("pattern", "beginning"),
    [
        (rb"/etc/rc\.d", b"/etc/rc.d"),
        (b"/etc(/.*)?", b"/etc"),
        (b"/lib64?/x", b"/lib6"),
        (b"/a{0,1}", b"/"),
        (b"/a|/b", b""),
        (b"/a(b|c)", b"/a"),
        (rb"/\d", b"/"),
        (rb"/\\\.\\\\x.", rb"/\.\\x"),
    ],
)
def test_what_a_path_begins_with(pattern: bytes, beginning: bytes) -> None:
    assert literal_beginning(pattern) == beginning
