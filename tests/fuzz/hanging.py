# SPDX-License-Identifier: MIT
"""When a process of the fuzzer hangs: by the processor's time that its case takes, as other work may slow it down."""

from __future__ import annotations

import os
from pathlib import Path

PROCESSOR = 30.0  # seconds of the processor at one case
IDLE = 300.0  # seconds without any of the processor: the process waits for something

_TICKS = os.sysconf("SC_CLK_TCK")


class Watch:
    """What is known of a process from one look at it to the next; times are in seconds."""

    def __init__(self) -> None:
        self._case: str | None = None
        self._began = self._used = self._busy = 0.0

    def hangs(self, case: str, used: float, now: float) -> bool:
        """Tell whether a process hangs that is at a case and has used that much of the processor until now."""
        if case != self._case:
            self._case, self._began, self._busy = case, used, now
        if used != self._used:
            self._used, self._busy = used, now
        return used - self._began > PROCESSOR or now - self._busy > IDLE


def processor_seconds(pid: int) -> float:
    """Return what a process and its children that have ended used of the processor; proc(5), stat."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return sum(map(int, fields[11:15])) / _TICKS
