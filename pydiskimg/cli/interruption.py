# SPDX-License-Identifier: MIT
"""The text on the files that an interrupted command leaves, apart from signals.py, which starts quickly."""

from __future__ import annotations

import signal
from contextlib import contextmanager

from pydiskimg.startup import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator


@contextmanager
def after_interruption(left: str) -> Iterator[None]:
    """Add a text on the remaining files to the message of a signal that ends the with block."""
    try:
        yield
    except KeyboardInterrupt as error:
        if len(error.args) > 1:  # the inner block knows more
            raise
        raise KeyboardInterrupt(error.args[0] if error.args else signal.SIGINT, left) from None
