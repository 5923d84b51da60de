# SPDX-License-Identifier: MIT
"""The beginning and end of a command's process: the interpreter's settings, and standard input, output and error."""

from __future__ import annotations

import gc
import os
import sys

from pydiskimg.startup import OBJECTS_BETWEEN_COLLECTIONS, THREADS_TAKE_TURNS_SECONDS, TYPE_CHECKING

if TYPE_CHECKING:
    from typing import NoReturn


def begin_process() -> None:
    """Set the interpreter as a command needs it (see pydiskimg/startup.py). A library must not do that."""
    gc.set_threshold(OBJECTS_BETWEEN_COLLECTIONS)
    sys.setswitchinterval(THREADS_TAKE_TURNS_SECONDS)


def keep_standard_descriptors() -> set[int]:
    """Open /dev/null for those of the descriptors 0, 1 and 2 that are closed, and return their numbers.

    Otherwise the next opened file gets the number: a disk could become the standard error that messages and scripts
    write to. Call this before any file is opened.
    """
    closed: set[int] = set()
    while True:
        fd = os.open(os.devnull, os.O_RDWR)
        if fd > 2:
            os.close(fd)
            return closed
        os.set_inheritable(fd, True)
        closed.add(fd)


def end_process(status: int) -> NoReturn:
    """Flush standard output and error, and end the process with the status; every file must be closed before.

    An error of the flush is ignored: a lost result has been reported before. Finalising the interpreter would take a
    tenth of the time of a short command, wait for threads whose work is no longer needed, and change the status if
    standard error is full.
    """
    for stream in (sys.stdout, sys.stderr):
        try:  # noqa: SIM105 - contextlib is slow to import
            stream.flush()
        except (OSError, AttributeError):  # AttributeError: Python sets a stream to None if its descriptor is closed
            pass
    os._exit(status)
