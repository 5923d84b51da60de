# SPDX-License-Identifier: MIT
"""The data of a streamed qcow2, taken from the stream in the order of the guest's addresses.

The data must follow the order of the tables: each cluster's data begins exactly where the previous one's ends, from the
end of the tables to the end of the stream, and padding is zero. Thus a lost entry and a swapped or shared cluster are
always detected.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from pydiskimg.errors import InvalidImageError
from pydiskimg.images.qcow2 import layout
from pydiskimg.images.qcow2.compressed import ClusterDecoder
from pydiskimg.images.qcow2.header import Header
from pydiskimg.images.qcow2.mapping import Mapping
from pydiskimg.images.qcow2.runs import COMPRESSED, DATA, HOLE, Run
from pydiskimg.images.qcow2.stream.checksums import CLUSTER_CHECKSUM_SIZE, checksum_of_cluster
from pydiskimg.images.qcow2.stream.tables import Front, Prefix, fetch_tables, read_checks, read_exactly
from pydiskimg.units import MIB

# Zeros after the image: the padding of the last block of a tape or of dd. More of them are an error.
PADDING_LIMIT = 16 * MIB


@dataclass(slots=True)
class Chunk:
    """The stored data of one aligned chunk of the guest, start and length in bytes.

    buffer has the chunk's bytes wherever extents (offset in the chunk, length), ascending, say; those of packed,
    compressed clusters with all that lies in their places, are put there by unpack().
    """

    start: int
    length: int
    buffer: memoryview
    extents: list[tuple[int, int]] = field(default_factory=list)
    packed: list[tuple[Run, bytearray]] = field(default_factory=list)

    @property
    def data_length(self) -> int:
        """Bytes of the guest that the chunk holds."""
        return sum(length for _, length in self.extents)


class StreamReader:
    """Reads one stream, whose header was already read through prefix; chunks() is for one thread."""

    def __init__(self, front: Front, prefix: Prefix, header: Header) -> None:
        self.header = header
        self._front = front
        self._prefix = prefix
        self._decoder = ClusterDecoder(header.compression_type, name=front.name)
        self._decoder.require_library()
        self._data_offset = 0
        self._has_checksums = False  # after each compressed cluster's data

    def fetch_tables(self) -> None:
        """Read the tables, before chunks(). Raises as fetch_tables() and read_checks() do."""
        self._data_offset = fetch_tables(self._prefix, self.header)
        self._has_checksums = read_checks(self._prefix, self.header, self._data_offset)

    @property
    def data_length(self) -> int:
        """Bytes of the guest that the stream holds, by its tables. Raises InvalidImageError as chunks() does."""
        return sum(run.length for run in self._stored_runs())

    def chunks(self, chunk_size: int, take_buffer: Callable[[], memoryview]) -> Iterator[Chunk]:
        """Yield the chunks with data, in order; the rest of the virtual disk is zero.

        chunk_size is bytes, a multiple of the cluster size; take_buffer gives a buffer of it, which the receiver must
        return. Returns when the stream has ended at the right byte. Raises InvalidImageError if it has not, or is not a
        qcow2 laid out as a stream; the data yielded by then must be discarded.
        """
        chunk: Chunk | None = None
        for run, end in self._runs(self._data_offset, chunk_size):
            start = run.start - run.start % chunk_size
            if chunk is None or chunk.start != start:
                if chunk is not None:
                    yield chunk
                chunk = Chunk(start, min(chunk_size, self.header.size - start), take_buffer())
            self._take(run, end, chunk)
        if chunk is not None:
            yield chunk
        self._finish()

    def unpack(self, chunk: Chunk) -> None:
        """Decompress the compressed clusters of chunk. Safe from several threads, for different chunks."""
        cluster_size = self.header.cluster_size
        for run, data in chunk.packed:
            at = run.start - chunk.start
            is_whole = run.length == cluster_size
            cluster = chunk.buffer[at : at + cluster_size] if is_whole else memoryview(bytearray(cluster_size))
            try:
                unpack_cluster(self._decoder, memoryview(data), run.start, cluster, has_checksum=self._has_checksums)
            except ValueError as error:
                raise self._corrupt(run, str(error)) from error
            if not is_whole:
                self._require_zeros(cluster[run.length :], run.host + len(data))
                chunk.buffer[at : at + run.length] = cluster[: run.length]
        chunk.packed.clear()

    def _runs(self, position: int, chunk_size: int) -> Iterator[tuple[Run, int]]:
        """Yield (run, the end of its space in the stream): the stored data, cut at chunks.

        Each is checked to begin at position, the end of the previous one; the space of a compressed cluster ends where
        the next one begins, or with its last sector.
        """
        cluster_size = self.header.cluster_size
        held: Run | None = None  # a compressed cluster whose successor's offset is not known yet
        for run in self._stored_runs():
            if run.kind == COMPRESSED:
                least = max(position - layout.SECTOR, held.host) + 1 if held else position
                if not least <= run.host <= position:
                    raise self._out_of_order(run, position)
                if held:
                    yield held, run.host
                held, position = run, run.host + run.host_length
                continue
            if held:
                yield held, position
                held = None
            position += -position % cluster_size
            if run.host != position:
                raise self._out_of_order(run, position)
            position += run.length + -run.length % cluster_size
            yield from ((part, part.host + part.length) for part in _cut(run, chunk_size))
        if held:
            yield held, position

    def _stored_runs(self) -> Iterator[Run]:
        """Yield the runs of DATA and COMPRESSED; raise InvalidImageError for any beyond the end of the virtual disk."""
        size, cluster_size = self.header.size, self.header.cluster_size
        mapped = self.header.l1_entries_used * self.header.l2_span
        mapping = Mapping(self._prefix, self.header, size=mapped)
        yield from (run for run in mapping.runs(0, size) if run.kind in (DATA, COMPRESSED))
        end = size + -size % cluster_size
        for run in mapping.runs(end, mapped - end):
            if run.kind != HOLE:
                raise InvalidImageError(
                    f"{self._front.name}: an L2 entry maps guest offset {run.start}, beyond the end of the virtual "
                    f"disk ({size}); the stream is corrupt"
                )

    def _take(self, run: Run, end: int, chunk: Chunk) -> None:
        at = run.start - chunk.start
        self._skip_to(run.host)
        if run.kind == COMPRESSED:
            data = bytearray(end - run.host)
            read_exactly(self._front, memoryview(data))
            chunk.packed.append((run, data))
        else:
            read_exactly(self._front, chunk.buffer[at : at + run.length])
        if chunk.extents and sum(chunk.extents[-1]) == at:
            chunk.extents[-1] = chunk.extents[-1][0], chunk.extents[-1][1] + run.length
        else:
            chunk.extents.append((at, run.length))

    def _skip_to(self, position: int) -> None:
        """Read the padding of the last cluster."""
        if missing := position - self._front.position:
            filler = memoryview(bytearray(missing))
            read_exactly(self._front, filler)
            self._require_zeros(filler, position)

    def _require_zeros(self, filler: memoryview, end: int) -> None:
        """Raise InvalidImageError unless filler, which ends at byte end of the stream, is zero."""
        if bytes(filler).strip(b"\0"):
            raise InvalidImageError(
                f"{self._front.name}: the padding of the cluster before byte {end} of the stream is not zero, so its "
                "tables do not cover all of the data; the stream is corrupt"
            )

    def _finish(self) -> None:
        """Check that the stream ends with this cluster; a limited number of zeros may follow."""
        here = self._front.position
        end = here + -here % self.header.cluster_size
        filler = memoryview(bytearray(end - here))
        if filler and self._front.read_into(filler) < end - here:
            raise InvalidImageError(
                f"{self._front.name}: the stream ends after {self._front.position} bytes, and a stream is filled up "
                f"with zeros to byte {end}, the end of its last cluster; it was cut off, or qemu-img made it, which "
                "does not fill images: make a stream of such a one with pydiskimg convert -O qcow2 SRC -"
            )
        self._require_zeros(filler, end)
        buffer = memoryview(bytearray(MIB))
        while count := self._front.read_into(buffer):
            if self._front.position - end > PADDING_LIMIT or bytes(buffer[:count]).strip(b"\0"):
                raise InvalidImageError(
                    f"{self._front.name}: the image ends at byte {end} of the stream, and other data follow; a stream "
                    "has one image and only zeros after it"
                )

    def _out_of_order(self, run: Run, position: int) -> InvalidImageError:
        return InvalidImageError(
            f"{self._front.name}: the data of guest offset {run.start} is at byte {run.host} of the stream, expected "
            f"at {position}, beyond the end of the data before it; the image is corrupt, or is not laid out as a stream"
        )

    def _corrupt(self, run: Run, what: str) -> InvalidImageError:
        return InvalidImageError(
            f"{self._front.name}: the compressed cluster of guest offset {run.start}, at byte {run.host} of the "
            f"stream, {what}; the stream is corrupt"
        )


def unpack_cluster(
    decoder: ClusterDecoder, data: memoryview, guest_offset: int, cluster: memoryview, *, has_checksum: bool
) -> None:
    """Fill cluster, which is at guest_offset (bytes), from data, its whole space in the stream.

    The compressed data are followed by their checksum, if the stream has checksums, and zeros; other bytes would be a
    cluster missing in the tables. Raises ValueError, whose text is a predicate of the data, if they are corrupt or
    other bytes follow.
    """
    rest = decoder.decode_all(data, cluster)
    if has_checksum:
        expected = checksum_of_cluster(guest_offset, cluster)
        if rest[:CLUSTER_CHECKSUM_SIZE] != expected:
            found = bytes(rest[:CLUSTER_CHECKSUM_SIZE]).hex()
            raise ValueError(f"has the checksum 0x{found}, expected 0x{expected.hex()}")
        rest = rest[CLUSTER_CHECKSUM_SIZE:]
    if bytes(rest).strip(b"\0"):
        raise ValueError(f"ends {len(rest)} bytes before the next data in the tables, and these bytes are not zero")


def _cut(run: Run, chunk_size: int) -> Iterator[Run]:
    """Cut a run of data at multiples of chunk_size of the guest."""
    start, end = run.start, run.start + run.length
    while start < end:
        stop = min(end, start - start % chunk_size + chunk_size)
        yield Run(run.kind, start, stop - start, run.host + start - run.start)
        start = stop
