# SPDX-License-Identifier: MIT
"""The contents of one file written into free blocks as they arrive."""

from __future__ import annotations

from pydiskimg.files.entry import Contents
from pydiskimg.fs.ext4.map_writer import MapPiece
from pydiskimg.fs.ext4.populate.sequential import SequentialWriter
from pydiskimg.fs.ext4.populate.space import Space


def write_contents(
    contents: Contents, size: int, space: Space, output: SequentialWriter, block_size: int
) -> list[MapPiece]:
    """Write what lies below size and return where it is; holes stay holes as far as they are whole blocks.

    Raises what contents raises, FullError, and as writing does.
    """
    pieces: list[MapPiece] = []
    end = 0  # in the file; what lies between it and the next block is not written yet
    for offset, whole in contents:
        data = whole if offset + len(whole) <= size else whole[: max(size - offset, 0)]
        left = -end % block_size
        if left and offset < end + left:  # in the block that is not complete
            output.zeros(offset - end)
            part = data[: end + left - offset]
            output.write(part)
            data = data[len(part) :]
            offset += len(part)  # noqa: PLW2901 - what is left of it
            end = offset
        if data:
            output.zeros(-end % block_size)
            _write_blocks(pieces, offset, data, space, output, block_size)
            end = offset + len(data)
    output.zeros(-end % block_size)
    return pieces


def _write_blocks(
    pieces: list[MapPiece], offset: int, data: memoryview, space: Space, output: SequentialWriter, block_size: int
) -> None:
    """Write data into new blocks, the last one maybe not to its end, and add these to pieces."""
    logical, lead = divmod(offset, block_size)
    count = -(-(lead + len(data)) // block_size)
    while count:
        start, stop = space.allocate(0, count)
        output.seek(start)
        output.zeros(lead)
        found = stop - start
        _add(pieces, logical, start, found)
        if found == count:  # for most files at once
            output.write(data)
            return
        fitting = found * block_size - lead
        output.write(data[:fitting])
        data, lead = data[fitting:], 0
        logical += found
        count -= found


def _add(pieces: list[MapPiece], logical: int, start: int, count: int) -> None:
    if pieces:
        before, block, length, _ = pieces[-1]
        if before + length == logical and block + length == start:
            pieces[-1] = before, block, length + count, True
            return
    pieces.append((logical, start, count, True))
