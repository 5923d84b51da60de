# SPDX-License-Identifier: MIT
"""Write the contents of one file to free blocks as they arrive."""

from __future__ import annotations

from pydiskimg.files.entry import Contents, unordered
from pydiskimg.fs.ext4.map_writer import MapPiece
from pydiskimg.fs.ext4.populate.sequential import SequentialWriter
from pydiskimg.fs.ext4.populate.space import Space


def write_contents(
    contents: Contents, size: int, space: Space, output: SequentialWriter, block_size: int
) -> list[MapPiece]:
    """Write the contents up to size and return their location; holes that are whole blocks stay holes.

    Raises as contents does, ValueError for pieces that do not ascend, FullError, and as writing does.
    """
    pieces: list[MapPiece] = []
    end = 0  # in the file; data between it and the next block is not yet written
    for offset, whole in contents:
        if len(whole) == size and not offset and not end:  # most files are one piece
            _write_blocks(pieces, 0, whole, space, output, block_size)
            end = size
            continue
        if offset < end:
            raise unordered(offset, end)
        data = whole if offset + len(whole) <= size else whole[: max(size - offset, 0)]
        left = -end % block_size
        if left and offset < end + left:  # in the incomplete block
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
    """Write data to new blocks, the last one possibly incomplete, and add these to pieces."""
    logical, lead = divmod(offset, block_size)
    count = -(-(lead + len(data)) // block_size)
    while count:
        start, stop = space.allocate(0, count)
        output.seek(start)
        output.zeros(lead)
        found = stop - start
        _add(pieces, logical, start, found)
        if found == count:  # for most files all of it
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
