# SPDX-License-Identifier: MIT
"""The contents of a Source as those of a file: pieces of data, and holes where it has none."""

from __future__ import annotations

from pydiskimg.extents import Kind
from pydiskimg.files.entry import Contents
from pydiskimg.protocols import Source
from pydiskimg.units import MIB

_CHUNK = MIB


def source_pieces(source: Source) -> Contents:
    """Yield the stored parts of source as (offset, bytes); holes and zeros are left out."""
    buffer = memoryview(bytearray(min(_CHUNK, source.size)))
    for extent in source.extents():
        if extent.kind is not Kind.DATA:
            continue
        for position in range(extent.start, extent.end, _CHUNK):
            chunk = buffer[: min(_CHUNK, extent.end - position)]
            source.read_into(position, chunk)
            yield position, chunk
