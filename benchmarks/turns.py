# SPDX-License-Identifier: MIT
"""Measure elapsed time, processor time and memory in turns, A B A B ..., since machines are shared and noisy."""

from __future__ import annotations

import os
import shlex
import signal
import statistics
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

# The memory of a process before execve(2) counts to the peak of the new program, so a small process starts each
# command. That process reads the clock itself, so that its own start is not measured.
_STARTER = """
import os, sys, time
quiet = [(os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0), (os.POSIX_SPAWN_OPEN, 1, os.devnull, os.O_WRONLY, 0)]
start = time.perf_counter()
child = os.posix_spawnp(sys.argv[1], sys.argv[1:], os.environ, file_actions=quiet)
_, status, used = os.wait4(child, 0)
seconds = time.perf_counter() - start
print(seconds, used.ru_utime + used.ru_stime, used.ru_maxrss << 10)
sys.exit(os.waitstatus_to_exitcode(status) != 0)
"""
# No command's peak is reported as less than the starter's own memory.
LEAST_MEMORY = 10 << 20
_SHELL = ("bash", "-e", "-u", "-o", "pipefail", "-c")
_FOR_A_SHELL = frozenset("|;&<>(){}*?~`\"'\n")


@dataclass(frozen=True, slots=True)
class Taken:
    """The measurements of one run: seconds, seconds of processor time, bytes of memory.

    Processor time is that of all processes, memory the peak of the largest process. The kernel's threads, which
    read and write for loop devices, count to neither.
    """

    seconds: float
    processor: float
    memory: int


@dataclass(frozen=True, slots=True)
class Surroundings:
    """The directory that commands run in, and their environment."""

    directory: Path
    environment: Mapping[str, str]

    def turn(self, before: str, command: str) -> Callable[[], Taken]:
        """Return a call that prepares a turn, and then measures the command."""

        def run() -> Taken:
            if before:
                self.run(before)
            return self.measure(command)

        return run

    def measure(self, command: str) -> Taken:
        """Run a command that must succeed and return its measurements."""
        program = [sys.executable, "-I", "-S", "-c", _STARTER, *_words(command)]
        seconds, processor, memory = self._run(program, command).split()
        return Taken(float(seconds), float(processor), int(memory))

    def run(self, command: str) -> str:
        """Run a command that must succeed, and return its output."""
        return self._run(_words(command), command)

    def _run(self, program: Sequence[str], command: str) -> str:
        """Run a program in a session of its own, which ends with this program; SystemExit where it fails."""
        with subprocess.Popen(
            program,
            cwd=self.directory,
            env=self.environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            errors="replace",
            start_new_session=True,  # nor a terminal, on which dump and restore would ask questions
        ) as process:
            try:
                out, err = process.communicate()
            except BaseException:
                os.killpg(process.pid, signal.SIGKILL)
                raise
        if process.returncode:
            raise SystemExit(f"{command}\nfailed in {self.directory}:\n{err[-4000:]}")
        return out


def _words(command: str) -> list[str]:
    """Return the program and arguments of a command, with a shell, whose start takes time, only if it needs one."""
    if "$" in command or _FOR_A_SHELL & set(command):
        return [*_SHELL, command]
    return shlex.split(command)


def in_turns(
    contenders: Mapping[str, Callable[[], Taken]], *, rounds: int, few: Mapping[str, int] | None = None
) -> dict[str, list[Taken]]:
    """Run each contender once in each round, and those in few in that many first rounds; return the measurements."""
    taken: dict[str, list[Taken]] = {name: [] for name in contenders}
    for done in range(rounds):
        for name, run in contenders.items():
            if done < (few or {}).get(name, rounds):
                taken[name].append(run())
    return taken


@dataclass(frozen=True, slots=True)
class Ratio:
    """How many times as fast one contender is as another: by the medians, and in its worst and best round."""

    median: float
    least: float
    most: float


def ratio(ours: Sequence[float], theirs: Sequence[float]) -> Ratio:
    """Compare two contenders' measurements of the rounds that theirs has; noise longer than a round affects both."""
    ours = ours[: len(theirs)]
    by_round = [b / a for a, b in zip(ours, theirs, strict=True)]
    return Ratio(statistics.median(theirs) / statistics.median(ours), min(by_round), max(by_round))
