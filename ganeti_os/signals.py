# SPDX-License-Identifier: MIT
"""Requests to end: a signal is recorded, and takes effect where no operation is half done.

An exception raised by the signal handler itself could come between an open() and the code that closes it: the leaked
descriptor would keep the guest's file system from being unmounted. Therefore check() is called at the start of each
step and at each progress, in any thread.
"""

from __future__ import annotations

import signal

SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


class TerminatedError(Exception):
    """A signal asked the process to end."""


class Ending:
    """Records the first of SIGNALS that arrives after install() was called, in the main thread.

    what names, for messages, the object that is incomplete when a signal ends the process.
    """

    def __init__(self, what: str) -> None:
        self.number = 0
        self.what = what
        self._patience = 0.0

    def install(self, *, patience_seconds: float = 0.0) -> None:
        """Handle the signals, except those that the process was started to ignore.

        patience_seconds is for code that waits for another process, perhaps forever: if the process has not ended that
        long after a signal, error() is raised in the main thread, wherever that is. 0: never.
        """
        self._patience = patience_seconds
        signal.signal(signal.SIGALRM, self._lose_patience)
        for number in SIGNALS:
            if signal.getsignal(number) is not signal.SIG_IGN:
                signal.signal(number, self._note)

    def check(self) -> None:
        """Raise TerminatedError if a signal has arrived."""
        if self.number:
            raise self.error()

    def error(self) -> TerminatedError:
        """Return the error that check() raises."""
        name = signal.Signals(self.number or signal.SIGALRM).name
        return TerminatedError(f"ended by {name}; {self.what} is not complete")

    def _note(self, number: int, _frame: object) -> None:
        self.number = self.number or number
        if self._patience:
            signal.setitimer(signal.ITIMER_REAL, self._patience)

    def _lose_patience(self, *_: object) -> None:
        raise self.error()
