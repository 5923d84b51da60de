# SPDX-License-Identifier: MIT
"""The contents of one file written into free blocks as they arrive."""

from __future__ import annotations

from pydiskimg.files.entry import Contents
from pydiskimg.fs.ext4.map_reader import FilePiece
from pydiskimg.fs.ext4.populate.sequential import SequentialWriter
from pydiskimg.fs.ext4.populate.space import Space


def write_contents(
    contents: Contents, size: int, space: Space, output: SequentialWriter, block_size: int
) -> list[FilePiece]:
    """Write what lies below size and return where it is; holes stay holes as far as they are whole blocks.

    Raises what contents raises, FullError, and as writing does.
    """
    pieces: list[FilePiece] = []
    end = 0  # in the file; what lies between it and the next block is not written yet
    for offset, whole in contents:
        data = whole[: max(size - offset, 0)]
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
    pieces: list[FilePiece], offset: int, data: memoryview, space: Space, output: SequentialWriter, block_size: int
) -> None:
    """Write data into new blocks, the last one maybe not to its end, and add these to pieces."""
    logical, lead = divmod(offset, block_size)
    count = -(-(lead + len(data)) // block_size)
    while count:
        start, stop = space.allocate(0, count)
        output.seek(start)
        output.zeros(lead)
        fitting = (stop - start) * block_size - lead
        output.write(data[:fitting])
        data, lead = data[fitting:], 0
        _add(pieces, logical, start, stop - start)
        logical += stop - start
        count -= stop - start


def _add(pieces: list[FilePiece], logical: int, start: int, count: int) -> None:
    if pieces:
        before, block, length = pieces[-1]
        if before + length == logical and block + length == start:
            pieces[-1] = before, block, length + count
            return
    pieces.append((logical, start, count))
