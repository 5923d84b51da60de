# SPDX-License-Identifier: MIT
"""The source of images: a directory on a web server (ADR 0045)."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from urllib.parse import quote

from pydiskimg.web.address import parse_address
from pydiskimg.web.client import Answer, Client
from pydiskimg.web.errors import FetchError


class Site:
    """The directory at an address, reached through a proxy (http://HOST:PORT); all else as for Client."""

    def __init__(self, address: str, proxy: str = "", *, check: Callable[[], None] = lambda: None) -> None:
        self._directory = parse_address(address)
        if "?" in address or "#" in address:
            raise FetchError(
                f"IMAGE_URL: {self._directory} has a '?' or '#' in it; expected the address of a directory"
            )
        self._client = Client(proxy, agent="ganeti-os-image", check=check)

    def url(self, name: str) -> str:
        """Return the address of a file in the directory, as messages show it."""
        return f"{str(self._directory).rstrip('/')}/{quote(name)}"

    @contextmanager
    def open(self, name: str, headers: Mapping[str, str] | None = None) -> Iterator[Answer]:
        """Request a file and give the answer while the context lasts. Raises as Client.open() does."""
        parts = self._directory.parts
        file = replace(self._directory, parts=parts._replace(path=f"{parts.path.rstrip('/')}/{quote(name)}"))
        with self._client.open(file, headers, name=name) as answer:
            yield answer
