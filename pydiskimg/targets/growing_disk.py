# SPDX-License-Identifier: MIT
"""A new file as a Disk that grows: for contents whose length is known when they have ended."""

from __future__ import annotations

import os

from pydiskimg.errors import storage_error
from pydiskimg.targets.file import FileDisk


class GrowingDisk(FileDisk):
    """A Disk over the descriptor of a regular file that the caller has just made, and owns."""

    def __init__(self, fd: int, name: str) -> None:
        super().__init__(fd, name, reads_as_zero=True)

    def grow(self, size: int) -> None:
        """Make the file size bytes long where it is shorter; what is new reads as zero. Raises StorageError."""
        if size <= self.size:
            return
        try:
            os.ftruncate(self.fd, size)
        except OSError as error:
            raise storage_error(error, self.name, f"cannot grow to {size} bytes") from error
        self.size = size
