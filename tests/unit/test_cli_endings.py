# SPDX-License-Identifier: MIT
"""Signals end a command once, and without a word from the interpreter."""

from __future__ import annotations

import os
import signal
import sys

import pytest

from pydiskimg.cli.endings import end_as_interrupted

BOTH = {signal.SIGINT, signal.SIGTERM}


def test_two_signals_at_once_end_it_once(monkeypatch: pytest.MonkeyPatch) -> None:
    complaints: list[object] = []
    monkeypatch.setattr(sys, "unraisablehook", complaints.append)
    before = {number: signal.getsignal(number) for number in (*BOTH, signal.SIGHUP)}
    try:
        end_as_interrupted()
        signal.pthread_sigmask(signal.SIG_BLOCK, BOTH)
        for number in BOTH:
            os.kill(os.getpid(), number)
        with pytest.raises(KeyboardInterrupt):
            signal.pthread_sigmask(signal.SIG_UNBLOCK, BOTH)
        os.kill(os.getpid(), signal.SIGHUP)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    assert not complaints


def test_a_signal_that_the_caller_ignores_stays_ignored() -> None:
    before = {number: signal.getsignal(number) for number in (*BOTH, signal.SIGHUP)}
    try:
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
        end_as_interrupted()
        os.kill(os.getpid(), signal.SIGHUP)
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGTERM)
        os.kill(os.getpid(), signal.SIGHUP)
        assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
