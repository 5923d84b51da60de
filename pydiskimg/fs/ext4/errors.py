# SPDX-License-Identifier: MIT
"""Why a file system is not believed when it says what is free."""

from __future__ import annotations

from pydiskimg.errors import FileSystemError


class NotBelievedError(FileSystemError):
    """What is in use cannot be told; everything must be taken for in use. reason is a clause for the log."""

    def __init__(self, where: str, reason: str) -> None:
        super().__init__(f"{where}: {reason}; all of it counts as in use")
        self.reason = reason
