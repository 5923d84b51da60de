# SPDX-License-Identifier: MIT
"""Release resources in order: every step runs, and the first error is raised."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager

logger = logging.getLogger(__name__)

_HURRIED_SECONDS = 0.2


class Patience:
    """Seconds to wait for other processes to release a resource; the steps below a busy one are busy too."""

    def __init__(self) -> None:
        self._in_vain = False

    def renew(self) -> None:
        """Note that another resource was set up."""
        self._in_vain = False

    def lose(self) -> None:
        """Note that a wait was in vain."""
        self._in_vain = True

    def seconds(self, wanted: float) -> float:
        """Return how many seconds to wait: the given number, or hardly any after a wait was in vain."""
        return min(wanted, _HURRIED_SECONDS) if self._in_vain else wanted


patience = Patience()


@contextmanager
def teardown(*steps: Callable[[], object]) -> Iterator[None]:
    """Run every step, in the order given, when the context is left, also after steps that failed with an OSError.

    If the body raised an error, that is raised, otherwise the error of the first step that failed; the others are
    logged. An ExitStack would raise the last one.
    """
    try:
        yield
    except BaseException:
        _log(_failures(steps))
        raise
    failures = _failures(steps)
    _log(failures[1:])
    if failures:
        raise failures[0]


def _log(errors: list[OSError]) -> None:
    for error in errors:
        logger.warning("%s (after another error, which is the one reported)", error)


def _failures(steps: tuple[Callable[[], object], ...]) -> list[OSError]:
    failures = []
    for step in steps:
        try:
            step()
        except OSError as error:
            failures.append(error)
    return failures
