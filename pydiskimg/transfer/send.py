# SPDX-License-Identifier: MIT
"""Write a Source in order to a descriptor that cannot seek: raw, or a qcow2 whose tables come first.

A qcow2 takes two passes: the first finds the stored clusters and the compressed length of each, the second writes. Only
the lengths are kept between them, not the data.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from typing import TypeAlias

from pydiskimg.errors import InUseError, InvalidImageError, UnsupportedImageError
from pydiskimg.extents import Extent, Kind
from pydiskimg.images import FORMATS
from pydiskimg.images.qcow2.options import DEFAULT_CLUSTER_SIZE, chosen_options
from pydiskimg.images.qcow2.sizes import l1_entries, round_size
from pydiskimg.images.qcow2.stream.layout import Contents, Layout, lay_out
from pydiskimg.images.qcow2.stream.spool import Spool
from pydiskimg.images.qcow2.stream.writer import Batch, ClusterCompressor, batches, joined, metadata
from pydiskimg.protocols import Buffer, Progress, Source
from pydiskimg.regions.overlap import is_read_from
from pydiskimg.transfer.meter import Meter
from pydiskimg.transfer.ordered import Buffers, items_at_once, ordered
from pydiskimg.transfer.pieces import CHUNK_SIZE, WHOLE, ZeroRuns, pieces
from pydiskimg.transfer.pipe import PipeWriter
from pydiskimg.transfer.unread import Part, parts_of, write_part
from pydiskimg.transfer.workers import worker_count
from pydiskimg.units import KIB

# A raw stream is read in whole units of this; smaller holes are not worth a piece of their own.
_RAW_UNIT = 64 * KIB

# A batch, its parts in the stream, and the buffer that is free once these are written.
_Written: TypeAlias = "tuple[Batch, list[Buffer | Part], memoryview | None]"


@dataclass(frozen=True, slots=True)
class StreamOptions:
    """The options of a qcow2 stream: compression_type None is uncompressed, workers None depends on the number of CPUs.

    find_zeros reads all data an additional time to leave out zero clusters; a compressed stream always does. None:
    unless the source is a qcow2 image, whose writer has left them out. spool_directory is for the lengths of the
    clusters and the tables of large images.
    """

    version: int = 3
    cluster_size: int = DEFAULT_CLUSTER_SIZE
    compression_type: str | None = None
    find_zeros: bool | None = None
    spool_directory: str | None = None


def write_stream(  # noqa: PLR0913 - the options of one call, each named
    source: Source,
    fd: int,
    *,
    format: str = "qcow2",  # noqa: A002 - the field's word, as in open_image()
    version: int = 3,
    cluster_size: int = DEFAULT_CLUSTER_SIZE,
    compression_type: str | None = None,
    find_zeros: bool | None = None,
    workers: int | None = None,
    progress: Progress | None = None,
    announce: Callable[[int], None] | None = None,
    name: str = "standard output",
    spool_directory: str | None = None,
) -> int:
    """Write source as an image to the descriptor fd, from front to back, and return the number of bytes written.

    format is "qcow2", with all tables before the data (ADR 0019), or "raw", with zeros for holes. compression_type
    "zlib" or "zstd" compresses every cluster of a qcow2 image. The source is read twice for that and must not change
    meanwhile: InvalidImageError is raised where a cluster no longer fits its space. find_zeros reads an uncompressed
    source twice as well, to leave out clusters of zeros; None does so unless the source is a qcow2 image. version (2 or
    3) and cluster_size (bytes) are those of new_image().

    workers is the number of threads, at most 8. name is the descriptor's name in messages; it stays the caller's.
    spool_directory (/var/tmp) is where the lengths of a large image's clusters are kept, 4 bytes each, and its tables.
    progress counts the bytes of data in both passes, and in a raw stream the zeros, too. announce is called once,
    before the first write, with the length of the stream in bytes.

    Raises DoesNotFitError and UnsupportedImageError before the first byte when options and size do not go together,
    InUseError for the descriptor of a file that source is read from, and StorageError when the descriptor cannot be
    written (errno EPIPE when the reader has closed its end). After an error the stream is incomplete, and read_stream()
    refuses it.

    >>> import os
    >>> from pydiskimg import open_image, write_stream
    >>> with open_image("disk.qcow2") as source, open("backup.qcow2", "wb") as file:
    ...     written = write_stream(source, file.fileno(), compression_type="zlib")
    >>> written == os.path.getsize("backup.qcow2")
    True
    """
    if format not in FORMATS:
        raise UnsupportedImageError(f"{name}: the format {format!r} is not written; expected {' or '.join(FORMATS)}")
    if is_read_from(source, fd):
        text = f"{name}: is a file that {source.name} is read from; nothing was written"
        raise InUseError(text, errno=None, filename=name)
    if not FORMATS[format].has_options:
        if announce is not None:
            announce(source.size)
        return _write_raw(source, PipeWriter(fd, name), worker_count(workers), progress)
    options = StreamOptions(version, cluster_size, compression_type, find_zeros, spool_directory)
    with Spool(spool_directory) as spool:
        return _Qcow2(source, PipeWriter(fd, name), options, spool, worker_count(workers), progress).write(announce)


def _write_raw(source: Source, pipe: PipeWriter, workers: int, progress: Progress | None) -> int:
    buffers = Buffers(items_at_once(workers), CHUNK_SIZE)

    def read(piece: Extent) -> tuple[Extent, memoryview | None]:
        if piece.kind is not Kind.DATA:
            return piece, None
        buffer = buffers.take()
        source.read_into(piece.start, buffer[: piece.length])
        return piece, buffer

    with closing(ordered(pieces(source, _RAW_UNIT), read, workers=workers)) as results:
        for piece, buffer in results:
            if buffer is None:
                pipe.zeros(piece.length)
            else:
                pipe.write(buffer[: piece.length])
                buffers.give(buffer)
            if progress is not None:
                progress(piece.end, source.size)
    pipe.flush()
    return pipe.position


class _Qcow2:
    """The writing of one stream."""

    def __init__(
        self,
        source: Source,
        pipe: PipeWriter,
        options: StreamOptions,
        spool: Spool,
        workers: int,
        progress: Progress | None,
    ) -> None:
        compression_type = options.compression_type or "zlib"
        chosen_options(
            pipe.name,
            {
                "cluster_size": options.cluster_size,
                "version": options.version,
                "compression_type": compression_type,
            },
        )
        l1_entries(round_size(source.size), options.cluster_size, name=pipe.name)
        self._source = source
        self._pipe = pipe
        self._options = options
        self._workers = workers
        self._stored_clusters = 0
        self._cluster_size = options.cluster_size
        self._meter = Meter(progress, later=self._data_pieces())
        self._contents = Contents(options.cluster_size, spool)
        self._compress = ClusterCompressor(compression_type, name=pipe.name) if options.compression_type else None
        self._zero_runs = ZeroRuns(options.cluster_size)
        # As many as are being processed, and the one that is being written.
        self._buffers = Buffers(items_at_once(workers), CHUNK_SIZE)

    def write(self, announce: Callable[[int], None] | None) -> int:
        """Both passes; return the number of bytes written."""
        self._first_pass()
        ranges = lay_out(
            self._contents,
            round_size(self._source.size),
            version=self._options.version,
            compression_type=self._options.compression_type or "zlib",
            name=self._pipe.name,
        )
        if announce is not None:
            announce(ranges.end)
        self._write_tables(ranges)
        self._second_pass(ranges)
        self._pipe.zeros(ranges.end - self._pipe.position)
        self._pipe.flush()
        return self._pipe.position

    def _write_tables(self, ranges: Layout) -> None:
        is_compressed = self._compress is not None
        with Spool(self._options.spool_directory) as spool:
            for part in metadata(self._contents, ranges, spool, compressed=is_compressed, name=self._pipe.name):
                self._pipe.write(part)

    def _first_pass(self) -> None:
        is_read = self._first_pass_reads()
        self._meter.begin(self._data_pieces() if is_read else ())
        with closing(ordered(self._data_pieces(), self._measured, workers=self._workers)) as results:
            for piece, lengths in results:
                self._contents.add(piece.start // self._cluster_size, lengths)
                self._stored_clusters += len(lengths) - lengths.count(0)
                self._meter.advance(piece.length if is_read else 0)
        self._contents.finish()

    def _data_pieces(self) -> Iterator[Extent]:
        found = pieces(self._source, self._cluster_size, zero_size=WHOLE, short_gap=0)  # all DATA is stored
        return (piece for piece in found if piece.kind is Kind.DATA)

    def _measured(self, piece: Extent) -> tuple[Extent, list[int]]:
        """Find the length of each cluster of piece in the stream, 0 for zero clusters."""
        cluster_size = self._cluster_size
        count = -(-piece.length // cluster_size)
        if not self._first_pass_reads():
            return piece, [cluster_size] * count
        buffer = self._buffers.take()
        try:
            data = self._read([(piece.start, count * cluster_size)], buffer)
            lengths: list[int] = []
            for start, end, is_zero in self._zero_runs(data):
                clusters = range(start, end, cluster_size)
                if is_zero:
                    lengths += [0] * len(clusters)
                elif self._compress is None:
                    lengths += [cluster_size] * len(clusters)
                else:
                    lengths += [self._compress.length(data[at : at + cluster_size]) for at in clusters]
            return piece, lengths
        finally:
            self._buffers.give(buffer)

    def _first_pass_reads(self) -> bool:
        if self._compress is not None:
            return True
        if self._options.find_zeros is None:
            return not self._source.leaves_out_zeros
        return self._options.find_zeros

    def _read(self, extents: list[tuple[int, int]], buffer: memoryview) -> memoryview:
        """Fill the buffer's beginning with the extents, one after another, and zeros beyond the end of the disk."""
        at = 0
        for start, length in extents:
            inside = max(0, min(length, self._source.size - start))
            if inside:
                self._source.read_into(start, buffer[at : at + inside])
            if inside < length:
                buffer[at + inside : at + length] = bytes(length - inside)
            at += length
        return buffer[:at]

    def _second_pass(self, ranges: Layout) -> None:
        work = self._stored if self._compress is None else self._packed
        self._meter.expect(self._stored_clusters * self._cluster_size)
        all_batches = batches(self._contents, ranges, CHUNK_SIZE)
        with closing(ordered(all_batches, work, workers=self._workers)) as results:
            for batch, parts, buffer in results:
                self._pipe.zeros(batch.offsets[0] - self._pipe.position)
                for part in parts:
                    if isinstance(part, Part):
                        write_part(self._source, part, self._pipe)
                    else:
                        self._pipe.write(part)
                if buffer is not None:
                    self._buffers.give(buffer)
                self._meter.advance(len(batch.guests) * self._cluster_size)

    def _stored(self, batch: Batch) -> _Written:
        found = list(parts_of(self._source, batch.extents, self._pipe))
        if all(part.ranges for part in found):
            return batch, [*found], None
        buffer, at = self._buffers.take(), 0
        parts: list[Buffer | Part] = []
        for part in found:
            if part.ranges is None:
                parts.append(self._read([(part.start, part.length)], buffer[at:]))
                at += part.length
            else:
                parts.append(part)
        return batch, parts, buffer

    def _packed(self, batch: Batch) -> _Written:
        buffer = self._buffers.take()
        try:
            data = self._read(batch.extents, buffer)
            return batch, [joined(batch, self._fitted(data, batch))], None
        finally:
            self._buffers.give(buffer)

    def _fitted(self, data: memoryview, batch: Batch) -> Iterator[bytes]:
        """Compress each cluster of data to its length from the first pass."""
        assert self._compress is not None
        cluster_size = self._cluster_size
        for number, (guest, length) in enumerate(zip(batch.guests, batch.lengths, strict=True)):
            fitted = self._compress.fitted(data[number * cluster_size : (number + 1) * cluster_size], guest, length)
            if fitted is None:
                raise InvalidImageError(
                    f"{self._source.name}: was changed while it was read: a cluster that had {length} bytes compressed "
                    "is now larger; the written stream is not complete and cannot be used"
                )
            yield fitted
