# SPDX-License-Identifier: MIT
"""Write blocks one after the other, through one buffer, with few large writes."""

from __future__ import annotations

from pydiskimg.fs.ext4.blocks import BlockWriter
from pydiskimg.protocols import Buffer
from pydiskimg.units import MIB

_SIZE = 4 * MIB


class SequentialWriter:
    """Writes at a position set by seek(); the disk gets multiples of the buffer's size."""

    def __init__(self, writer: BlockWriter, block_size: int) -> None:
        self._writer = writer
        self._block_size = block_size
        self._buffer = memoryview(bytearray(_SIZE))
        self._zeros = memoryview(bytes(block_size))
        self._start = 0  # the buffer's offset on the disk, in bytes
        self._fill = 0
        self._room = _SIZE

    def seek(self, block: int) -> None:
        """Continue at the start of a block."""
        position = block * self._block_size
        if position != self._start + self._fill:
            self.flush()
            self._begin(position)

    def write(self, data: Buffer) -> None:
        length = len(data)
        end = self._fill + length
        if end < self._room:
            self._buffer[self._fill : end] = data
            self._fill = end
            return
        view = memoryview(data)
        while view:
            part = view[: self._room - self._fill]
            self._buffer[self._fill : self._fill + len(part)] = part
            self._fill += len(part)
            view = view[len(part) :]
            if self._fill == self._room:
                self.flush()

    def zeros(self, length: int) -> None:
        """Write length zeros, at most a block."""
        if length:
            self.write(self._zeros[:length])

    def flush(self) -> None:
        """Write the buffer to the disk; errors as for that."""
        if self._fill:
            self._writer.write_at(self._start, self._buffer[: self._fill])
        self._begin(self._start + self._fill)

    def _begin(self, position: int) -> None:
        self._start, self._fill = position, 0
        self._room = _SIZE - position % _SIZE
