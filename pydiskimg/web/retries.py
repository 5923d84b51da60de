# SPDX-License-Identifier: MIT
"""Retries of requests that may fail temporarily."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable

from pydiskimg.units import MIB
from pydiskimg.web.errors import UnreachableError

log = logging.getLogger(__name__)

ATTEMPTS = 5  # without getting on
PAUSE_SECONDS = 1.0  # before the second attempt, twice as long before each that follows

_GOT_ON = MIB  # an attempt that receives less counts as one without progress


def retried(
    attempt: Callable[[], None],
    check: Callable[[], None],
    *,
    attempts: int = ATTEMPTS,
    brought: Callable[[], int] = lambda: 0,
) -> None:
    """Call attempt() until it returns, or has raised UnreachableError that often without progress.

    brought returns how many bytes have been received.
    """
    failures, furthest = 0, brought()
    while True:
        check()
        try:
            attempt()
        except UnreachableError as error:
            now = brought()
            failures = 0 if now >= furthest + _GOT_ON else failures + 1
            furthest = max(furthest, now)
            if failures >= attempts:
                raise
            seconds = PAUSE_SECONDS * 2 ** max(0, failures - 1)
            log.info("%s; trying again in %.3g s", error, seconds)
            _pause(seconds, check)
        else:
            return


def _pause(seconds: float, check: Callable[[], None]) -> None:
    end = time.monotonic() + seconds
    while (rest := end - time.monotonic()) > 0:
        check()
        time.sleep(min(rest, 0.2))
