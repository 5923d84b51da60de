# SPDX-License-Identifier: MIT
"""Being asked to end: a signal is noted, and takes effect where nothing is half done.

An exception raised by the signal itself could come between an open() and whoever closes it: the leaked descriptor
would keep the guest's file system from being unmounted. So check() is called at the start of each step and with each
progress, in whatever thread that is.
"""

from __future__ import annotations

import signal

SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


class TerminatedError(Exception):
    """A signal asked us to end."""


class Ending:
    """Notes the first of SIGNALS that arrives once install() was called, in the main thread."""

    def __init__(self) -> None:
        self.number = 0

    def install(self) -> None:
        """Handle the signals, but for those that we were started to ignore."""
        for number in SIGNALS:
            if signal.getsignal(number) is not signal.SIG_IGN:
                signal.signal(number, self._note)

    def check(self) -> None:
        """Raise TerminatedError when a signal has arrived."""
        if self.number:
            raise self.error()

    def error(self) -> TerminatedError:
        """Return what check() raises."""
        return TerminatedError(f"ended by {signal.Signals(self.number).name}; the disk is not complete")

    def _note(self, number: int, _frame: object) -> None:
        self.number = self.number or number
