# SPDX-License-Identifier: MIT
"""Standard input, output and error of a process that somebody started without them."""

from __future__ import annotations

import os


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
