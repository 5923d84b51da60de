# SPDX-License-Identifier: MIT
"""Measuring in turns: A B A B ..., medians, and their ratio; machines are shared and noisy."""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path

# The installed command: from a checkout, Python may have to compile what it runs.
COMMAND = str(Path(sys.executable).parent / "pydiskimg")


def in_turns(contenders: Mapping[str, Callable[[], object]], *, rounds: int = 5) -> dict[str, float]:
    """Run each contender once in each round and return the median seconds of each."""
    seconds: dict[str, list[float]] = {name: [] for name in contenders}
    for _ in range(rounds):
        for name, run in contenders.items():
            start = time.perf_counter()
            run()
            seconds[name].append(time.perf_counter() - start)
    return {name: statistics.median(values) for name, values in seconds.items()}


def report(title: str, medians: Mapping[str, float], *, ours: str) -> None:
    """Print the medians and how many times as fast as each peer we are."""
    print(f"{title}:")
    for name, value in medians.items():
        ratio = "" if name == ours else f"   {ours} is {value / medians[ours]:.2f} times as fast"
        print(f"   {name:28} {value:8.3f} s{ratio}")
