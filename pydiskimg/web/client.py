# SPDX-License-Identifier: MIT
"""Requests and their answers: redirections, statuses, and time limits."""

from __future__ import annotations

import http.client
import ssl
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from email.message import Message
from typing import cast

from pydiskimg.text import printable, quoted, without_password
from pydiskimg.web.address import Address, parse_address
from pydiskimg.web.connections import Connections
from pydiskimg.web.errors import FetchError, NotThereError, UnreachableError
from pydiskimg.web.exchange import Exchange, NoAnswerError, Response

TIMEOUT_SECONDS = 30.0  # for a connection, and for each read
HEADERS_SECONDS = 60.0  # for all until the headers are there, however slowly they come
STALL_SECONDS = 60.0
STALL_BYTES = 1024
REDIRECTS = 5

_REDIRECTED = frozenset({301, 302, 303, 307, 308})
_NOT_THERE = frozenset({403, 404, 410})  # 403: object stores answer so for missing files
_ASKED_FOR = frozenset({206, 304, 416})  # answers to Range and If-None-Match
_PASSING = frozenset({408, 425, 429})  # besides 500 and above
_SHOWN = 200  # characters of what a server says
_SUFFIXES = {"gzip": (".gz", ".tgz"), "x-gzip": (".gz", ".tgz"), "zstd": (".zst",), "br": (".br",)}


class _Pace:
    """Detects a connection that still receives something now and then, but next to nothing."""

    def __init__(self) -> None:
        self._since = time.monotonic()
        self._bytes = 0

    def is_fair(self, count: int) -> bool:
        """Count received bytes; return False if there were fewer than STALL_BYTES in STALL_SECONDS."""
        self._bytes += count
        now = time.monotonic()
        if now - self._since < STALL_SECONDS:
            return True
        fair = self._bytes >= STALL_BYTES
        self._since, self._bytes = now, 0
        return fair


@dataclass(frozen=True, slots=True)
class Answer:
    """A server's answer: status 200, 206, 304 or 416, the headers, and the body, to be read once."""

    address: Address
    status: int
    headers: Message
    body: Exchange
    check: Callable[[], None]
    pace: _Pace = field(default_factory=_Pace)

    @property
    def url(self) -> str:
        """The address of the file, as messages show it."""
        return str(self.address)

    @property
    def length(self) -> int | None:
        """Bytes of the body by Content-Length; None if that is missing or invalid."""
        text = self.headers.get("Content-Length", "")
        chunked = self.headers.get("Transfer-Encoding", "").lower() not in ("", "identity")
        return int(text) if _is_number(text) and not chunked else None

    @property
    def marks_its_end(self) -> bool:
        """True if a body that ends early can be recognised."""
        return self.length is not None or self.headers.get("Transfer-Encoding", "").lower() == "chunked"

    def read(self, size: int) -> bytes:
        """Return up to size bytes of the body, as many as have arrived; empty at its end. Raises UnreachableError."""
        try:
            data = self.body.read(size, self._waiting)
        except TimeoutError as error:
            raise UnreachableError(f"{self.url}: no bytes arrived for {TIMEOUT_SECONDS:.0f} seconds") from error
        except (OSError, http.client.HTTPException, ValueError) as error:
            raise UnreachableError(f"{self.url}: the connection broke off: {_reason(error)}") from error
        if data:
            self._count(len(data))
        return data

    def _waiting(self) -> None:
        """Called while the body brings no bytes: chunk sizes and trailers do not count, however long they are."""
        self.check()
        self._count(0)

    def _count(self, count: int) -> None:
        if not self.pace.is_fair(count):
            raise UnreachableError(f"{self.url}: less than {STALL_BYTES} bytes arrived in {STALL_SECONDS:.0f} seconds")


class Client:
    """Requests files through a proxy, or the proxies of the environment; agent is the program's name for the servers.

    A user and a password in an address go to its server only, never into a message. check is called several times per
    second while waiting for a server, and may raise. kept is the number of idle connections that are kept until
    close().
    """

    def __init__(self, proxy: str = "", *, agent: str, check: Callable[[], None] = lambda: None, kept: int = 0) -> None:
        self.check = check
        self._agent = agent
        self._connections = Connections(proxy, timeout=TIMEOUT_SECONDS, kept=kept)
        self._through = f" (through the proxy {parse_address(proxy)})" if proxy else ""

    @contextmanager
    def open(self, address: Address, headers: Mapping[str, str] | None = None, *, name: str = "") -> Iterator[Answer]:
        """Request a file and give the answer while the context lasts; at most REDIRECTS redirections are followed.

        name is the file's name, whose ending may explain the server's Content-Encoding. Raises NotThereError if the
        server does not have the file, UnreachableError if another attempt may succeed, and FetchError otherwise: for a
        certificate that does not verify, or a redirection from https to http.
        """
        at = address
        for _ in range(REDIRECTS + 1):
            with self._exchange(at, dict(headers or {})) as exchange:
                response = self._begin(exchange, at)
                answer = Answer(at, response.status, response.headers, exchange, self.check)
                if answer.status not in _REDIRECTED:
                    _check_status(answer, response.reason or "")
                    _check_encoding(answer, name)
                    yield answer
                    return
                at = _redirection(answer, address)
        raise FetchError(f"{address}: is redirected more than {REDIRECTS} times, at last to {at}")

    def close(self) -> None:
        """Close the connections that are kept. May be called repeatedly."""
        self._connections.close()

    def _exchange(self, address: Address, headers: dict[str, str]) -> Exchange:
        headers |= {"Accept-Encoding": "identity", "User-Agent": self._agent}
        if address.authorization:
            headers["Authorization"] = address.authorization
        return Exchange(lambda: cast(Response, self._connections.ask(address, headers)))

    def _begin(self, exchange: Exchange, address: Address) -> Response:
        try:
            return exchange.begin(self.check, seconds=HEADERS_SECONDS)
        except (OSError, http.client.HTTPException, ValueError, RuntimeError, NoAnswerError) as error:
            raise _failure(f"{address}{self._through}", error) from error


def _redirection(answer: Answer, first: Address) -> Address:
    location = answer.headers.get("Location", "")
    if not location:
        raise FetchError(f"{answer.url}: the server redirects (status {answer.status}) without a new address")
    found = answer.address.redirected(location)
    return Address(found.parts, first.authorization) if found.origin == first.origin else found


def _check_status(answer: Answer, reason: str) -> None:
    status = answer.status
    if status in _ASKED_FOR or status == 200:
        return
    text = f"{answer.url}: the server answers {status} {printable(reason, limit=_SHOWN)}".rstrip()
    if status in _NOT_THERE:
        raise NotThereError(text)
    if status in _PASSING or status >= 500:
        raise UnreachableError(text)
    raise FetchError(f"{text}; expected the file")


def _check_encoding(answer: Answer, name: str) -> None:
    """Raise FetchError for a body that is encoded against the request: it is not the file's bytes.

    A server may state "gzip" for a gzip file; the bytes are then those of the file.
    """
    encoding = answer.headers.get("Content-Encoding", "identity").strip().lower()
    if encoding not in ("", "identity") and not name.endswith(_SUFFIXES.get(encoding, ())):
        raise FetchError(
            f"{answer.url}: the server sent it with Content-Encoding {quoted(encoding)}, which was not "
            "requested; expected the bytes of the file: let the server send it as it is"
        )


def _failure(where: str, error: Exception) -> FetchError:
    if isinstance(error, ssl.SSLCertVerificationError):
        return FetchError(f"{where}: the server's certificate is not accepted: {error.verify_message}")
    if isinstance(error, NoAnswerError):
        return UnreachableError(
            f"{where}: the headers of the answer did not arrive within {HEADERS_SECONDS:.0f} seconds"
        )
    if isinstance(error, TimeoutError):
        return UnreachableError(f"{where}: the server did not answer within {TIMEOUT_SECONDS:.0f} seconds")
    return UnreachableError(f"{where}: cannot be fetched: {_reason(error)}")


def _reason(error: Exception) -> str:
    text = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    return printable(without_password(text), limit=_SHOWN) or type(error).__name__


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdigit() and len(text) <= 18
