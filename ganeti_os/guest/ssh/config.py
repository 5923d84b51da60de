# SPDX-License-Identifier: MIT
"""The part of sshd_config(5) about keys: its global section, including the files that it includes."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice

from pydiskimg.system.edits.draft import Draft, GuestError

PATHS = ("/etc/ssh/sshd_config", "/usr/etc/ssh/sshd_config", "/etc/openssh/sshd_config")  # the first that exists

_LINE = re.compile(rb"^[ \t]*+([A-Za-z0-9]++)(?:[ \t]*+=[ \t]*+|[ \t]++)([^\r\n]*+)", re.MULTILINE)
_WORD = re.compile(rb'"([^"\n]*+)"|([^\s"#]++)|#.*+')
_WILDCARDS = re.compile(r"[*?\[]")
_DEPTH = 4  # of files that include each other; sshd's limit is 16
_FILES = 64
_LINES = 20_000  # of all files; a system has a few dozen


@dataclass(frozen=True, slots=True)
class Line:
    """A line in effect: keyword in lower case; location is path:line for messages."""

    keyword: str
    words: tuple[str, ...]
    location: str


def config_lines(draft: Draft) -> list[Line]:
    """Return the lines of the global section, in the order in which sshd reads them; empty without a configuration.

    Raises StorageError for a file that cannot be read, GuestError for more than 20000 lines with what is included.
    """
    path = next((path for path in PATHS if draft.exists(path)), None)
    if path is None:
        return []
    lines = list(islice(_lines(draft, path, 0, [0]), _LINES + 1))
    if len(lines) > _LINES:
        raise GuestError(f"{path}: it has more than {_LINES} lines, including included files; no more are read")
    return lines


def _lines(draft: Draft, path: str, depth: int, count: list[int]) -> Iterator[Line]:
    count[0] += 1
    if depth > _DEPTH or count[0] > _FILES:
        return
    data = draft.read(path) or b""
    number, counted = 1, 0
    for found in _LINE.finditer(data):
        number += data.count(b"\n", counted, found.start())
        counted = found.start()
        keyword = found[1].decode("ascii").lower()
        if keyword == "match":
            return
        words = tuple(_words(found[2]))
        if keyword != "include":
            yield Line(keyword, words, f"{path}:{number}")
            continue
        for included in (name for word in words[:_FILES] for name in _included(draft, word, path)):
            yield from _lines(draft, included, depth + 1, count)


def _words(text: bytes) -> Iterator[str]:
    for found in _WORD.finditer(text):
        if found[0].startswith(b"#"):
            return
        yield (found[1] if found[1] is not None else found[2]).decode("utf-8", "surrogateescape")


def _included(draft: Draft, word: str, path: str) -> list[str]:
    """Return the files of an Include line; only the last part of a path may have a wildcard."""
    name = word if word.startswith("/") else f"{path.rpartition('/')[0]}/{word}"
    directory, _, last = name.rpartition("/")
    if _WILDCARDS.search(directory):
        return []
    if _WILDCARDS.search(last):
        return draft.files(directory, last)
    return [name] if draft.is_file(name) else []
