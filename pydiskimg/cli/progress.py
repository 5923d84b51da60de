# SPDX-License-Identifier: MIT
"""Progress: a line that is redrawn on a terminal, qemu-img's line for programs, an occasional line in a log."""

from __future__ import annotations

import sys
from contextlib import contextmanager, suppress

from pydiskimg.startup import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import TextIO


@contextmanager
def progress(title: str, *, shown: bool, as_qemu_img: bool = False) -> Iterator[Callable[[int, int], None] | None]:
    """Give a Progress callback, or None if nothing is to be shown; a total of 0 means that it is not known.

    as_qemu_img is for commands that qemu-img also has: standard output gets its line, unless a terminal shows the other
    one.
    """
    if not shown:
        yield None
    elif as_qemu_img and not (sys.stderr.isatty() and sys.stdout.isatty()):
        with _percentages() as callback:
            yield callback
    else:
        from pydiskimg.cli.progress_report import reported  # only here: a command without progress starts without it

        with reported(title, write=lambda text: _write(sys.stderr, text)) as callback:
            yield callback


@contextmanager
def _percentages() -> Iterator[Callable[[int, int], None]]:
    """Print `    (12.34/100%)` and a carriage return at each percent, as qemu-img -p does."""
    shown = -1.0

    def update(done: int, total: int) -> None:
        nonlocal shown
        percent = 100 * done / total if total else 0.0
        if percent - shown >= 1 or percent == 100 > shown:
            shown = percent
            _write(sys.stdout, f"    ({percent:.2f}/100%)\r")

    try:
        update(0, 1)
        yield update
        update(1, 1)
    finally:
        _write(sys.stdout, "\n")


def _write(file: TextIO, text: str) -> None:
    with suppress(OSError):  # a full log, or one whose reader has gone, must not end the copy
        file.write(text)
        file.flush()
