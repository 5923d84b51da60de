# SPDX-License-Identifier: MIT
"""Being asked to end: a signal is noted, and takes effect where nothing is half done.

An exception raised by the signal itself could come between an open() and the code that closes it: the leaked descriptor
would keep the guest's file system from being unmounted. So check() is called at the start of each step and with each
progress, in any thread.
"""

from __future__ import annotations

import signal

SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


class TerminatedError(Exception):
    """A signal asked us to end."""


class Ending:
    """Notes the first of SIGNALS that arrives once install() was called, in the main thread.

    what names, for messages, the thing that is not complete when a signal ends us.
    """

    def __init__(self, what: str) -> None:
        self.number = 0
        self.what = what
        self._patience = 0.0

    def install(self, *, patience_seconds: float = 0.0) -> None:
        """Handle the signals, but for those that we were started to ignore.

        patience_seconds is for what waits for another process, which may never go on: if we have not ended so long
        after a signal, error() is raised in the main thread, wherever that is. 0: never.
        """
        self._patience = patience_seconds
        signal.signal(signal.SIGALRM, self._lose_patience)
        for number in SIGNALS:
            if signal.getsignal(number) is not signal.SIG_IGN:
                signal.signal(number, self._note)

    def check(self) -> None:
        """Raise TerminatedError when a signal has arrived."""
        if self.number:
            raise self.error()

    def error(self) -> TerminatedError:
        """Return what check() raises."""
        name = signal.Signals(self.number or signal.SIGALRM).name
        return TerminatedError(f"ended by {name}; {self.what} is not complete")

    def _note(self, number: int, _frame: object) -> None:
        self.number = self.number or number
        if self._patience:
            signal.setitimer(signal.ITIMER_REAL, self._patience)

    def _lose_patience(self, *_: object) -> None:
        raise self.error()
