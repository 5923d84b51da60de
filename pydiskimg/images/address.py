# SPDX-License-Identifier: MIT
"""An image at an http:// or https:// address; only the ranges that are read are fetched."""

from __future__ import annotations

import threading
from collections.abc import Iterator

from pydiskimg.errors import closed_error
from pydiskimg.extents import Extent, Kind
from pydiskimg.images.qcow2.cache import Cache
from pydiskimg.protocols import ImageBytes, WritableBuffer, check_buffer
from pydiskimg.web.address import Address, parse_address
from pydiskimg.web.client import Client
from pydiskimg.web.ranged import RangedFile, open_ranged

BLOCK = 64 << 10  # the smallest fetch: a qcow2's table has this size
CACHED = 16 << 20  # bytes of cached blocks
LARGE = 256 << 10  # a read of this size or more is a request of its own, and is not cached
MOST_AHEAD = 1 << 20

_KEPT_CONNECTIONS = 8  # as many as there are workers
_GATES = 16


class AddressSource(ImageBytes):
    """A Source over a file on a server. Made by open_address(); close() closes its connections.

    Small reads are answered from cached blocks; one that continues at the end of the last fetch fetches twice as much,
    up to MOST_AHEAD.
    """

    name: str
    size: int
    format = "raw"
    is_block_device = False

    def __init__(self, file: RangedFile) -> None:
        self.name = file.name
        self.size = file.size
        self._file = file
        self._is_closed = False
        self._blocks: Cache[bytes] = Cache(CACHED)
        self._blocks.put(0, file.beginning, len(file.beginning))
        self._gates = [threading.Lock() for _ in range(_GATES)]
        self._ahead: dict[int, int] = {}  # the ends of the last fetches, and their sizes

    @property
    def identity(self) -> str:
        return self.name

    def stored(self) -> None:
        """Return None: servers do not tell."""

    def extents(self) -> Iterator[Extent]:
        """Yield one DATA extent, because a server does not report holes."""
        self._require_open()
        return iter([Extent(0, self.size, Kind.DATA)] if self.size else [])

    def read_into(self, offset: int, buffer: WritableBuffer) -> None:
        """Fill buffer as Source.read_into() does. Raises FetchError, UnreachableError after several attempts."""
        self._require_open()
        check_buffer(self, offset, buffer)
        with memoryview(buffer) as view:
            if len(view) >= LARGE:
                self._file.read_into(offset, view)
                return
            done = 0
            while done < len(view):
                number, inside = divmod(offset + done, BLOCK)
                piece = memoryview(self._block(number))[inside : inside + len(view) - done]
                view[done : done + len(piece)] = piece
                done += len(piece)

    def close(self) -> None:
        self._is_closed = True
        self._file.close()

    def _require_open(self) -> None:
        if self._is_closed:
            raise closed_error(self.name)

    def _block(self, number: int) -> bytes:
        """Return a block, cached or fetched; a second reader waits for the first."""
        found = self._blocks.get(number)
        if found is not None:
            return found
        with self._gates[number * BLOCK // MOST_AHEAD % _GATES]:
            return self._blocks.get(number) or self._fetched(number)

    def _fetched(self, number: int) -> bytes:
        count = min(2 * self._ahead.pop(number, 0) or 1, MOST_AHEAD // BLOCK)
        start = number * BLOCK
        data = bytearray(min(count * BLOCK, self.size - start))
        self._file.read_into(start, memoryview(data))
        for index in range(0, len(data), BLOCK):
            block = bytes(data[index : index + BLOCK])
            self._blocks.put(number + index // BLOCK, block, len(block))
        if len(self._ahead) >= _GATES:
            self._ahead.clear()
        self._ahead[number + count] = count
        return bytes(data[:BLOCK])


def open_address(url: str) -> AddressSource:
    """Open the file at an address for reading by ranges; close() of the result closes its connections.

    Raises FetchError and its kinds: NoRangesError for a server that has only the whole file.
    """
    return open_source(parse_address(url))


def open_source(address: Address) -> AddressSource:
    """Open the file at an address as open_address() does."""
    client = Client(agent="pydiskimg", kept=_KEPT_CONNECTIONS)
    try:
        return AddressSource(open_ranged(client, address, first=BLOCK))
    except BaseException:
        client.close()
        raise
