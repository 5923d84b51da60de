# SPDX-License-Identifier: MIT
"""The text on the files that a command leaves which a signal or a full file system ended; signals.py starts quicker."""

from __future__ import annotations

import errno
import signal
from contextlib import contextmanager

from pydiskimg.errors import StorageError
from pydiskimg.startup import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator


@contextmanager
def after_interruption(left: str) -> Iterator[None]:
    """Add a text on the remaining files to the message of a signal or a full file system that ends the with block."""
    try:
        yield
    except StorageError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            error.add_what_is_left(left)
        raise
    except KeyboardInterrupt as error:
        if len(error.args) > 1:  # the inner block knows more
            raise
        raise KeyboardInterrupt(error.args[0] if error.args else signal.SIGINT, left) from None
