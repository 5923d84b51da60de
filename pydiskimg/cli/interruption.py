# SPDX-License-Identifier: MIT
"""What a command that a signal ends says of what it leaves, apart from signals.py, which starts quickly."""

from __future__ import annotations

import signal
from contextlib import contextmanager

from pydiskimg.startup import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator


@contextmanager
def after_interruption(left: str) -> Iterator[None]:
    """Let a signal that ends what is done in the with block be told with a text on what is left then."""
    try:
        yield
    except KeyboardInterrupt as error:
        if len(error.args) > 1:  # what is inside knows more
            raise
        raise KeyboardInterrupt(error.args[0] if error.args else signal.SIGINT, left) from None
