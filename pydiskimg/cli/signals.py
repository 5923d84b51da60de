# SPDX-License-Identifier: MIT
"""Signals that end a command like Ctrl-C, so that every context manager cleans up."""

from __future__ import annotations

from pydiskimg.startup import TYPE_CHECKING

if TYPE_CHECKING:
    import signal
    from typing import NoReturn
else:  # signal.py makes enumerations of the same numbers, and takes 4 ms
    import _signal as signal

_ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def end_as_interrupted() -> None:
    """Make SIGINT, SIGTERM and SIGHUP raise KeyboardInterrupt(number) in the main thread, only the first of them.

    A signal that the caller ignores (nohup, a background job of a shell) stays ignored.
    """
    for number in _taken():
        signal.signal(number, _terminated)


def _taken() -> list[int]:
    return [number for number in _ENDING if signal.getsignal(number) != signal.SIG_IGN]


def how_ended(error: KeyboardInterrupt, *, writes: bool = True) -> tuple[str, int]:
    """Return the message for a signal, and the exit status of a command that it ended: 128 + its number, as in a shell.

    interruption.py says what is left behind, if it knows. Without a number it is SIGINT, which the interpreter handles
    before end_as_interrupted() does. writes: the command writes a disk or file.
    """
    from signal import Signals

    number = error.args[0] if error.args else signal.SIGINT
    said = "interrupted" if number == signal.SIGINT else f"ended by {Signals(number).name}"
    usual = "what was being written is not complete" if writes else ""
    left = error.args[1] if len(error.args) > 1 else usual
    return "; ".join(filter(None, [said, left])), 128 + number


def _terminated(number: int, _: object) -> NoReturn:
    for taken in _taken():
        # Not SIG_IGN: the interpreter would print a traceback for a signal that has arrived meanwhile.
        signal.signal(taken, _too_late)
    raise KeyboardInterrupt(number)


def _too_late(*_: object) -> None:
    """The first signal is being handled."""
