# SPDX-License-Identifier: MIT
"""How every process of a command begins and ends: the interpreter's settings, and standard input, output and error."""

from __future__ import annotations

import gc
import os
import sys

from pydiskimg.startup import OBJECTS_BETWEEN_COLLECTIONS, THREADS_TAKE_TURNS_SECONDS, TYPE_CHECKING

if TYPE_CHECKING:
    from typing import NoReturn


def begin_process() -> None:
    """Set the interpreter as a command needs it: pydiskimg/startup.py says why. It is not for a library to do."""
    gc.set_threshold(OBJECTS_BETWEEN_COLLECTIONS)
    sys.setswitchinterval(THREADS_TAKE_TURNS_SECONDS)


def keep_standard_descriptors() -> set[int]:
    """Open /dev/null in place of the descriptors 0, 1 and 2 that are closed, and return which these are.

    Otherwise the next file to be opened takes the number: a disk could become the standard error that messages and
    scripts write to. Call it before anything is opened.
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
    """Flush standard output and error, and end the process with the status; every file must be closed by then.

    An error of the flush changes nothing: a result that was lost has been reported. To take the interpreter apart would
    be a tenth of the time of a short command, wait for threads whose work is no longer needed, and end with another
    status where standard error is full.
    """
    for stream in (sys.stdout, sys.stderr):
        try:  # noqa: SIM105 - contextlib is slow to import
            stream.flush()
        except (OSError, AttributeError):  # AttributeError: None, what Python makes of a descriptor that is closed
            pass
    os._exit(status)
