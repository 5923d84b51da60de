# SPDX-License-Identifier: MIT
"""A request and its answer in a thread, so that the caller can be interrupted and has a deadline.

A name look-up, a connection, TLS and each header line can take as long as the server likes, and a signal does not end
them. Here they only occupy a thread that ends with the process.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from email.message import Message
from typing import Protocol, Self

_POLL_SECONDS = 0.1
_PIECE = 1 << 20
_AHEAD = 4 << 20  # bytes that are read ahead


class NoAnswerError(Exception):
    """The headers of the answer did not arrive in time."""


class Response(Protocol):
    """A response of urllib with any status."""

    status: int
    headers: Message
    reason: str | None

    def read1(self, size: int, /) -> bytes: ...

    def close(self) -> None: ...


class Exchange:
    """Made by begin(), which returns when the headers have arrived; close() ends the connection.

    Only one thread may call its methods.
    """

    def __init__(self, ask: Callable[[], Response]) -> None:
        self._ask = ask
        self._changed = threading.Condition()
        self._response: Response | None = None
        self._pieces: deque[bytes] = deque()
        self._ahead = 0
        self._error: BaseException | None = None
        self._ended = False
        self._closed = False

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def begin(self, check: Callable[[], None], *, seconds: float) -> Response:
        """Call ask, and return the answer with its headers; the caller must not call methods of that answer.

        check is called several times per second and may raise. Raises what ask() raises, NoAnswerError after seconds,
        RuntimeError when the system would not start a thread.
        """
        threading.Thread(target=self._run, daemon=True).start()
        end = time.monotonic() + seconds
        with self._changed:
            while self._response is None:
                if self._error is not None:
                    raise self._error
                if time.monotonic() >= end:
                    raise NoAnswerError
                self._wait(check)
            return self._response

    def read(self, size: int, check: Callable[[], None]) -> bytes:
        """Return up to size bytes of the body, as many as have arrived; empty at its end, and at once for a size of 0.

        check is as for begin(). Raises as reading does.
        """
        with self._changed:
            while size and not self._pieces:
                if self._error is not None:
                    raise self._error
                if self._ended:
                    return b""
                self._wait(check)
            taken = self._take(size)
            self._changed.notify_all()
            return taken

    def close(self) -> None:
        """Abandon the connection; its thread ends as soon as the server sends something or the time is over."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def _wait(self, check: Callable[[], None]) -> None:
        check()
        self._changed.wait(_POLL_SECONDS)

    def _take(self, size: int) -> bytes:
        taken: list[bytes] = []
        while self._pieces and size:
            piece = self._pieces.popleft()
            if len(piece) > size:
                self._pieces.appendleft(piece[size:])
                piece = piece[:size]
            taken.append(piece)
            size -= len(piece)
            self._ahead -= len(piece)
        return taken[0] if len(taken) == 1 else b"".join(taken)

    def _run(self) -> None:
        response = None
        try:
            response = self._ask()
            with self._changed:
                self._response = response
                self._changed.notify_all()
            while self._has_room() and (piece := response.read1(_PIECE)):
                self._give(piece)
        except BaseException as error:  # noqa: BLE001 - raised again where it is waited for
            self._fail(error)
        finally:
            if response is not None:
                with suppress(Exception):  # keep what has arrived
                    response.close()
            with self._changed:
                self._ended = True
                self._changed.notify_all()

    def _has_room(self) -> bool:
        """Wait until more may be read; False when the exchange was closed."""
        with self._changed:
            self._changed.wait_for(lambda: self._closed or self._ahead < _AHEAD)
            return not self._closed

    def _give(self, piece: bytes) -> None:
        with self._changed:
            self._pieces.append(piece)
            self._ahead += len(piece)
            self._changed.notify_all()

    def _fail(self, error: BaseException) -> None:
        with self._changed:
            self._error = error
            self._changed.notify_all()
