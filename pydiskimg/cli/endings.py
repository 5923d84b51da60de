# SPDX-License-Identifier: MIT
"""Signals that end a command as Ctrl-C does, so that every context manager cleans up."""

from __future__ import annotations

import signal

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import NoReturn

_ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def end_as_interrupted() -> None:
    """Let SIGINT, SIGTERM and SIGHUP raise KeyboardInterrupt in the main thread, the first of them only."""
    for number in _ENDING:
        signal.signal(number, _terminated)


def _terminated(*_: object) -> NoReturn:
    for number in _ENDING:
        # Not SIG_IGN: of a signal that has come meanwhile the interpreter would print a traceback.
        signal.signal(number, _too_late)
    raise KeyboardInterrupt


def _too_late(*_: object) -> None:
    """The first signal is being seen to."""
