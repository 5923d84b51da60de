# SPDX-License-Identifier: MIT
"""A file on a server of which any range can be requested, as long as the file does not change."""

from __future__ import annotations

from dataclasses import dataclass

from pydiskimg.text import printable
from pydiskimg.units import format_bytes
from pydiskimg.web.address import Address
from pydiskimg.web.client import Answer, Client
from pydiskimg.web.errors import FetchError, NoRangesError, NotThereError, UnreachableError
from pydiskimg.web.retries import retried
from pydiskimg.web.versions import content_range, validator

_SHOWN = 80  # characters of a header


@dataclass(frozen=True, slots=True)
class _Version:
    """The identity that the headers of every answer must repeat. if_range identifies it in a request, if possible."""

    etag: str | None
    modified: str | None
    size: int
    if_range: str

    @property
    def header(self) -> str:
        """The name of the header that identifies the version."""
        return "Last-Modified" if self.etag is None else "ETag"

    def is_of(self, answer: Answer) -> bool:
        same = answer.headers.get(self.header) == (self.etag or self.modified)
        return same and content_range(answer).total == self.size


class RangedFile:
    """A version of a file. Made by open_ranged(). Safe from several threads.

    size is in bytes; beginning is its first bytes.
    """

    def __init__(self, client: Client, address: Address, at: Address, version: _Version, beginning: bytes) -> None:
        self.name = str(address)
        self.size = version.size
        self.beginning = beginning
        self._client = client
        self._address = address
        self._at = at  # the address after redirections
        self._version = version

    def read_into(self, offset: int, view: memoryview) -> None:
        """Fill the view with the bytes from offset on, all of which the file must have.

        Raises UnreachableError after several attempts, FetchError if the file has changed or the server contradicts
        itself.
        """
        done = 0

        def attempt() -> None:
            nonlocal done
            headers = {"Range": _range(offset + done, len(view) - done)}
            if self._version.if_range:
                headers["If-Range"] = self._version.if_range
            with self._client.open(self._at, headers) as answer:
                self._check(answer, offset + done, len(view) - done)
                while done < len(view):
                    piece = _piece(answer, len(view) - done)
                    view[done : done + len(piece)] = piece
                    done += len(piece)
                _read_end(answer)

        def attempt_here_or_there() -> None:
            try:
                attempt()
            except NotThereError:  # the target of a redirection may be valid for a short time only
                if self._at is self._address:
                    raise
                self._at = self._address
                attempt()

        if len(view):
            retried(attempt_here_or_there, self._client.check, brought=lambda: done)

    def close(self) -> None:
        """Close idle connections. May be called repeatedly."""
        self._client.close()

    def _check(self, answer: Answer, offset: int, length: int) -> None:
        if answer.status != 206 or not self._version.is_of(answer):
            raise FetchError(
                f"{self.name}: the file changed on the server while it was read (found status {answer.status}, "
                f"{_told(answer)}, {_told(answer, self._version.header)}); start again"
            )
        _check_range(answer, offset, length)


def open_ranged(client: Client, address: Address, *, first: int) -> RangedFile:
    """Request the first bytes of a file, that many or as many as it has, and return it; the client stays the caller's.

    Raises NoRangesError if the server sends the whole file instead, UnreachableError, and FetchError if the server does
    not state the size of the file and its version.
    """
    found: list[RangedFile] = []

    def attempt() -> None:
        with client.open(address, {"Range": _range(0, first)}) as answer:
            found[:] = [_opened(client, address, answer, first)]

    retried(attempt, client.check)
    return found[0]


def _opened(client: Client, address: Address, answer: Answer, first: int) -> RangedFile:
    if answer.status == 200:
        raise NoRangesError(
            f"{address}: the server sends only the whole file, and ranges of it are needed; download it "
            "(convert without -l, --used and --verify reads it from start to end)"
        )
    size = content_range(answer).total
    if size is None or (answer.status == 416 and size):
        raise FetchError(f"{address}: the server does not state the size of the file ({_told(answer)})")
    length = min(first, size)
    if length:
        _check_range(answer, 0, length)
    headers = answer.headers
    version = _Version(headers.get("ETag"), headers.get("Last-Modified"), size, validator(answer))
    if size and version.etag is None and version.modified is None:
        raise FetchError(
            f"{address}: the server sends neither ETag nor Last-Modified, so a change of the file while it is read "
            "would not be noticed; download it first"
        )
    beginning = bytearray()
    while len(beginning) < length:
        beginning += _piece(answer, length - len(beginning))
    _read_end(answer)
    return RangedFile(client, address, answer.address, version, bytes(beginning))


def _range(offset: int, length: int) -> str:
    return f"bytes={offset}-{offset + length - 1}"


def _check_range(answer: Answer, offset: int, length: int) -> None:
    found = content_range(answer)
    if (found.first, found.last) != (offset, offset + length - 1) or answer.length not in (None, length):
        raise FetchError(
            f"{answer.url}: the server sent another range than was requested (found {_told(answer)}, "
            f"{_told(answer, 'Content-Length')}; expected bytes {offset}-{offset + length - 1})"
        )


def _piece(answer: Answer, size: int) -> bytes:
    piece = answer.read(size)
    if not piece:
        raise UnreachableError(f"{answer.url}: the connection ended {format_bytes(size)} before the end of the range")
    return piece


def _read_end(answer: Answer) -> None:
    """Let the connection be kept for the next request; without a length, the end of an answer is unknown."""
    if answer.length is not None:
        answer.read(1)


def _told(answer: Answer, header: str = "Content-Range") -> str:
    text = answer.headers.get(header)
    return f"no {header}" if text is None else f"{header}: {printable(text, limit=_SHOWN)}"
