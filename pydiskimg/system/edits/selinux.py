# SPDX-License-Identifier: MIT
"""The SELinux label of a new file, by the guest's own policy for its path (ADR 0105).

The policy's file_contexts is interpreted as by libselinux's selabel_lookup(3): first aliases of directories, then the
last specification that matches; those without a wildcard precede all others.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator
from dataclasses import dataclass

from pydiskimg.errors import StorageError
from pydiskimg.files.tree import OutsideTreeError, ReadableTree
from pydiskimg.system.edits.path_pattern import (
    LENGTH_LIMIT,
    Budget,
    BudgetError,
    PatternError,
    is_literal,
    literal_beginning,
    matches,
)

log = logging.getLogger(__name__)

ATTRIBUTE = "security.selinux"
FILE, DIRECTORY, SYMLINK = "--", "-d", "-l"  # as the policy spells them

_CONFIG = "/etc/selinux/config"
_SIZE_LIMIT = 4 << 20  # bytes of one file; Fedora's file_contexts has half a million
_LINES_LIMIT = 40_000  # of all files; a distribution's policy has about seven thousand
_STEPS = 3_000_000  # for all new files; a distribution's policy takes a few thousand for each
_ORDER = ("file_contexts", "file_contexts.homedirs", "file_contexts.local")  # a later one takes precedence
_ON = (b"enforcing", b"permissive")
_CONFIG_LINE = re.compile(rb"^[ \t]*+(SELINUX|SELINUXTYPE)[ \t]*+=[ \t]*+([A-Za-z0-9_.-]++)", re.MULTILINE)
# stem is a first directory without a wildcard: it rules out most lines.
_LINE = re.compile(
    rb"^[ \t]*+(?P<pattern>(?!#)(?P<stem>/[^\s/\\.^$?*+|\[({]++(?=/))?+\S++)[ \t]++(?:(?P<kind>-\S)[ \t]++)?"
    rb"(?P<context>[!-~]{1,255}+)[ \t\r]*+$",
    re.MULTILINE,
)
_STEM = re.compile(rb"/[^/]++(?=/)")
_NONE = b"<<none>>"


@dataclass(frozen=True, slots=True)
class _File:
    path: str
    data: bytes


@dataclass(frozen=True, slots=True)
class _Specification:
    """A line of file_contexts, at offset; kind is empty for files of every kind."""

    pattern: bytes
    kind: str
    context: bytes
    file: _File
    offset: int

    @property
    def location(self) -> str:
        line = self.file.data.count(b"\n", 0, self.offset) + 1
        return f"{self.file.path}:{line}"


_Aliases = tuple[tuple[bytes, bytes], ...]


@dataclass(frozen=True, slots=True)
class _Policy:
    """specifications by their stem, in the order of the files; aliases map a directory to one in the policy."""

    specifications: dict[bytes, list[_Specification]]
    aliases: _Aliases
    distribution_aliases: _Aliases


class Labels:
    """The labels of a guest's new files; the policy is read from the tree on first use."""

    def __init__(self, tree: ReadableTree) -> None:
        self._tree = tree
        self._policy: _Policy | None = None
        self._is_read = False
        self._ordered: dict[bytes, list[tuple[bytes, _Specification]]] = {}
        self._budget = Budget(_STEPS)

    def attributes(self, path: str, kind: str) -> dict[str, bytes]:
        """Return the extended attributes of a new file of the kind FILE, DIRECTORY or SYMLINK; empty without a label.

        A policy that cannot be read, or has no label for this path, is logged.
        """
        try:
            if not self._is_read:
                self._is_read = True
                self._policy = _read_policy(self._tree)
            label = self._label(path, kind)
        except (StorageError, PatternError) as error:
            log.warning("%s gets no SELinux label: %s; run restorecon for it in the guest", path, error)
            return {}
        except BudgetError:
            log.warning("%s gets no SELinux label: the guest's policy takes too many steps to read", path)
            return {}
        return {} if label is None else {ATTRIBUTE: label + b"\0"}

    def _label(self, path: str, kind: str) -> bytes | None:
        if self._policy is None:
            return None
        name = path.encode("utf-8", "surrogateescape")
        name = _without_alias(_without_alias(name, self._policy.aliases), self._policy.distribution_aliases)
        stem = _STEM.match(name)
        lines = self._lines(self._policy, stem.group() if stem else b"/")
        self._budget.spend(len(lines))
        for beginning, line in lines:
            if line.kind not in ("", kind) or not name.startswith(beginning):
                continue
            try:
                found = matches(line.pattern, name, self._budget)
            except PatternError as error:
                raise PatternError(f"{line.location} has {error}, which is not supported here") from None
            if found:
                return None if line.context == _NONE else line.context
        return None

    def _lines(self, policy: _Policy, stem: bytes) -> list[tuple[bytes, _Specification]]:
        """Return the lines that may match a path below stem, in the order in which they are tried.

        Each comes with the beginning of the paths that it matches.
        """
        if stem not in self._ordered:
            lines = policy.specifications.get(b"", []) + policy.specifications.get(stem, [])
            lines.sort(key=lambda line: (_ORDER.index(line.file.path.rpartition("/")[2]), line.offset), reverse=True)
            lines.sort(key=lambda line: not is_literal(line.pattern))
            self._ordered[stem] = [(literal_beginning(line.pattern), line) for line in lines]
        return self._ordered[stem]


def attributes_of_new(tree: ReadableTree, path: str) -> dict[str, bytes]:
    """Return the extended attributes of a file that is about to be made; empty if the file already exists."""
    try:
        return {} if tree.exists(path) else Labels(tree).attributes(path, FILE)
    except StorageError:  # the writer reports a path that is not valid for a file
        return {}


def _read_policy(tree: ReadableTree) -> _Policy | None:
    """Return the policy in the guest's configuration; None if SELinux is off or there is no policy."""
    config = _read(tree, _CONFIG)
    settings = dict(reversed(_CONFIG_LINE.findall(config)))  # the first one applies
    if settings.get(b"SELINUX", b"").lower() not in _ON:
        return None
    policy = settings.get(b"SELINUXTYPE", b"targeted").decode("ascii")
    directory = f"/etc/selinux/{policy}/contexts/files"
    lines: dict[bytes, list[_Specification]] = {}
    count = 0
    for name in _ORDER:
        file = _File(f"{directory}/{name}", _read(tree, f"{directory}/{name}"))
        for stem, line in _specifications(file):
            count += 1
            if count > _LINES_LIMIT:
                raise PatternError(f"{directory}: its files have more than {_LINES_LIMIT} lines, which are not read")
            if len(line.pattern) > LENGTH_LIMIT:
                length = len(line.pattern)
                raise PatternError(f"{line.location} has a pattern of {length} bytes; at most {LENGTH_LIMIT} are read")
            lines.setdefault(stem, []).append(line)
    if not lines:
        log.warning("%s names the policy %s, and %s/file_contexts has no lines", _CONFIG, policy, directory)
        return None
    return _Policy(lines, *(_aliases(tree, f"{directory}/file_contexts{name}") for name in (".subs", ".subs_dist")))


def _read(tree: ReadableTree, path: str) -> bytes:
    """Return a file's contents, empty if there is no such file. Raises StorageError."""
    try:
        return tree.read(path, limit=_SIZE_LIMIT)
    except FileNotFoundError:
        return b""
    except OutsideTreeError as error:
        raise StorageError(str(error), errno=error.errno, filename=path) from error


def _specifications(file: _File) -> Iterator[tuple[bytes, _Specification]]:
    for found in _LINE.finditer(file.data):
        kind = (found["kind"] or b"").decode("latin-1")
        yield found["stem"] or b"", _Specification(found["pattern"], kind, found["context"], file, found.start())


def _aliases(tree: ReadableTree, path: str) -> _Aliases:
    """Return the aliases in the order in which they are tried: the last line first."""
    lines = _read(tree, path).split(b"\n")
    if len(lines) > _LINES_LIMIT:
        raise PatternError(f"{path}: has more than {_LINES_LIMIT} lines, which are not read")
    words = (line.split(None, 2) for line in reversed(lines))
    return tuple((first[0], first[1]) for first in words if len(first) >= 2 and not first[0].startswith(b"#"))


def _without_alias(path: bytes, aliases: _Aliases) -> bytes:
    for alias, directory in aliases:
        if path == alias or path.startswith(alias + b"/"):
            rest = path[len(alias) :]
            return (b"" if directory == b"/" and rest else directory) + rest
    return path
