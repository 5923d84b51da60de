# SPDX-License-Identifier: MIT
"""Addresses of files on servers, and what of them may be shown."""

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
    """Where a file is: parts are those of its address, without user, password and fragment.

    authorization is the header that carries user and password, empty without them. Messages show str() of an address:
    it leaves out the query, which may be a key, too.
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
        """The path and the query, as a request names them."""
        return self.parts._replace(scheme="", netloc="", path=self.parts.path or "/").geturl()

    def __str__(self) -> str:
        shown = self.parts._replace(query="").geturl()
        return f"{shown}?..." if self.parts.query else shown

    def redirected(self, location: str) -> Address:
        """Return the address that a redirection from this one names, without a password.

        Raises FetchError for one that is not http or https, and from https to http.
        """
        try:
            found = parse_address(urljoin(self.url, quote(location, safe="!#$%&'()*+,/:;=?@[]~")))
        except ValueError:
            found = parse_address(location)  # which says what is wrong with it
        if self.parts.scheme == "https" and found.parts.scheme != "https":
            raise FetchError(f"{self}: is redirected from https to {found}, which nothing protects")
        return Address(found.parts)


def parse_address(text: str) -> Address:
    """Return the address that text spells. Raises FetchError for anything but http:// and https://."""
    try:
        parts = urlsplit(text)
        valid = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
    except ValueError:  # a port that is not a number, brackets that do not match
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
