# SPDX-License-Identifier: MIT
"""One test in a process of its own, which may hang, die or use too much memory without affecting the others.

As a command: python -m tests.foreign.apart MODULE ARGUMENT ... calls judge(Path, ...) of the module, and the last line
of standard output is its answer.
"""

from __future__ import annotations

import importlib
import json
import os
import resource
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tests.foreign.outcomes import Outcome

OUR_SECONDS = 180  # of the processor, for all that is done with one input
PROGRAM_SECONDS = 10  # of the processor, for one run of a program of the system
TOOK_TOO_LONG = 124  # the status that stands for this; timeout(1) has it
_WAITING = 20  # times as long may something take by the clock, on a machine that does other work as well
MEMORY_BYTES = 4 << 30
ROOT = Path(__file__).resolve().parent.parent.parent


def all_apart(
    module: str, inputs: Sequence[tuple[str, Sequence[Path]]], chosen: Callable[[str], bool], scratch: Path, jobs: int
) -> Iterator[Outcome]:
    """Yield the outcomes of judge(*paths, scratch directory) of a module for each (name, paths) of inputs."""
    scratch.mkdir(parents=True, exist_ok=True)
    wanted = [(name, paths) for name, paths in inputs if chosen(name)]
    with ThreadPoolExecutor(jobs) as pool:
        for outcomes in pool.map(lambda one: outcomes_apart(module, one[0], one[1], scratch), wanted):
            yield from outcomes


def outcomes_apart(module: str, name: str, paths: Sequence[Path], scratch: Path) -> list[Outcome]:
    with tempfile.TemporaryDirectory(dir=scratch) as own:
        command = [sys.executable, "-P", "-m", "tests.foreign.apart", module, *map(str, paths), own]
        with subprocess.Popen(
            command,
            env={**os.environ, "PYTHONPATH": str(ROOT), "TMPDIR": own},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            errors="replace",
            start_new_session=True,
        ) as process:
            try:
                said, errors = process.communicate(timeout=OUR_SECONDS * _WAITING)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                return [Outcome(name, "hang", f"more than {OUR_SECONDS * _WAITING} s by the clock")]
        if process.returncode == -signal.SIGXCPU:
            return [Outcome(name, "hang", f"more than {OUR_SECONDS} s of the processor")]
        if process.returncode:
            kind = "traceback" if process.returncode == 1 else f"died with {process.returncode}"
            return [Outcome(name, kind, " | ".join(errors.strip().splitlines()[-3:]))]
        return [
            Outcome(f"{name} {part}".rstrip(), kind, text) for part, kind, text in json.loads(said.splitlines()[-1])
        ]


def program(*command: str | Path) -> subprocess.CompletedProcess[str]:
    """Run a program of the system, which gets no input; the status TOOK_TOO_LONG is for one that does not end."""
    environment = {**os.environ, "LC_ALL": "C", "E2FSCK_TIME": "1700000000"}
    try:
        done = subprocess.run(
            ["prlimit", f"--cpu={PROGRAM_SECONDS}", *command],
            env=environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            check=False,
            timeout=PROGRAM_SECONDS * _WAITING,
        )
    except subprocess.TimeoutExpired:
        return subprocess.CompletedProcess(command, TOOK_TOO_LONG, "", "took too long")
    if done.returncode in (-signal.SIGXCPU, -signal.SIGKILL):
        return subprocess.CompletedProcess(command, TOOK_TOO_LONG, "", "took too long")
    return done


def pydiskimg(*words: str | Path) -> subprocess.CompletedProcess[str]:
    """Run the command of the checkout."""
    return program(sys.executable, "-P", "-m", "pydiskimg", *words)


def complaint(done: subprocess.CompletedProcess[str]) -> str | None:
    """What is wrong with the message of a refused command, which has to be one printable line; None if nothing is."""
    text = done.stderr.removesuffix("\n")
    if done.returncode == 1 and text.startswith("pydiskimg: ") and text.isprintable():
        return None
    return f"status {done.returncode}: {text[-300:]!r}"


def main(words: list[str]) -> int:
    module, *paths = words
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
    # Programs that are started inherit this, and have less.
    resource.setrlimit(resource.RLIMIT_CPU, (OUR_SECONDS, OUR_SECONDS + 1))
    found = importlib.import_module(module).judge(*map(Path, paths))
    sys.stdout.write("\n" + json.dumps(found) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
