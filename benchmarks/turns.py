# SPDX-License-Identifier: MIT
"""Measuring in turns: A B A B ..., medians, and their ratio; machines are shared and noisy."""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TypeAlias

# The installed command: from a checkout, Python may have to compile what it runs.
COMMAND = str(Path(sys.executable).parent / "pydiskimg")


def in_turns(contenders: Mapping[str, Callable[[], object]], *, rounds: int = 5) -> dict[str, float]:
    """Run each contender once in each round and return the median seconds of each."""
    return measured_in_turns(contenders, rounds=rounds)[0]


def measured_in_turns(
    contenders: Mapping[str, Callable[[], object]], *, rounds: int = 5
) -> tuple[dict[str, float], dict[str, float]]:
    """As in_turns(), and return the median seconds of processor time, too, of this process and those it has started."""
    seconds: dict[str, list[float]] = {name: [] for name in contenders}
    processor: dict[str, list[float]] = {name: [] for name in contenders}
    for _ in range(rounds):
        for name, run in contenders.items():
            start, used = time.perf_counter(), sum(os.times()[:4])
            run()
            seconds[name].append(time.perf_counter() - start)
            processor[name].append(sum(os.times()[:4]) - used)
    medians = [{name: statistics.median(values) for name, values in found.items()} for found in (seconds, processor)]
    return medians[0], medians[1]


Measured: TypeAlias = tuple[float, float]
"""Seconds, and seconds of processor time."""


def measured(command: Sequence[str], *, cwd: Path) -> Measured:
    """Run a program that must succeed, and return what it took."""
    start, used = time.perf_counter(), sum(os.times()[2:4])
    subprocess.run(command, cwd=cwd, check=True, capture_output=True)
    return time.perf_counter() - start, sum(os.times()[2:4]) - used


def report(title: str, medians: Mapping[str, float], *, ours: str) -> None:
    """Print the medians and how many times as fast as each peer we are."""
    print(f"{title}:")
    for name, value in medians.items():
        ratio = "" if name == ours else f"   {ours} is {value / medians[ours]:.2f} times as fast"
        print(f"   {name:28} {value:8.3f} s{ratio}")
