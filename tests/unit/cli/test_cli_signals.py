# SPDX-License-Identifier: MIT
"""Signals end a command once, and without a word from the interpreter."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from pydiskimg.cli import main
from pydiskimg.cli.signals import end_as_interrupted
from tests.fixtures.checkout import ROOT

BOTH = {signal.SIGINT, signal.SIGTERM}


# raise_signal(), not os.kill(): another thread of the test run could take what this one blocks.
def test_two_signals_at_once_end_it_once(monkeypatch: pytest.MonkeyPatch) -> None:
    complaints: list[object] = []
    monkeypatch.setattr(sys, "unraisablehook", complaints.append)
    before = {number: signal.getsignal(number) for number in (*BOTH, signal.SIGHUP)}
    try:
        end_as_interrupted()
        signal.pthread_sigmask(signal.SIG_BLOCK, BOTH)
        for number in BOTH:
            signal.raise_signal(number)
        with pytest.raises(KeyboardInterrupt):
            signal.pthread_sigmask(signal.SIG_UNBLOCK, BOTH)
        signal.raise_signal(signal.SIGHUP)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    assert not complaints


def test_a_signal_that_the_caller_ignores_stays_ignored() -> None:
    before = {number: signal.getsignal(number) for number in (*BOTH, signal.SIGHUP)}
    try:
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
        end_as_interrupted()
        signal.raise_signal(signal.SIGHUP)
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGTERM)
        signal.raise_signal(signal.SIGHUP)
        assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


SAID = {
    signal.SIGINT: "pydiskimg: interrupted; what was being written is not complete\n",
    signal.SIGTERM: "pydiskimg: ended by SIGTERM; what was being written is not complete\n",
    signal.SIGHUP: "pydiskimg: ended by SIGHUP; what was being written is not complete\n",
}


@pytest.mark.parametrize("number", SAID)
@pytest.mark.parametrize("module", ["pydiskimg.cli.convert", "argparse"])
def test_an_early_signal_has_the_same_exit_status(module: str, number: signal.Signals) -> None:
    code = f"""
import os, sys
sys.path.insert(0, {str(ROOT)!r})
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
    assert done.returncode == 128 + number
    assert done.stderr == SAID[number]


@pytest.mark.parametrize("number", SAID)
@pytest.mark.parametrize("kind", ["raw", "qcow2"])
def test_a_signal_leaves_no_part_of_a_file(tmp_path: Path, kind: str, number: signal.Signals) -> None:
    """The source is a pipe that stays open: the command waits for more when the signal comes."""
    (tmp_path / "old").write_bytes(b"old")
    command = [sys.executable, "-m", "pydiskimg", "convert", "-O", kind, "-", str(tmp_path / "old")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stderr=subprocess.PIPE, cwd=ROOT) as process:
        assert process.stdin is not None
        assert process.stderr is not None
        process.stdin.write(bytes(range(256)) * 65536)  # 16 MiB: more than a pipe holds, so that it has begun
        process.send_signal(number)
        assert process.stderr.read().decode() == SAID[number]
        assert process.wait() == 128 + number
    assert [path.read_bytes() for path in tmp_path.iterdir()] == [b"old"]


def test_usage_tells_the_exit_status(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--help"]) == 0
    assert "128 + N ended by signal N (130 SIGINT, 143 SIGTERM)" in " ".join(capsys.readouterr().out.split())
