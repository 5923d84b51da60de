# SPDX-License-Identifier: MIT
"""Signals that end a command as Ctrl-C does, so that every context manager cleans up."""

from __future__ import annotations

from pydiskimg.startup import TYPE_CHECKING

if TYPE_CHECKING:
    import signal
    from typing import NoReturn
else:  # signal.py makes enumerations of the same numbers, and takes 4 ms
    import _signal as signal

_ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def end_as_interrupted() -> None:
    """Let SIGINT, SIGTERM and SIGHUP raise KeyboardInterrupt(number) in the main thread, the first of them only.

    One that the caller has us ignore (nohup, a background job of a shell) stays ignored.
    """
    for number in _taken():
        signal.signal(number, _terminated)


def _taken() -> list[int]:
    return [number for number in _ENDING if signal.getsignal(number) != signal.SIG_IGN]


def how_ended(error: KeyboardInterrupt) -> tuple[str, int]:
    """Return what to say of a signal, and the exit status of a command that it ended: 128 + its number, as of a shell.

    One without a number is SIGINT, which the interpreter handles before end_as_interrupted() does.
    """
    from signal import Signals

    number = error.args[0] if error.args else signal.SIGINT
    return "interrupted" if number == signal.SIGINT else f"ended by {Signals(number).name}", 128 + number


def _terminated(number: int, _: object) -> NoReturn:
    for taken in _taken():
        # Not SIG_IGN: of a signal that has come meanwhile the interpreter would print a traceback.
        signal.signal(taken, _too_late)
    raise KeyboardInterrupt(number)


def _too_late(*_: object) -> None:
    """The first signal is being seen to."""
