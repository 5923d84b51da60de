# SPDX-License-Identifier: MIT
"""The data of a streamed qcow2, taken from the stream in the order of the guest's addresses.

What the tables say must be what comes: each cluster's data begins where the last one's ended, from the end of the
tables to the end of the stream. A lost entry, a swapped or a shared cluster cannot be missed then.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from pydiskimg.errors import InvalidImageError
from pydiskimg.formats.qcow2 import layout
from pydiskimg.formats.qcow2.compressed import Decompress, decompressor
from pydiskimg.formats.qcow2.header import Header
from pydiskimg.formats.qcow2.mapping import COMPRESSED, DATA, Mapping, Run
from pydiskimg.formats.qcow2.stream.tables import Front, Prefix, fetch_tables, read_exactly
from pydiskimg.units import MIB

# Zeros behind the image: what fills the last block of a tape or of dd. More of them is something else.
PADDING_LIMIT = 16 * MIB


@dataclass(slots=True)
class Chunk:
    """What is stored of one aligned chunk of the guest, start and length in bytes.

    buffer has the chunk's bytes wherever extents (offset in the chunk, length), ascending, say; those of packed,
    compressed clusters with their data, are put there by unpack().
    """

    start: int
    length: int
    buffer: memoryview
    extents: list[tuple[int, int]] = field(default_factory=list)
    packed: list[tuple[Run, bytes]] = field(default_factory=list)


class StreamReader:
    """Reads one stream, whose header was read through prefix already; chunks() is for one thread."""

    def __init__(self, front: Front, prefix: Prefix, header: Header) -> None:
        self.header = header
        self._front = front
        self._prefix = prefix
        self._decompress: Decompress = decompressor(header.compression_type, name=front.name)
        self._data_offset = 0
        self._kept = b""  # the end of the last sector that was read: the next compressed cluster may begin in it

    def fetch_tables(self) -> None:
        """Take in the tables, before chunks(). Raises as fetch_tables() does."""
        self._data_offset = fetch_tables(self._prefix, self.header)

    def chunks(self, chunk_size: int, take_buffer: Callable[[], memoryview]) -> Iterator[Chunk]:
        """Yield the chunks that hold data, in order; the rest of the virtual disk is zero.

        chunk_size is bytes, a multiple of the cluster size; take_buffer gives a buffer of it, which the receiver has
        to give back. Returns when the stream has ended where it has to. Raises InvalidImageError when it has not, or
        is not a qcow2 laid out as a stream; what has been yielded by then is worth nothing.
        """
        chunk: Chunk | None = None
        for run in self._runs(self._data_offset, chunk_size):
            start = run.start - run.start % chunk_size
            if chunk is None or chunk.start != start:
                if chunk is not None:
                    yield chunk
                chunk = Chunk(start, min(chunk_size, self.header.size - start), take_buffer())
            self._take(run, chunk)
        if chunk is not None:
            yield chunk
        self._finish()

    def unpack(self, chunk: Chunk) -> None:
        """Decompress what chunk has of compressed clusters. Safe from several threads, for different chunks."""
        cluster_size = self.header.cluster_size
        for run, data in chunk.packed:
            try:
                cluster = self._decompress(memoryview(data), cluster_size)
            except ValueError as error:
                raise self._corrupt(run, f"does not decompress ({error})") from error
            if len(cluster) != cluster_size:
                raise self._corrupt(run, f"decompresses to {len(cluster)} bytes, expected {cluster_size}")
            at = run.start - chunk.start
            chunk.buffer[at : at + run.length] = memoryview(cluster)[: run.length]
        chunk.packed.clear()

    def _runs(self, position: int, chunk_size: int) -> Iterator[Run]:
        """The runs that are stored, cut at chunks; each was checked to begin at position, the end of the one before."""
        cluster_size, sector = self.header.cluster_size, 0
        for run in Mapping(self._prefix, self.header).runs(0, self.header.size):
            if run.kind == COMPRESSED:
                # sector is that of the last byte of a compressed cluster just before this one; 0: there is none.
                if not (sector <= run.host - 1 < position if sector else run.host == position):
                    raise self._out_of_order(run, position)
                position = run.host + run.host_length
                sector = max(position - layout.SECTOR, run.host)
                yield run
            elif run.kind == DATA:
                position += -position % cluster_size
                if run.host != position:
                    raise self._out_of_order(run, position)
                position += run.length + -run.length % cluster_size
                sector = 0
                yield from _cut(run, chunk_size)

    def _take(self, run: Run, chunk: Chunk) -> None:
        at = run.start - chunk.start
        if run.kind == COMPRESSED:
            chunk.packed.append((run, self._stored(run.host, run.host_length)))
        else:
            self._skip_to(run.host)
            read_exactly(self._front, chunk.buffer[at : at + run.length])
        if chunk.extents and sum(chunk.extents[-1]) == at:
            chunk.extents[-1] = chunk.extents[-1][0], chunk.extents[-1][1] + run.length
        else:
            chunk.extents.append((at, run.length))

    def _stored(self, host: int, length: int) -> bytes:
        """Return bytes of the stream, of which the first ones may have been read with the cluster before."""
        end = host + length
        again = self._front.position - host
        if again < 0:
            self._skip_to(host)
            again = 0
        data = bytearray(length)
        data[:again] = self._kept[len(self._kept) - again :] if again else b""
        if self._front.position < end:
            read_exactly(self._front, memoryview(data)[again:])
        self._kept = bytes(data[-layout.SECTOR :])
        return bytes(data)

    def _skip_to(self, position: int) -> None:
        """Drop what fills up the last sector or cluster."""
        if missing := position - self._front.position:
            read_exactly(self._front, memoryview(bytearray(missing)))

    def _finish(self) -> None:
        """See that the stream ends with this cluster; zeros may follow, of a limited number."""
        here = self._front.position
        end = here + -here % self.header.cluster_size
        if here < end and self._front.read_into(memoryview(bytearray(end - here))) < end - here:
            raise InvalidImageError(
                f"{self._front.name}: the stream ends after {self._front.position} bytes, and a stream is filled up "
                f"with zeros to byte {end}, the end of its last cluster; it was cut off, or qemu-img made it, which "
                "does not fill images: make a stream of such a one with pydiskimg convert -O qcow2 SRC -"
            )
        buffer = memoryview(bytearray(MIB))
        while count := self._front.read_into(buffer):
            if self._front.position - end > PADDING_LIMIT or bytes(buffer[:count]).strip(b"\0"):
                raise InvalidImageError(
                    f"{self._front.name}: the image ends at byte {end} of the stream, and something else follows; "
                    "a stream holds one image and nothing but zeros behind it"
                )

    def _out_of_order(self, run: Run, position: int) -> InvalidImageError:
        return InvalidImageError(
            f"{self._front.name}: the data of guest offset {run.start} is at byte {run.host} of the stream, expected "
            f"at {position}, behind what comes before it; the image is corrupt, or is not laid out as a stream"
        )

    def _corrupt(self, run: Run, what: str) -> InvalidImageError:
        return InvalidImageError(
            f"{self._front.name}: the compressed cluster of guest offset {run.start}, at byte {run.host} of the "
            f"stream, {what}; the stream is corrupt"
        )


def _cut(run: Run, chunk_size: int) -> Iterator[Run]:
    """Cut a run of data at multiples of chunk_size of the guest."""
    start, end = run.start, run.start + run.length
    while start < end:
        stop = min(end, start - start % chunk_size + chunk_size)
        yield Run(run.kind, start, stop - start, run.host + start - run.start)
        start = stop
