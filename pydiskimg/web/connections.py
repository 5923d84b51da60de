# SPDX-License-Identifier: MIT
"""Connections to servers and through proxies; some are kept for the next request."""

from __future__ import annotations

import http.client
import ssl
import threading
from collections.abc import Mapping
from email.message import Message
from functools import cached_property
from urllib.request import getproxies, proxy_bypass

from pydiskimg.web.address import Address, parse_address

_USUAL_PORTS = {"http": 80, "https": 443}


class KeptResponse:
    """An answer whose connection serves the next request if its body was read to the end."""

    def __init__(self, response: http.client.HTTPResponse, connection: _Connection, connections: Connections) -> None:
        self.status = response.status
        self.headers: Message = response.headers
        self.reason: str | None = response.reason
        self._response = response
        self._connection = connection
        self._connections = connections

    def read1(self, size: int, /) -> bytes:
        return self._response.read1(size)

    def close(self) -> None:
        whole = self._response.isclosed() or self._response.length == 0
        self._response.close()
        self._connections.give_back(self._connection, usable=whole and not self._response.will_close)


class _Connection:
    """A connection; whose identifies the server that it leads to, prefix is what a proxy wants before the path."""

    def __init__(self, whose: tuple[str, str, int | None], http: http.client.HTTPConnection) -> None:
        self.whose = whose
        self.http = http
        self.headers: dict[str, str] = {}
        self.is_used = False
        self.prefix = ""

    def ask(self, address: Address, headers: Mapping[str, str]) -> http.client.HTTPResponse:
        self.http.request("GET", self.prefix + address.target, headers={**headers, **self.headers})
        self.is_used = True
        return self.http.getresponse()


class Connections:
    """Keeps at most kept idle connections, until close(). Safe from several threads.

    proxy is http://HOST:PORT; by default the proxies of the environment are used, as by urllib.request. timeout
    (seconds) applies to making a connection, and to each read.
    """

    def __init__(self, proxy: str = "", *, timeout: float, kept: int = 0) -> None:
        self._timeout = timeout
        self._proxies = {"http": proxy, "https": proxy} if proxy else getproxies()
        self._kept = kept
        self._idle: list[_Connection] = []
        self._lock = threading.Lock()

    @cached_property
    def _context(self) -> ssl.SSLContext:
        return ssl.create_default_context()

    def ask(self, address: Address, headers: Mapping[str, str]) -> KeptResponse:
        """Send a request and return its answer once the headers have arrived.

        Raises FetchError for an invalid proxy, and OSError, http.client.HTTPException and ValueError as http.client
        does.
        """
        headers = dict(headers) if self._kept else {**headers, "Connection": "close"}
        connection = self._idle_one(address)
        if connection is not None:
            try:
                return KeptResponse(connection.ask(address, headers), connection, self)
            except (OSError, http.client.HTTPException):  # the server has closed it meanwhile
                connection.http.close()
        connection = self._new(address)
        try:
            return KeptResponse(connection.ask(address, headers), connection, self)
        except BaseException:
            connection.http.close()
            raise

    def give_back(self, connection: _Connection, *, usable: bool) -> None:
        """Keep a connection whose answer was read, or close it."""
        with self._lock:
            if usable and len(self._idle) < self._kept:
                self._idle.append(connection)
                return
        connection.http.close()

    def close(self) -> None:
        """Close idle connections, and those that are returned later. May be called repeatedly."""
        with self._lock:
            self._kept, idle, self._idle = 0, self._idle, []
        for connection in idle:
            connection.http.close()

    def _idle_one(self, address: Address) -> _Connection | None:
        with self._lock:
            for connection in reversed(self._idle):
                if connection.whose == address.origin:
                    self._idle.remove(connection)
                    return connection
        return None

    def _new(self, address: Address) -> _Connection:
        scheme, host, port = address.origin
        port = port or _USUAL_PORTS[scheme]
        proxy = self._proxies.get(scheme)
        if not proxy or proxy_bypass(f"{host}:{port}"):
            return _Connection(address.origin, self._connection(scheme, host, port))
        return self._through(address, parse_address(proxy if "://" in proxy else f"http://{proxy}"), port)

    def _through(self, address: Address, proxy: Address, port: int) -> _Connection:
        own = {"Proxy-Authorization": proxy.authorization} if proxy.authorization else {}
        proxy_port = proxy.parts.port or _USUAL_PORTS[proxy.parts.scheme]
        if address.parts.scheme == "https":
            tunnel = _Connection(address.origin, self._connection("https", proxy.host, proxy_port))
            tunnel.http.set_tunnel(address.host, port, headers=own)
            return tunnel
        connection = _Connection(address.origin, self._connection(proxy.parts.scheme, proxy.host, proxy_port))
        connection.headers, connection.prefix = own, f"http://{address.parts.netloc}"
        return connection

    def _connection(self, scheme: str, host: str, port: int) -> http.client.HTTPConnection:
        if scheme == "https":
            return http.client.HTTPSConnection(host, port, timeout=self._timeout, context=self._context)
        return http.client.HTTPConnection(host, port, timeout=self._timeout)
