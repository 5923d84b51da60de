# SPDX-License-Identifier: MIT
"""Images through pipes: write_stream() sends one, read_stream() receives one. Neither needs a copy of the data."""

from __future__ import annotations

from pydiskimg.stream.incoming import Stream, read_stream, stream_of
from pydiskimg.stream.outgoing import write_stream

__all__ = ["Stream", "read_stream", "stream_of", "write_stream"]
