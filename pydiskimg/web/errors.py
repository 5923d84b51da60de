# SPDX-License-Identifier: MIT
"""What fetching raises."""

from __future__ import annotations

from pydiskimg.errors import DiskImageError


class FetchError(DiskImageError):
    """A file cannot be fetched, or is not what was expected of it."""


class NotThereError(FetchError):
    """The server answers, and has no such file."""


class UnreachableError(FetchError):
    """The server does not answer, breaks off, or has a trouble of its own: another attempt may succeed."""


class NoRangesError(FetchError):
    """The server sends the file as a whole only; it can still be read from front to back."""
