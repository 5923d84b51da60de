# SPDX-License-Identifier: MIT
"""The errors of fetching."""

from __future__ import annotations

from pydiskimg.errors import DiskImageError


class FetchError(DiskImageError):
    """A file cannot be fetched, or is not the expected one."""


class NotThereError(FetchError):
    """The server answers that it does not have the file."""


class UnreachableError(FetchError):
    """The server does not answer, breaks off, or reports a problem of its own: another attempt may succeed."""


class NoRangesError(FetchError):
    """The server sends only whole files; the file can still be read from start to end."""
