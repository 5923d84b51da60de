# SPDX-License-Identifier: MIT
"""Progress: a bar on a terminal, qemu-img's line for programs that read it, an occasional line in a log."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

from pydiskimg.text import printable
from pydiskimg.units import format_size

LINE_SECONDS = 10.0


@contextmanager
def progress(title: str, *, shown: bool, as_qemu_img: bool = False) -> Iterator[Callable[[int, int], None] | None]:
    """Give a Progress callback, or None if nothing is to be shown.

    as_qemu_img is for commands that qemu-img also has: standard output gets its line, unless there is a bar on a
    terminal.
    """
    title = printable(title)
    if not shown:
        yield None
    elif as_qemu_img and not (sys.stderr.isatty() and sys.stdout.isatty()):
        with _percentages() as callback:
            yield callback
    elif sys.stderr.isatty():
        with _bar(title) as callback:
            yield callback
    else:
        yield _lines(title)


@contextmanager
def _bar(title: str) -> Iterator[Callable[[int, int], None]]:
    try:
        from tqdm import tqdm
    except ImportError:  # where it is not installed, the lines of a log are better than no progress
        yield _lines(title)
        return
    with tqdm(desc=title, unit="B", unit_scale=True, unit_divisor=1024, file=sys.stderr) as bar:

        def update(done: int, total: int) -> None:
            bar.total = total
            bar.update(done - bar.n)

        yield update


@contextmanager
def _percentages() -> Iterator[Callable[[int, int], None]]:
    """Print `    (12.34/100%)` and a carriage return at each percent, as qemu-img -p does."""
    shown = -1.0

    def update(done: int, total: int) -> None:
        nonlocal shown
        percent = 100 * done / total if total else 100.0
        if percent - shown >= 1 or percent == 100 > shown:
            shown = percent
            _write(f"    ({percent:.2f}/100%)\r")

    try:
        update(0, 1)
        yield update
        update(1, 1)
    finally:
        _write("\n")


def _write(text: str) -> None:
    with suppress(OSError):  # a full log must not end the copy
        sys.stdout.write(text)
        sys.stdout.flush()


def _lines(title: str) -> Callable[[int, int], None]:
    start = time.monotonic()
    said = start

    def update(done: int, total: int) -> None:
        nonlocal said
        now = time.monotonic()
        if done < total and now - said < LINE_SECONDS:
            return
        said = now
        percent = 100 * done // total if total else 100
        text = f"{title}: {percent}% ({format_size(done)} of {format_size(total)}) after {now - start:.1f} s"
        with suppress(OSError):  # a full log must not end the copy
            print(text, file=sys.stderr, flush=True)

    return update
