# SPDX-License-Identifier: MIT
"""The files of a guest's network configuration, each read once and cached; an odd one never stops a rename."""

from __future__ import annotations

import logging
from collections.abc import Iterable

from pydiskimg.errors import DiskImageError
from pydiskimg.system.edits.draft import Draft

log = logging.getLogger(__name__)

# Files of editors and package managers; no program reads them.
_COPIES = ("~", ".bak", ".old", ".orig", ".save", ".swp", ".rpmnew", ".rpmorig", ".rpmsave", ".dpkg-old", ".dpkg-dist")


class NetworkFiles:
    """The guest's network files in the draft. Unreadable files are logged unless quiet, and count as empty.

    paths are those that were read, kept those that a reader cannot interpret.
    """

    def __init__(self, draft: Draft, *, quiet: bool = False) -> None:
        self._draft = draft
        self._quiet = quiet
        self._contents: dict[str, bytes] = {}
        self.kept: set[str] = set()

    @property
    def paths(self) -> list[str]:
        return list(self._contents)

    def files(self, directory: str, pattern: str) -> list[str]:
        """Return the regular files in directory whose names match, sorted, without hidden ones and backup copies."""
        try:
            found = self._draft.files(directory, pattern)
            return [
                path for path in found if not path.endswith(_COPIES) and not path.rpartition("/")[2].startswith(".")
            ]
        except DiskImageError as error:
            return self._untouched(error)

    def search_path(self, directories: Iterable[str], pattern: str) -> list[str]:
        """Return the files of several directories by their names; one hides those of the same name in later
        directories.
        """
        found: dict[str, str] = {}
        for directory in self._different(directories):
            for path in self.files(directory, pattern):
                found.setdefault(path.rpartition("/")[2], path)
        return [path for _, path in sorted(found.items())]

    def drop_ins(self, directories: Iterable[str], pattern: str) -> dict[str, list[str]]:
        """Return the *.conf in directories NAME.d whose names match, by NAME; a file hides others as search_path()."""
        found: dict[str, list[str]] = {}
        for directory in self._different(directories):
            for path in self.directories(directory, f"{pattern}.d"):
                found.setdefault(path.rpartition("/")[2].removesuffix(".d"), []).append(path)
        return {name: self.search_path(paths, "*.conf") for name, paths in found.items()}

    def read(self, path: str) -> bytes:
        """Return the contents of a file; empty if it is missing or cannot be read."""
        if path not in self._contents:
            try:
                data = self._draft.read(path)
            except DiskImageError as error:
                self.warn(f"{error}; it is not changed")
                data = b""
            if data is None:
                return b""
            self._contents[path] = data
        return self._contents[path]

    def is_file(self, path: str) -> bool:
        """True when path leads, through symlinks, to a regular file that is not a backup copy."""
        try:
            return self._draft.is_file(path) and not path.endswith(_COPIES)
        except DiskImageError:
            return False

    def location(self, path: str, offset: int) -> str:
        """Return FILE:LINE of a byte, for a message."""
        return f"{path}:{line_number(self.read(path), offset)}"

    def _different(self, directories: Iterable[str]) -> list[str]:
        """Leave out a directory that equals an earlier one: /lib/systemd usually is /usr/lib/systemd."""
        found: dict[tuple[int, int], str] = {}
        for directory in directories:
            status = None
            try:
                status = self._draft.stat(directory)
            except DiskImageError as error:
                self._untouched(error)
            if status is not None:
                found.setdefault((status.st_dev, status.st_ino), directory)
        return list(found.values())

    def directories(self, directory: str, pattern: str) -> list[str]:
        """Return the paths of the directories in directory whose names match."""
        try:
            return self._draft.directories(directory, pattern)
        except DiskImageError as error:
            return self._untouched(error)

    def _untouched(self, error: DiskImageError) -> list[str]:
        self.warn(f"{error}; the network files there are not changed")
        return []

    def warn(self, text: str) -> None:
        """Log why a file cannot be interpreted."""
        if not self._quiet:
            log.warning("%s", text)


def line_number(data: bytes, offset: int) -> int:
    """Return the number of the line that a byte is on, from 1."""
    return data.count(b"\n", 0, offset) + 1


def has_wildcard(path: str) -> bool:
    """True when a shell would look for files whose names match."""
    return any(character in path for character in "*?[")
