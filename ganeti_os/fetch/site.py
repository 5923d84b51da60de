# SPDX-License-Identifier: MIT
"""Where images come from: a directory on a web server, asked over HTTP or HTTPS by the standard library (ADR 0045)."""

from __future__ import annotations

import base64
import http.client
import ssl
import time
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from email.message import Message
from typing import cast
from urllib.error import HTTPError, URLError
from urllib.parse import SplitResult, quote, unquote, urljoin, urlsplit

from ganeti_os.fetch.errors import FetchError, NotThereError, UnreachableError
from ganeti_os.fetch.http_exchange import Exchange, NoAnswerError, Response
from ganeti_os.settings.kinds import without_password
from pydiskimg.text import printable, quoted

TIMEOUT_SECONDS = 30.0  # for a connection, and for each read
HEADERS_SECONDS = 60.0  # for all until the headers are there, however slowly they come
STALL_SECONDS = 60.0
STALL_BYTES = 1024
REDIRECTS = 5

_REDIRECTED = frozenset({301, 302, 303, 307, 308})
_NOT_THERE = frozenset({403, 404, 410})  # 403: object stores say so of what they do not have
_ASKED_FOR = frozenset({206, 304, 416})  # answers to Range and If-None-Match
_PASSING = frozenset({408, 425, 429})  # besides 500 and above
_URL_LIMIT = 8192
_SHOWN = 200  # characters of what a server says
_SUFFIXES = {"gzip": (".gz", ".tgz"), "x-gzip": (".gz", ".tgz"), "zstd": (".zst",), "br": (".br",)}


class _Pace:
    """Finds a connection on which something comes now and then, but next to nothing."""

    def __init__(self) -> None:
        self._since = time.monotonic()
        self._bytes = 0

    def is_fair(self, count: int) -> bool:
        """Count bytes that came; False when STALL_SECONDS have brought less than STALL_BYTES."""
        self._bytes += count
        now = time.monotonic()
        if now - self._since < STALL_SECONDS:
            return True
        fair = self._bytes >= STALL_BYTES
        self._since, self._bytes = now, 0
        return fair


@dataclass(frozen=True, slots=True)
class Answer:
    """What the server said: status 200, 206, 304 or 416, the headers, and the body, to be read once."""

    url: str
    status: int
    headers: Message
    body: Exchange
    check: Callable[[], None]
    pace: _Pace = field(default_factory=_Pace)

    @property
    def length(self) -> int | None:
        """Bytes of the body as Content-Length says; None when it says nothing that can be used."""
        text = self.headers.get("Content-Length", "")
        chunked = self.headers.get("Transfer-Encoding", "").lower() not in ("", "identity")
        return int(text) if _is_number(text) and not chunked else None

    @property
    def marks_its_end(self) -> bool:
        """True when a body that ends early can be told from a whole one."""
        return self.length is not None or self.headers.get("Transfer-Encoding", "").lower() == "chunked"

    def read(self, size: int) -> bytes:
        """Return up to size bytes of the body, as many as have arrived; none at its end. Raises UnreachableError."""
        try:
            data = self.body.read(size, self._waiting)
        except TimeoutError as error:
            raise UnreachableError(f"{self.url}: nothing came for {TIMEOUT_SECONDS:.0f} seconds") from error
        except (OSError, http.client.HTTPException, ValueError) as error:
            raise UnreachableError(f"{self.url}: the connection broke off: {_reason(error)}") from error
        if data:
            self._count(len(data))
        return data

    def _waiting(self) -> None:
        """Be called while nothing comes of the body: chunk sizes and trailers count for nothing, however long."""
        self.check()
        self._count(0)

    def _count(self, count: int) -> None:
        if not self.pace.is_fair(count):
            raise UnreachableError(f"{self.url}: less than {STALL_BYTES} bytes came in {STALL_SECONDS:.0f} seconds")


class Site:
    """The directory at an address, reached through a proxy (http://HOST:PORT).

    Where none is named, proxies are those of the environment, as urllib.request takes them. The address may have a user
    and a password in it; they go to that server only, and into no message. check is called several times in a second
    while the server is waited for, and may raise.
    """

    def __init__(self, address: str, proxy: str = "", *, check: Callable[[], None] = lambda: None) -> None:
        parts = _split(address)
        if parts.query or parts.fragment:
            raise FetchError(f"IMAGE_URL: {_shown(parts)} has a '?' or '#' in it; expected the address of a directory")
        self._base = _shown(parts).rstrip("/")
        self._authorization = _authorization(parts)
        self._opener = _opener(proxy)
        self._check = check
        self._through = f" (through the proxy {_shown(_split(proxy))})" if proxy else ""

    def url(self, name: str) -> str:
        """Return the address of a file in the directory, as messages show it."""
        return f"{self._base}/{quote(name)}"

    @contextmanager
    def open(self, name: str, headers: Mapping[str, str] | None = None) -> Iterator[Answer]:
        """Ask for a file and give the answer while the context lasts, at most REDIRECTS redirections away.

        Raises NotThereError when the server has no such file, UnreachableError when another attempt may succeed, and
        FetchError for the rest: a certificate that does not verify, a redirection from https to http.
        """
        url = self.url(name)
        for _ in range(REDIRECTS + 1):
            with self._exchange(url, dict(headers or {})) as exchange:
                response = self._begin(exchange, url)
                answer = Answer(url, response.status, response.headers, exchange, self._check)
                if answer.status not in _REDIRECTED:
                    _check_status(answer, response.reason or "")
                    _check_encoding(answer, name)
                    yield answer
                    return
                url = _redirection(answer)
        raise FetchError(f"{self.url(name)}: is redirected more than {REDIRECTS} times, at last to {url}")

    def _exchange(self, url: str, headers: dict[str, str]) -> Exchange:
        headers |= {"Accept-Encoding": "identity", "User-Agent": "ganeti-os-image"}
        request = urllib.request.Request(url, headers=headers)  # noqa: S310 - http and https only, see _split()
        if self._authorization and _origin(url) == _origin(self._base):
            request.add_header("Authorization", self._authorization)

        def ask() -> Response:
            try:
                return cast(Response, self._opener.open(request, timeout=TIMEOUT_SECONDS))
            except HTTPError as error:
                return cast(Response, error)  # an answer, too

        return Exchange(ask)

    def _begin(self, exchange: Exchange, url: str) -> Response:
        try:
            return exchange.begin(self._check, seconds=HEADERS_SECONDS)
        except (OSError, http.client.HTTPException, ValueError, RuntimeError, NoAnswerError) as error:
            raise _failure(f"{url}{self._through}", error) from error


def _opener(proxy: str) -> urllib.request.OpenerDirector:
    """An opener without what build_opener() would add: other schemes, and redirections that are followed unasked."""
    opener = urllib.request.OpenerDirector()
    for handler in (
        urllib.request.ProxyHandler({"http": proxy, "https": proxy} if proxy else None),
        urllib.request.HTTPHandler(),
        urllib.request.HTTPSHandler(context=ssl.create_default_context()),
        urllib.request.HTTPDefaultErrorHandler(),
        urllib.request.HTTPErrorProcessor(),
    ):
        opener.add_handler(handler)
    return opener


def _split(url: str) -> SplitResult:
    try:
        parts = urlsplit(url)
        valid = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
    except ValueError:  # a port that is not a number, brackets that do not match
        valid = False
    if not valid or len(url) > _URL_LIMIT or not url.isascii() or not url.isprintable() or " " in url:
        raise FetchError(
            f"{quoted(without_password(url), limit=_SHOWN)} is not an http:// or https:// address; expected "
            "http://HOST/... or https://HOST/..."
        )
    return parts


def _shown(parts: SplitResult) -> str:
    """The address without user and password."""
    return parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl()


def _authorization(parts: SplitResult) -> str:
    if parts.username is None:
        return ""
    text = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
    return "Basic " + base64.b64encode(text.encode()).decode("ascii")


def _origin(url: str) -> tuple[str, str | None, int | None]:
    parts = urlsplit(url)
    return parts.scheme, parts.hostname, parts.port


def _redirection(answer: Answer) -> str:
    location = answer.headers.get("Location", "")
    if not location:
        raise FetchError(f"{answer.url}: the server redirects (status {answer.status}) and does not say where to")
    try:
        parts = _split(urljoin(answer.url, quote(location, safe="!#$%&'()*+,/:;=?@[]~")))
    except ValueError:
        parts = _split(location)  # which says what is wrong with it
    if answer.url.startswith("https:") and parts.scheme != "https":
        raise FetchError(f"{answer.url}: is redirected from https to {_shown(parts)}, which nothing protects")
    return parts._replace(netloc=parts.netloc.rpartition("@")[2], fragment="").geturl()


def _check_status(answer: Answer, reason: str) -> None:
    status = answer.status
    if status in _ASKED_FOR or status == 200:
        return
    text = f"{answer.url}: the server says {status} {printable(reason, limit=_SHOWN)}".rstrip()
    if status in _NOT_THERE:
        raise NotThereError(text)
    if status in _PASSING or status >= 500:
        raise UnreachableError(text)
    raise FetchError(f"{text}; expected the file")


def _check_encoding(answer: Answer, name: str) -> None:
    """Raise FetchError for a body that was encoded although the request said not to: it is not the file's bytes.

    A server may say "gzip" of a file that is one, and then the bytes are the file's.
    """
    encoding = answer.headers.get("Content-Encoding", "identity").strip().lower()
    if encoding not in ("", "identity") and not name.endswith(_SUFFIXES.get(encoding, ())):
        raise FetchError(
            f"{answer.url}: the server sent it with Content-Encoding {quoted(encoding)}, which was not "
            "requested; expected the bytes of the file: let the server send it as it is"
        )


def _failure(where: str, error: Exception) -> FetchError:
    cause = error.reason if isinstance(error, URLError) and isinstance(error.reason, Exception) else error
    if isinstance(cause, ssl.SSLCertVerificationError):
        return FetchError(f"{where}: the server's certificate is not accepted: {cause.verify_message}")
    if isinstance(cause, NoAnswerError):
        return UnreachableError(f"{where}: the headers of the answer did not come within {HEADERS_SECONDS:.0f} seconds")
    if isinstance(cause, TimeoutError):
        return UnreachableError(f"{where}: the server did not answer within {TIMEOUT_SECONDS:.0f} seconds")
    return UnreachableError(f"{where}: cannot be fetched: {_reason(cause)}")


def _reason(error: Exception) -> str:
    text = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    return printable(without_password(text), limit=_SHOWN) or type(error).__name__


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdigit() and len(text) <= 18
