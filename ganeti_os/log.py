# SPDX-License-Identifier: MIT
"""Messages to standard error: each line names the instance and the step; never standard output.

image create inst1.example: partitioning: writing the label
image create inst1.example: copying: 40 %, 4 GiB of 10 GiB
"""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TextIO

from pydiskimg.protocols import Progress
from pydiskimg.text import LINE, printable
from pydiskimg.units import format_size

log = logging.getLogger(__name__)

STEP_PERCENT = 10
STEP_SECONDS = 10.0


class _Formatter(logging.Formatter):
    """Puts the prefix before every line; characters that could control a terminal are shown as escapes."""

    def __init__(self, prefix: Callable[[], str]) -> None:
        super().__init__()
        self._prefix = prefix

    def format(self, record: logging.LogRecord) -> str:
        text = record.getMessage()
        if record.exc_info:
            text += "\n" + self.formatException(record.exc_info)
        level = f"{record.levelname.lower()}: " if record.levelno == logging.WARNING else ""
        return "\n".join(
            f"{self._prefix()}{level}{printable(line, limit=LINE, tabs=True)}" for line in text.split("\n")
        )


class _Handler(logging.StreamHandler[TextIO]):
    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802 - logging's name and signature
        """Stay silent: a closed or full standard error must not end an installation."""


class Messages:
    """The destination of a verb's messages; made once, by the verb's main function.

    check is called when a step begins or progresses, and may raise to end the verb there.
    """

    def __init__(
        self, *, os_name: str, verb: str, instance: str = "", check: Callable[[], None] = lambda: None
    ) -> None:
        self._who = " ".join(word for word in (os_name, verb, instance) if word)
        self._steps: list[str] = []
        self.check = check
        self._failed: tuple[BaseException, str] | None = None

    def attach(self, *, stream: TextIO | None = None) -> None:
        """Send every logger's records of level INFO and above to stream (None: standard error)."""
        handler = _Handler(stream or sys.stderr)
        handler.setFormatter(_Formatter(self.prefix))
        root = logging.getLogger()
        root.handlers[:] = [handler]
        logging.getLogger("libarchive").setLevel(logging.WARNING)  # it reports features that were not requested
        self.set_debug(False)

    def set_debug(self, debug: bool) -> None:
        """Show DEBUG records or hide them, once the settings are known."""
        logging.getLogger().setLevel(logging.DEBUG if debug else logging.INFO)

    def set_instance(self, *, os_name: str, verb: str, instance: str) -> None:
        """Set the instance's name, once the request is known."""
        self._who = " ".join(word for word in (os_name, verb, instance) if word)

    def prefix(self) -> str:
        """Return the prefix of every line."""
        return f"{printable(self._who)}: " + "".join(f"{step}: " for step in self._steps[-1:])

    @contextmanager
    def step(self, name: str) -> Iterator[None]:
        """Set the step for the lines of the block, and for the failure() of an error that leaves it."""
        self.check()
        self._steps.append(name)
        try:
            yield
        except BaseException as error:
            if self._failed is None or self._failed[0] is not error:
                self._failed = error, name
            raise
        finally:
            self._steps.pop()

    def failure(self, error: BaseException) -> None:
        """Write the error as the last line, in one piece; its traceback precedes it if DEBUG is shown."""
        if self._failed is not None and self._failed[0] is error:
            self._steps.append(self._failed[1])
        log.debug("%s", type(error).__name__, exc_info=error)
        log.error("%s", " ".join(str(error).split()) or type(error).__name__)

    def progress(self, doing: str) -> Progress:
        """Return a callback that logs a line for each STEP_PERCENT, and one after STEP_SECONDS without a line."""
        lines = ProgressLines(doing)

        def progress(done: int, total: int) -> None:
            self.check()
            lines(done, total)

        return progress


class ProgressLines:
    """A Progress that writes few lines: percent, and the amount of the total."""

    def __init__(self, doing: str, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._doing = doing
        self._clock = clock
        self._next_percent = STEP_PERCENT
        self._said = clock()

    def __call__(self, done: int, total: int) -> None:
        now = self._clock()
        if done and not total:  # the total is not known
            if now - self._said >= STEP_SECONDS:
                self._said = now
                log.info("%s: %s", self._doing, format_size(done))
            return
        percent = 100 * done // total if total else 100
        if percent < self._next_percent and now - self._said < STEP_SECONDS:
            return
        if percent >= 100 and self._next_percent > 100:
            return
        self._said = now
        self._next_percent = max(self._next_percent, (percent // STEP_PERCENT + 1) * STEP_PERCENT)
        log.info("%s: %d %%, %s of %s", self._doing, percent, format_size(done), format_size(total))
