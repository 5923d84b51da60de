# SPDX-License-Identifier: MIT
"""Write an image from a descriptor that cannot seek to a disk, or pass it on as raw bytes.

descriptor   one thread parses the stream, in order
              v       v       v
chunks       2 MiB   2 MiB   2 MiB   of the guest; threads decompress and write them
              v       v       v
disk         [===========================]  flush, and the beginning last
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import closing
from typing import Protocol, TypeAlias

from pydiskimg.disks.fits import check_size_fits
from pydiskimg.errors import InvalidImageError, UnsupportedImageError
from pydiskimg.extents import Extent, Kind
from pydiskimg.images import detect
from pydiskimg.images.qcow2.stream.reader import Chunk, StreamReader
from pydiskimg.images.qcow2.stream.spool import Spool
from pydiskimg.images.qcow2.stream.tables import Front, Prefix, read_stream_header
from pydiskimg.protocols import Disk, Progress, Source, WritableBuffer
from pydiskimg.transfer.meter import Meter
from pydiskimg.transfer.ordered import Buffers, items_at_once, ordered
from pydiskimg.transfer.pieces import CHUNK_SIZE
from pydiskimg.transfer.pipe import PipeReader, PipeWriter
from pydiskimg.transfer.sinks import DiskSink, PipeSink, Sink
from pydiskimg.transfer.workers import worker_count

_LOOK_AT = 512
# A growing disk grows once for this many chunks, because nothing is written meanwhile.
_GROWN_AT_ONCE = 8

# A chunk with data, or (start, length) of bytes that are zero.
_Item: TypeAlias = Chunk | tuple[int, int]


class Incoming(Front, Protocol):
    """The source of an image: a PipeReader, or a compressed file."""

    def peek(self, length: int) -> bytes:
        """Return the next length bytes, fewer at their end; the next read returns them again."""


class Stream(ABC):
    """An image that is read once from a pipe, in order. read_stream() returns one; a context manager.

    size is the size of the disk in bytes, or None for a raw image, whose size is known only at its end. The descriptor
    stays the caller's. close(), or leaving the block, releases the kept tables.

    >>> import os
    >>> from pydiskimg import MemoryDisk, read_stream
    >>> read_end, write_end = os.pipe()
    >>> os.write(write_end, bytes(4096)); os.close(write_end)
    4096
    >>> with read_stream(read_end, format="raw") as stream:
    ...     stream.size, stream.copy_to(MemoryDisk(1 << 20))
    (None, 4096)
    >>> os.close(read_end)
    """

    format: str
    size: int | None

    def __init__(self, pipe: Incoming, spool: Spool) -> None:
        self.name = pipe.name
        self._pipe = pipe
        self._spool = spool

    def copy_to(
        self,
        disk: Disk,
        *,
        grow: bool = False,
        at_least: int = 0,
        padding: int = 0,
        unit: int | None = None,
        workers: int | None = None,
        progress: Progress | None = None,
    ) -> int:
        """Make the first bytes of disk equal to the image, durably, and return how many they are.

        All but data becomes zero, by disk.zero(), or is skipped if the disk reads as zero. Otherwise the disk was in
        use: its first MiB is zeroed before anything else, and written last, when the whole stream has been verified. A
        DeferredHead, whose first MiB is already zero, is committed then. With grow, a disk that has a method grow(size)
        is made as large as a raw image. at_least is the smallest valid size of the image in bytes, the only sign that a
        raw one ended early. padding is the number of bytes at the end of the image that a smaller disk may lack,
        provided that they are zero. unit is as for copy(); workers is the number of threads (at most 8); progress
        counts the written bytes and gets 0 as the total of a raw image. Raises DoesNotFitError before the first write;
        StorageError, with errno ENOSPC if a raw image is larger than the disk, or padding is not zero;
        InvalidImageError if the stream ends early or contradicts itself. After an error the disk has only parts of the
        image and must not be used.
        """
        if self.size is not None:
            check_size_fits(self.name, self.size, disk, padding=padding)
        self._prepare()
        return self._run(DiskSink(disk, self.name, unit=unit, grow=grow), workers, progress, at_least=at_least)

    def write_to(
        self, fd: int, *, name: str = "standard output", workers: int | None = None, progress: Progress | None = None
    ) -> int:
        """Write the image as raw bytes to the descriptor fd, and return how many they are; errors as for copy_to()."""
        self._prepare()
        return self._run(PipeSink(PipeWriter(fd, name)), workers, progress)

    def close(self) -> None:
        """Release kept data. May be called repeatedly."""
        self._spool.close()

    def __enter__(self) -> Stream:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    @abstractmethod
    def _prepare(self) -> None:
        """Read the bytes before the data; nothing has been written yet."""

    def _data_length(self) -> int:
        """Return the bytes of the image that come from the stream, once _prepare() has returned; 0: not known."""
        return 0

    @abstractmethod
    def _items(self, take_buffer: Callable[[], memoryview], sink: Sink) -> Iterator[_Item]:
        """Yield all of the image, in order and without gaps; missing room in the sink is requested first."""

    @abstractmethod
    def _unpack(self, chunk: Chunk) -> None:
        """Complete the chunk's bytes; on several threads."""

    def _run(self, sink: Sink, workers: int | None, progress: Progress | None, *, at_least: int = 0) -> int:
        count = worker_count(workers)
        buffers = Buffers(items_at_once(count) + _GROWN_AT_ONCE, CHUNK_SIZE)
        end = 0
        meter = Meter(progress)
        if progress is not None and self.size is not None:
            meter.expect(self.size if sink.writes_zeros else self._data_length())

        def work(item: _Item) -> tuple[_Item, int]:
            if isinstance(item, Chunk):
                moved = item.length if sink.writes_zeros else item.data_length
                self._unpack(item)
                sink.data(item)
            else:
                moved = item[1] if sink.writes_zeros else 0
                sink.zeros(*item)
            return item, moved

        with closing(ordered(self._items(buffers.take, sink), work, workers=count)) as results:
            for item, moved in results:
                sink.in_order(item)
                if isinstance(item, Chunk):
                    buffers.give(item.buffer)
                    end = item.start + item.length
                else:
                    end = sum(item)
                meter.advance(moved)
        if end < at_least:
            raise InvalidImageError(
                f"{self.name}: ends at byte {end}, but its contents reach to byte {at_least}; the stream ended early"
            )
        sink.finish()
        return end


class RawStream(Stream):
    """Raw bytes, until they end."""

    format = "raw"
    size = None

    def _prepare(self) -> None:
        if not self._pipe.peek(1):
            error = InvalidImageError(f"{self.name}: is empty; nothing was written")
            error.tells_what_is_left = True
            raise error

    def _items(self, take_buffer: Callable[[], memoryview], sink: Sink) -> Iterator[_Item]:
        ended = False
        while not ended:
            chunks: list[Chunk] = []
            while not ended and len(chunks) < _GROWN_AT_ONCE:
                start, buffer = self._pipe.position, take_buffer()
                length = self._pipe.read_into(buffer)
                ended = length < len(buffer)
                chunks.append(Chunk(start, length, buffer, [(0, length)] if length else []))
            sink.room_for(self._pipe.position)
            yield from chunks

    def _unpack(self, chunk: Chunk) -> None:
        """Do nothing: nothing is compressed."""


class Qcow2Stream(Stream):
    """A qcow2 image whose tables come first; header is read and checked."""

    format = "qcow2"

    def __init__(self, pipe: Incoming, spool: Spool) -> None:
        super().__init__(pipe, spool)
        self._prefix = Prefix(pipe, spool)
        self.header = read_stream_header(self._prefix)
        self.size: int = self.header.size
        self._reader = StreamReader(pipe, self._prefix, self.header)

    def _prepare(self) -> None:
        self._reader.fetch_tables()

    def _data_length(self) -> int:
        return self._reader.data_length

    def _items(self, take_buffer: Callable[[], memoryview], sink: Sink) -> Iterator[_Item]:
        end = 0
        for chunk in self._reader.chunks(CHUNK_SIZE, take_buffer):
            yield from _zeros(end, chunk.start, sink.zeros_at_once)
            yield chunk
            end = chunk.start + chunk.length
        yield from _zeros(end, self.size, sink.zeros_at_once)

    def _unpack(self, chunk: Chunk) -> None:
        self._reader.unpack(chunk)


STREAMS: dict[str, type[RawStream | Qcow2Stream]] = {kind.format: kind for kind in (RawStream, Qcow2Stream)}


def read_stream(
    fd: int,
    *,
    format: str | None = None,  # noqa: A002 - the field's word, as in open_image()
    name: str = "standard input",
    spool_directory: str | None = None,
) -> Stream:
    """Begin to read an image from the descriptor fd; call copy_to() or write_to() of the result next.

    format is "raw" or "qcow2". With None the stream is taken for raw, and refused when it looks like another format: it
    may be an administrator's image, or a guest's disk, which may begin with any bytes. A qcow2 image must have its
    tables before its data and the data in the order of the disk, as write_stream() makes it (ADR 0019).

    name is the descriptor's name in messages; it stays the caller's. spool_directory (/var/tmp) is the directory for
    tables of more than 8 MiB.

    Raises UnsupportedImageError for a format or feature that cannot be read from a stream, InvalidImageError for a
    header that is damaged or incomplete, and StorageError.

    >>> from pydiskimg import new_image, open_image, read_stream, write_stream
    >>> with open_image("disk.raw") as source, open("stream.qcow2", "wb") as file:
    ...     written = write_stream(source, file.fileno())
    >>> with open("stream.qcow2", "rb") as file, read_stream(file.fileno(), format="qcow2") as stream:
    ...     with new_image("restored.raw", stream.size) as disk:
    ...         stream.copy_to(disk)
    67108864
    """
    return stream_of(PipeReader(fd, name), format=format, spool_directory=spool_directory)


def stream_of(
    pipe: Incoming,
    *,
    format: str | None,  # noqa: A002 - as in read_stream()
    spool_directory: str | None = None,
) -> Stream:
    """Begin to read an image from a pipe of which nothing was read yet except by peek(); all else as read_stream()."""
    name = pipe.name
    if format not in (None, *STREAMS):
        raise UnsupportedImageError(f"{name}: the format {format!r} is not read; expected {' or '.join(STREAMS)}")
    if format is None and detect(Beginning(name, pipe.peek(_LOOK_AT))) != RawStream.format:
        raise UnsupportedImageError(
            f"{name}: looks like a qcow2 image, which a guest can write to its disk too; name the format (-f): "
            "qcow2 for an image, raw for a disk"
        )
    spool = Spool(spool_directory)
    try:
        return STREAMS[format or RawStream.format](pipe, spool)
    except BaseException:
        spool.close()
        raise


class Beginning(Source):
    """The first bytes of a stream as a Source."""

    name: str
    size: int

    def __init__(self, name: str, data: bytes) -> None:
        self.name = name
        self.size = len(data)
        self._data = data

    def extents(self) -> Iterator[Extent]:
        yield Extent(0, self.size, Kind.DATA)

    def read_into(self, offset: int, buffer: WritableBuffer) -> None:
        buffer[:] = self._data[offset : offset + len(buffer)]


def _zeros(start: int, end: int, at_once: int) -> Iterator[tuple[int, int]]:
    while start < end:
        length = min(at_once, end - start)
        yield start, length
        start += length
