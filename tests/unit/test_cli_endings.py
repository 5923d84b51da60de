# SPDX-License-Identifier: MIT
"""Signals end a command once, and without a word from the interpreter."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

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


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
@pytest.mark.parametrize("module", ["pydiskimg.cli.convert", "argparse"])
def test_an_early_signal_has_the_same_exit_status(module: str, number: int) -> None:
    code = f"""
import os, sys
sys.path.insert(0, {str(Path(__file__).resolve().parent.parent.parent)!r})
class Killer:
    def find_spec(self, name, *_):
        if name == {module!r}:
            os.kill(os.getpid(), {int(number)})
sys.meta_path.insert(0, Killer())
from pydiskimg.cli import main
sys.exit(main(["convert", "--verify", "/nowhere", "/nowhere"]))
"""
    command = [sys.executable, "-I", "-S", "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 130
    assert done.stderr == "pydiskimg: interrupted; what was being written is not complete\n"
