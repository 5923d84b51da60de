# SPDX-License-Identifier: MIT
"""A file on a server that is read once, from start to end."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from pydiskimg.units import format_bytes
from pydiskimg.web.address import Address
from pydiskimg.web.client import Answer, Client
from pydiskimg.web.errors import FetchError, UnreachableError


class Body:
    """The bytes of an answer. Made by open_body(). name is for messages, position counts the bytes read so far.

    Raises UnreachableError if the answer ends before its length; a chunked answer's length is in its chunks.
    """

    def __init__(self, answer: Answer) -> None:
        self.name = answer.url
        self.position = 0
        self._answer = answer
        self._ahead = b""
        self._taken = 0  # bytes of the answer received so far

    def peek(self, length: int) -> bytes:
        """Return the next length bytes, fewer at the end of the file; the next read returns them again."""
        while len(self._ahead) < length and (more := self._read(length - len(self._ahead))):
            self._ahead += more
        return self._ahead[:length]

    def read_into(self, buffer: memoryview) -> int:
        """Fill the buffer; return its length, or less at the end of the file. Raises UnreachableError."""
        done = 0
        while done < len(buffer) and (piece := self._next(len(buffer) - done)):
            buffer[done : done + len(piece)] = piece
            done += len(piece)
        self.position += done
        return done

    def _next(self, size: int) -> bytes:
        piece, self._ahead = self._ahead[:size], self._ahead[size:]
        return piece or self._read(size)

    def _read(self, size: int) -> bytes:
        left = None if self._answer.length is None else self._answer.length - self._taken
        piece = self._answer.read(size if left is None else min(size, left))
        self._taken += len(piece)
        if not piece and left:
            raise UnreachableError(f"{self.name}: the connection ended {format_bytes(left)} before the end of the file")
        return piece


@contextmanager
def open_body(client: Client, address: Address) -> Iterator[Body]:
    """Request a whole file and give it while the context lasts.

    Raises as Client.open() does, and FetchError if the server does not say where the file ends.
    """
    with client.open(address) as answer:
        if answer.status != 200:
            raise FetchError(f"{address}: the server answers a request for the whole file with status {answer.status}")
        if not answer.marks_its_end:
            raise FetchError(
                f"{address}: the server does not send the size, so an image that ends early would not be noticed; "
                "download it and compare it with a checksum"
            )
        yield Body(answer)
