# SPDX-License-Identifier: MIT
"""How far something is, how fast it goes and how long it takes, on a terminal of any width or in a log."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeAlias

from pydiskimg.cli.output import can_print
from pydiskimg.text import columns_of, printable
from pydiskimg.units import format_size

LINE_SECONDS = 10.0
_DRAW_SECONDS = 0.1
_PACE_SECONDS = 10.0  # what the rate is of
_LEAST_BAR, _LONGEST_BAR = 10, 40
_LEAST_TITLE = 8
_LONGEST_WAIT = 100 * 3600  # seconds; an operation that takes longer has stopped

_Write: TypeAlias = "Callable[[str], None]"
_Clock: TypeAlias = "Callable[[], float]"


@contextmanager
def reported(
    title: str, *, write: _Write, clock: Callable[[], float] = time.monotonic
) -> Iterator[Callable[[int, int], None]]:
    """Give a Progress callback that reports on standard error, by write(); clock returns seconds."""
    report = (_Line if sys.stderr.isatty() else _Log)(printable(title), write, clock)
    is_complete = False
    try:
        with _noticing(report.resumed):
            yield report.update
        is_complete = True
    finally:
        report.end(is_complete=is_complete)


class _Pace:
    """How fast it goes, by the last seconds, and how long the rest will take."""

    def __init__(self, clock: _Clock) -> None:
        self._clock = clock
        self.start = clock()
        self._samples: deque[tuple[float, int]] = deque([(self.start, 0)])

    def note(self, now: float, done: int) -> None:
        """Note that this many bytes are done."""
        self._samples.append((now, done))
        while len(self._samples) > 2 and now - self._samples[0][0] > _PACE_SECONDS:
            self._samples.popleft()

    def forget(self) -> None:
        """Let nothing count that was before: the process stood still."""
        self._samples = deque([(self._clock(), self._samples[-1][1])])

    @property
    def rate(self) -> int:
        """Bytes a second; 0 where it is not known yet."""
        (begin, before), (now, done) = self._samples[0], self._samples[-1]
        return int((done - before) / (now - begin)) if now > begin else 0

    def fields(self, done: int, total: int) -> list[str]:
        """Return how much is done, the rate and the remaining time; "" for each that is not known."""
        rate = self.rate
        left = (total - done) / rate if rate and total else _LONGEST_WAIT
        return [
            f"{format_size(done)} of {format_size(total)}" if total else format_size(done),
            f"{format_size(rate)}/s" if rate else "",
            f"{_duration(left)} left" if left < _LONGEST_WAIT else "",
        ]


class _Report:
    """The line of one progress; its methods are called by one thread at a time."""

    def __init__(self, title: str, write: _Write, clock: _Clock, every: float) -> None:
        self._title = title
        self._write = write
        self._every = every
        self._clock = clock
        self._pace = _Pace(clock)
        self._next = self._pace.start + (every if every > 1 else 0)
        self._done = 0

    def update(self, done: int, total: int) -> None:
        """Show it, where enough time has gone by."""
        self._done = done
        now = self._clock()
        if now >= self._next:
            self._next = now + self._every
            self._pace.note(now, done)
            self.show(done, total)

    def resumed(self) -> None:
        """Take in that the process was stopped, and goes on."""
        self._pace.forget()

    def show(self, done: int, total: int) -> None:
        """Show how much is done."""

    def end(self, *, is_complete: bool) -> None:
        """Show that it has ended."""

    @property
    def _outcome(self) -> str:
        return f"100%, {format_size(self._done)} in {_duration(self._clock() - self._pace.start)}"


class _Line(_Report):
    """A line on a terminal, as wide as that is, which the next one is written over."""

    def __init__(self, title: str, write: _Write, clock: _Clock) -> None:
        super().__init__(title, write, clock, _DRAW_SECONDS)
        self._drawn = self._width = self._room = 0  # columns
        self._bar = "█░" if can_print("█░", sys.stderr) else "#."

    def show(self, done: int, total: int) -> None:
        width = _width() - 1  # the cursor stays in the line
        percent = f"{min(100, 100 * done // total):3d}%" if total else ""
        amount, rate, left = self._pace.fields(done, total)
        # The order of the fields in the line, and which of them stay if there is no room for all.
        fields = {"percent": percent, "amount": amount, "rate": rate, "left": left}
        shown: set[str] = set()
        for name in ("percent", "left", "amount", "rate"):
            with_it = [text for key, text in fields.items() if text and key in shown | {name}]
            if len(", ".join(with_it)) <= width:
                shown.add(name)
        text = ", ".join(value for key, value in fields.items() if value and key in shown)
        title = self._titled(width - len(text))
        room = min(_LONGEST_BAR, width - columns_of(title) - len(text) - 1)
        if width == self._width:
            room = min(room, self._room)  # the end of a bar does not move with the length of the numbers
        self._width, self._room = width, room
        if percent and room >= _LEAST_BAR:
            text = f"{percent} {self._drawn_bar(done / total, room)}{text.removeprefix(percent)}"
        self._draw(title + text)

    def end(self, *, is_complete: bool) -> None:
        if is_complete:
            width = _width() - 1
            outcome = next((text for text in (self._outcome, "100%") if len(text) <= width), "")
            self._draw(self._titled(width - len(outcome)) + outcome)
        if self._drawn:
            self._write("\n")

    def _titled(self, room: int) -> str:
        """Return the title and a colon in at most room columns, shortened or left out where there are fewer."""
        room -= 2
        if columns_of(self._title) <= room:
            return f"{self._title}: "
        if room < _LEAST_TITLE:
            return ""
        kept = self._title
        while columns_of(kept) > room - 3:
            kept = kept[:-1]
        return f"{kept}...: "

    def _drawn_bar(self, share: float, width: int) -> str:
        full = min(width, int(share * width))
        return self._bar[0] * full + self._bar[1] * (width - full)

    def _draw(self, text: str) -> None:
        columns = columns_of(text)
        before, self._drawn = self._drawn, max(1, columns)  # first: a signal may come while it is written
        self._write("\r" + text + " " * (before - columns))


class _Log(_Report):
    """A line each ten seconds, and one at the end."""

    def __init__(self, title: str, write: _Write, clock: _Clock) -> None:
        super().__init__(title, write, clock, LINE_SECONDS)

    def show(self, done: int, total: int) -> None:
        percent = f"{100 * done // total}%" if total else ""
        self._say(", ".join(filter(None, [percent, *self._pace.fields(done, total)])))

    def end(self, *, is_complete: bool) -> None:
        if is_complete:
            self._say(self._outcome)

    def _say(self, text: str) -> None:
        self._write(f"{self._title}: {text}\n")


@contextmanager
def _noticing(resumed: Callable[[], None]) -> Iterator[None]:
    """Call resumed when the process goes on after it was stopped (Ctrl-Z, then fg)."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGCONT, lambda *_: resumed())
    try:
        yield
    finally:
        signal.signal(signal.SIGCONT, before or signal.SIG_DFL)


def _width() -> int:
    try:
        return max(2, os.get_terminal_size(sys.stderr.fileno()).columns or 80)
    except OSError:
        return 80


def _duration(seconds: float) -> str:
    minutes, second = divmod(int(seconds), 60)
    hours, minute = divmod(minutes, 60)
    return f"{hours}:{minute:02d}:{second:02d}" if hours else f"{minute}:{second:02d}"
