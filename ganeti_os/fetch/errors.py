# SPDX-License-Identifier: MIT
"""What fetching an image raises."""

from __future__ import annotations

from pydiskimg.errors import DiskImageError


class FetchError(DiskImageError):
    """An image cannot be fetched, or is not what its checksum says."""


class NotThereError(FetchError):
    """The server answers, and has no such file."""


class UnreachableError(FetchError):
    """The server does not answer, breaks off, or has a trouble of its own: another attempt may succeed."""
