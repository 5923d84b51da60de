# SPDX-License-Identifier: MIT
"""Addresses of files on servers, and the parts of them that may be shown."""

from __future__ import annotations

import base64
from dataclasses import dataclass
from urllib.parse import SplitResult, quote, unquote, urljoin, urlsplit

from pydiskimg.text import quoted, without_password
from pydiskimg.web.errors import FetchError

_URL_LIMIT = 8192
_SHOWN = 200  # characters


@dataclass(frozen=True, slots=True)
class Address:
    """The address of a file: parts are its components, without user, password and fragment.

    authorization is the header with user and password, or empty. Messages show str() of an address, which also leaves
    out the query, because that may be a key.
    """

    parts: SplitResult
    authorization: str = ""

    @property
    def url(self) -> str:
        return self.parts.geturl()

    @property
    def host(self) -> str:
        """The server's name or number, without brackets."""
        return self.parts.hostname or ""

    @property
    def origin(self) -> tuple[str, str, int | None]:
        return self.parts.scheme, self.host, self.parts.port

    @property
    def target(self) -> str:
        """The path and the query, as in a request."""
        return self.parts._replace(scheme="", netloc="", path=self.parts.path or "/").geturl()

    def __str__(self) -> str:
        shown = self.parts._replace(query="").geturl()
        return f"{shown}?..." if self.parts.query else shown

    def redirected(self, location: str) -> Address:
        """Return the address that a redirection from this one leads to, without a password.

        Raises FetchError for an address that is not http or https, and for a redirection from https to http.
        """
        try:
            found = parse_address(urljoin(self.url, quote(location, safe="!#$%&'()*+,/:;=?@[]~")))
        except ValueError:
            found = parse_address(location)  # raises the error that describes the address
        if self.parts.scheme == "https" and found.parts.scheme != "https":
            raise FetchError(f"{self}: is redirected from https to {found}, which is not encrypted")
        return Address(found.parts)


def parse_address(text: str) -> Address:
    """Return the address in text. Raises FetchError if it is not http:// or https://."""
    try:
        parts = urlsplit(text)
        valid = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
    except ValueError:  # a port that is not a number, or unbalanced brackets
        valid = False
    if not valid or len(text) > _URL_LIMIT or not text.isascii() or not text.isprintable() or " " in text:
        raise FetchError(
            f"{quoted(without_password(text), limit=_SHOWN)} is not an http:// or https:// address; expected "
            "http://HOST/... or https://HOST/..."
        )
    return Address(parts._replace(netloc=parts.netloc.rpartition("@")[2], fragment=""), _authorization(parts))


def _authorization(parts: SplitResult) -> str:
    if parts.username is None:
        return ""
    text = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
    return "Basic " + base64.b64encode(text.encode()).decode("ascii")
