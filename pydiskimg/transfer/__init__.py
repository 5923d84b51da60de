# SPDX-License-Identifier: MIT
"""Bytes from a Source to a Disk or a pipe: copied, compared, sent and received.

Images through pipes: write_stream() sends one, read_stream() receives one. Neither needs a copy of the data.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pydiskimg.transfer.receive import Stream, read_stream, stream_of
    from pydiskimg.transfer.send import write_stream

__all__ = ["Stream", "read_stream", "stream_of", "write_stream"]


def __getattr__(name: str) -> object:
    """Import what is asked for only then: who sends need not wait for what receives."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    value: object = getattr(
        import_module(f"pydiskimg.transfer.{'send' if name == 'write_stream' else 'receive'}"), name
    )
    globals()[name] = value
    return value
