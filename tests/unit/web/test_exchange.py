# SPDX-License-Identifier: MIT
"""The thread of an exchange: it reads little ahead of its caller, stops if that closes, and always reports its end."""

from __future__ import annotations

import time
from collections.abc import Callable
from email.message import Message

import pytest

from pydiskimg.web.exchange import Exchange

MIB = 1 << 20


class Endless:
    """A body without an end; after close(), which may fail, nothing is read."""

    status = 200
    headers = Message()
    reason: str | None = None

    def __init__(self, pieces: int | None = None, *, failing: bool = False) -> None:
        self.left = pieces
        self.failing = failing
        self.count = 0
        self.closed = False

    def read1(self, size: int, /) -> bytes:
        assert not self.closed
        if self.count == self.left:
            return b""
        self.count += 1
        return bytes(size)

    def close(self) -> None:
        self.closed = True
        if self.failing:
            raise OSError("it is gone")


def nothing() -> None:
    pass


def wait_until(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.01)


def test_no_more_is_read_than_a_little_ahead() -> None:
    body = Endless()
    with Exchange(lambda: body) as exchange:
        exchange.begin(nothing, seconds=30)
        wait_until(lambda: body.count >= 4)
        time.sleep(0.2)  # too short only makes the test easier
        assert body.count <= 5
        assert sum(len(exchange.read(MIB, nothing)) for _ in range(10)) == 10 * MIB
        assert body.count <= 15
    wait_until(lambda: body.closed)


def test_an_answer_that_cannot_be_closed_has_ended_all_the_same() -> None:
    end = time.monotonic() + 30

    def check() -> None:
        if time.monotonic() > end:
            pytest.fail("the end is not told")

    with Exchange(lambda: Endless(1, failing=True)) as exchange:
        exchange.begin(check, seconds=30)
        assert exchange.read(2 * MIB, check) == bytes(MIB)
        assert exchange.read(1, check) == b""
