# SPDX-License-Identifier: MIT
"""The errors of fetching."""

from __future__ import annotations

from pydiskimg.errors import DiskImageError


class FetchError(DiskImageError):
    """A file at an http:// or https:// address cannot be fetched, or is not the expected one.

    Its subclasses in pydiskimg.web.errors tell causes apart: NotThereError, UnreachableError (another attempt may
    succeed) and NoRangesError (the server sends only whole files).

    >>> from pydiskimg import FetchError, open_image
    >>> try:
    ...     open_image("http://127.0.0.1:1/disk.raw")
    ... except FetchError as error:
    ...     print(str(error).partition(": ")[0])
    http://127.0.0.1:1/disk.raw
    """


class NotThereError(FetchError):
    """The server answers that it does not have the file."""


class UnreachableError(FetchError):
    """The server does not answer, breaks off, or reports a problem of its own: another attempt may succeed."""


class NoRangesError(FetchError):
    """The server sends only whole files; the file can still be read from start to end."""
