# SPDX-License-Identifier: MIT
"""Images through pipes: write_stream() sends one, read_stream() receives one. Neither needs a copy of the data."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pydiskimg.stream.incoming import Stream, read_stream, stream_of
    from pydiskimg.stream.outgoing import write_stream

__all__ = ["Stream", "read_stream", "stream_of", "write_stream"]


def __getattr__(name: str) -> object:
    """Import what is asked for only then: who sends need not wait for what receives."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    value: object = getattr(
        import_module(f"pydiskimg.stream.{'outgoing' if name == 'write_stream' else 'incoming'}"), name
    )
    globals()[name] = value
    return value
