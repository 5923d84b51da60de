# SPDX-License-Identifier: MIT
"""The texts that a rename changes, /etc/hosts and shell assignments, against the obvious way of doing it."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pydiskimg.files.tree import Tree
from pydiskimg.system.edits.draft import Draft
from pydiskimg.system.edits.renaming import Renaming
from pydiskimg.system.edits.shell_values import shell_values
from pydiskimg.system.edits.span import Span, substituted
from pydiskimg.system.hosts import change_hosts
from tests.fixtures.guests import NEW, OLD


class Memory:
    """A Tree of one file, as far as Draft reads it."""

    def __init__(self, data: bytes) -> None:
        self.data = data

    def read(self, path: str, *, limit: int = 1 << 20) -> bytes:
        return self.data


def hosts_after(data: bytes, renaming: Renaming, addresses: dict[bytes, bytes]) -> bytes:
    memory: Tree = Memory(data)  # type: ignore[assignment]
    draft = Draft(memory)
    change_hosts(draft, renaming, addresses)
    return draft.read("/etc/hosts") or b""


WORDS = st.sampled_from(
    b"inst1 inst1.example.org INST1 inst10 xinst1 inst1. -inst1 a.inst1 inst2 inst1.corp.example 127.0.1.1 192.0.2.10 "
    b"192.0.2.100 # \xff \0 caf\xc3\xa9".split(b" ")
)
BLANKS = st.sampled_from([b" ", b"\t", b"  ", b"\r\n", b"\n", b"\n\n", b"", b"#", b"\x0b", b"\x85"])
HOSTS = st.lists(st.tuples(WORDS, BLANKS), max_size=30).map(lambda parts: b"".join(map(b"".join, parts)))


def model(line: bytes) -> bytes:
    """One line of hosts, renamed in the obvious way."""
    text, mark, comment = line.partition(b"#")
    parts = re.split(rb"([ \t\n\r\x0b\x0c]+)", text)
    words = [index for index in range(0, len(parts), 2) if parts[index]]
    lower = [parts[index].lower() for index in words]
    own = lower[:1] in ([b"127.0.1.1"], [b"192.0.2.10"]) or any(name in (OLD.encode(), b"inst1") for name in lower[1:])
    for position, index in enumerate(words):
        if position == 0:
            parts[index] = b"192.0.2.20" if parts[index] == b"192.0.2.10" else parts[index]
        elif parts[index].lower() == OLD.encode():
            parts[index] = NEW.encode()
        elif parts[index].lower() == b"inst1":
            parts[index] = b"inst2"
        elif own and parts[index].lower().startswith(b"inst1."):  # in another domain, or with a dot at the end
            dot = b"." * parts[index].endswith(b".")
            parts[index] = (b"inst2" if parts[index].lower() == b"inst1." else NEW.encode()) + dot
    names = words[1:]
    if names and parts[words[0]] in (b"127.0.1.1", b"192.0.2.20") and plain(parts[names[0]]) != NEW.encode():
        others = [parts[index] for index in names if plain(parts[index]) not in (NEW.encode(), b"inst2")]
        parts[names[0] : names[-1] + 1] = [b" ".join(dict.fromkeys([NEW.encode(), b"inst2", *others]))]
    return b"".join(parts) + mark + comment


def plain(name: bytes) -> bytes:
    return name.lower().removesuffix(b".")


@given(HOSTS | st.binary(max_size=200))
def test_hosts_as_the_obvious_way_says(data: bytes) -> None:
    renaming, addresses = Renaming.of(NEW, [OLD]), {b"192.0.2.10": b"192.0.2.20"}
    after = hosts_after(data, renaming, addresses)
    assert after == b"".join(map(model, re.findall(rb"[^\n]*\n|[^\n]+", data)))
    assert hosts_after(after, renaming, addresses) == after


@pytest.mark.parametrize(
    ("line", "old", "new", "after"),
    [
        ("127.0.1.1 web.corp.example web", "web.example.org", "shop.example.org", "127.0.1.1 shop.example.org shop"),
        ("127.0.1.1 web.example.org web", "web", "shop", "127.0.1.1 shop.example.org shop"),
        ("127.0.1.1 web.example.org. web", "web.example.org", "shop.example.org", "127.0.1.1 shop.example.org. shop"),
        ("::1 web.corp.example", "web.example.org", "shop.example.org", "::1 shop.example.org"),
        ("192.0.2.9 web.corp.example web", "web.example.org", "shop.example.org", "192.0.2.9 shop.example.org shop"),
        ("192.0.2.10 web.corp.example", "web.example.org", "shop.example.org", "192.0.2.20 shop.example.org"),
        ("192.0.2.9 web.corp.example", "web.example.org", "shop.example.org", "192.0.2.9 web.corp.example"),
        (
            "127.0.1.1 web2.corp.example web",
            "web.example.org",
            "shop.example.org",
            "127.0.1.1 shop.example.org shop web2.corp.example",
        ),
        (
            "127.0.1.1 web.corp.example web",
            "web.example.org",
            "web.example.org",
            "127.0.1.1 web.example.org web web.corp.example",
        ),
        ("10.1.2.3 web.corp.example web", "web.example.org", "web.example.org", "10.1.2.3 web.corp.example web"),
        ("127.0.1.1 web.corp.example web", "web.example.org", "web.example.net", "127.0.1.1 web.example.net web"),
    ],
)
def test_own_lines_of_hosts_name_the_new_host_in_any_domain(line: str, old: str, new: str, after: str) -> None:
    addresses = {b"192.0.2.10": b"192.0.2.20"}
    assert hosts_after(line.encode(), Renaming.of(new, [old]), addresses).decode() == after
    assert hosts_after(after.encode(), Renaming.of(new, [old]), addresses).decode() == after


NAMES = st.lists(st.sampled_from(["a", "b", "c"]), min_size=1, max_size=3).map(".".join)


@given(NAMES, NAMES, st.lists(NAMES, max_size=8))
def test_hosts_twice_is_once_whatever_the_names(old: str, new: str, names: list[str]) -> None:
    data = f"192.0.2.1 {' '.join(names)}\n".encode()
    once = hosts_after(data, Renaming.of(new, [old]), {})
    assert hosts_after(once, Renaming.of(new, [old]), {}) == once


VALUES = st.sampled_from([b"inst1", b"'inst1'", b'"inst1"', b"$X", b"`x`", b"'a b'", b"", b'""', b"a b", b"'", b"\xff"])
LINES = st.tuples(
    st.sampled_from([b"HOSTNAME=", b" HOSTNAME=", b"export HOSTNAME=", b"#HOSTNAME=", b"XHOSTNAME=", b"OTHER="]),
    VALUES,
    st.sampled_from([b"\n", b"\r\n", b" # x\n", b";\n", b"; A=b\n", b"#x\n", b""]),
).map(b"".join)


@given(st.lists(LINES, max_size=8).map(b"".join) | st.binary(max_size=100))
def test_shell_values_change_themselves_only(data: bytes) -> None:
    values = shell_values(data, {"HOSTNAME"})
    spans = [value.span for value in values if value.span is not None]
    for span in spans:
        assert data[span.start : span.end] == span.text
        assert b"\n" not in span.text
    assert substituted(data, [(span, span.text) for span in spans]) == data
    changed = substituted(data, [(span, b"new") for span in spans])
    again = shell_values(changed, {"HOSTNAME"})
    assert [value.span and value.span.text for value in again] == [value.span and b"new" for value in values]


def test_long_lines_take_no_long_time() -> None:
    for data in (b"HOSTNAME=a" + b" " * 1000000 + b"x", b" " * 1000000 + b"HOSTNAME", b"HOSTNAME='" + b"a" * 1000000):
        assert [value.span for value in shell_values(data, {"HOSTNAME"})] in ([None], [])
    hosts_after(b"a" * 500000 + b" " * 500000 + b"#" * 10000, Renaming.of(NEW, [OLD]), {})


def test_spans_are_replaced_in_any_order() -> None:
    assert substituted(b"abcdef", [(Span(4, 5, b"e"), b""), (Span(0, 1, b"a"), b"xyz")]) == b"xyzbcdf"
