# SPDX-License-Identifier: MIT
"""Progress on standard error: a bar on a terminal, a line now and then in a log."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

from pydiskimg.text import printable
from pydiskimg.units import format_size

LINE_SECONDS = 10.0


@contextmanager
def progress(title: str, *, shown: bool) -> Iterator[Callable[[int, int], None] | None]:
    """Give a Progress callback, or None when nothing is to be shown."""
    title = printable(title)
    if not shown:
        yield None
    elif sys.stderr.isatty():
        with _bar(title) as callback:
            yield callback
    else:
        yield _lines(title)


@contextmanager
def _bar(title: str) -> Iterator[Callable[[int, int], None]]:
    from tqdm import tqdm

    with tqdm(desc=title, unit="B", unit_scale=True, unit_divisor=1024, file=sys.stderr) as bar:

        def update(done: int, total: int) -> None:
            bar.total = total
            bar.update(done - bar.n)

        yield update


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
