# SPDX-License-Identifier: MIT
"""Bytes that are appended once and read several times: in memory while they are few, then in an unlinked file."""

from __future__ import annotations

import os
from typing import IO

from pydiskimg.errors import storage_error
from pydiskimg.protocols import Buffer
from pydiskimg.units import MIB

KEPT_IN_MEMORY = 8 * MIB
# Not /tmp, which is memory on many systems: the spool is for data that are too large for memory.
DIRECTORY = "/var/tmp"  # noqa: S108 - the file has no name


class Spool:
    """Grows by append(); a context manager that frees the space. For one thread.

    Beyond 8 MiB the bytes are in an unnamed file in directory. Every method raises StorageError when a system call
    fails.
    """

    def __init__(self, directory: str | None = None) -> None:
        self.size = 0
        self._directory = directory or DIRECTORY
        self._memory = bytearray()
        self._file: IO[bytes] | None = None

    def append(self, data: Buffer) -> None:
        """Add data at the end."""
        self._memory += data
        self.size += len(data)
        if len(self._memory) >= KEPT_IN_MEMORY:
            self._spill()

    def read(self, offset: int, length: int) -> bytes:
        """Return length bytes from offset; ValueError if they do not exist yet."""
        if offset + length > self.size:
            raise ValueError(f"bytes {offset} to {offset + length} are beyond {self.size}")
        filed = self.size - len(self._memory)
        wanted = max(0, min(length, filed - offset))
        head = self._read_file(offset, wanted) if wanted else b""
        if wanted == length:
            return head
        start = offset + wanted - filed
        return head + self._memory[start : start + length - wanted]

    def close(self) -> None:
        """Discard all bytes. May be called repeatedly."""
        file, self._file = self._file, None
        self._memory = bytearray()
        self.size = 0
        if file is not None:
            file.close()

    def __enter__(self) -> Spool:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def _spill(self) -> None:
        try:
            if self._file is None:
                import tempfile

                self._file = tempfile.TemporaryFile(dir=self._directory, buffering=0)  # noqa: SIM115 - ours to close
            with memoryview(self._memory) as view:
                done = 0
                while done < len(view):
                    done += self._file.write(view[done:])
        except OSError as error:
            raise storage_error(error, self._directory, "cannot keep tables in a temporary file") from error
        self._memory = bytearray()

    def _read_file(self, offset: int, length: int) -> bytes:
        assert self._file is not None
        pieces, end = [], offset + length
        try:
            while offset < end and (piece := os.pread(self._file.fileno(), end - offset, offset)):
                pieces.append(piece)
                offset += len(piece)
        except OSError as error:
            raise storage_error(error, self._directory, "cannot read back a temporary file") from error
        return b"".join(pieces)
