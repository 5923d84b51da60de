# SPDX-License-Identifier: MIT
"""A qcow2 image as a Source."""

from __future__ import annotations

from _thread import allocate_lock

from pydiskimg.errors import InvalidImageError, UnsupportedImageError, closed_error
from pydiskimg.images.qcow2.header import read_header, require_readable, warn_of_corruption
from pydiskimg.images.qcow2.mapping import L2_CACHE, Mapping
from pydiskimg.images.qcow2.runs import COMPRESSED, DATA, HOLE
from pydiskimg.protocols import ImageSource, Source, check_buffer, check_range
from pydiskimg.startup import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from pydiskimg.extents import Extent
    from pydiskimg.images.qcow2.cluster_reader import ClusterReader
    from pydiskimg.images.qcow2.compressed import ClusterDecoder
    from pydiskimg.images.qcow2.header import Header
    from pydiskimg.protocols import FileRange, KindColumn, WritableBuffer

# For decompressed clusters, which are cached only when less than the whole cluster was requested.
CLUSTER_CACHE = 8 << 20

# Parts of less than a page are not moved, because a list of very small ones would be long.
SMALLEST_RANGE = 4 << 10


class Qcow2Source(ImageSource):
    """A Source over one layer of a qcow2 file, the active one or an internal snapshot, and the files below it.

    file is the qcow2 file itself, mapping its tables, backing the source below a HOLE of the layer (None: zeros), data
    the file with the clusters of DATA (None: file). All of them stay the caller's and must not change meanwhile;
    close() only calls on_close. decoder None means that of the image's compression; cluster_cache is the number of
    bytes of cached decompressed clusters. Made by open_qcow2().
    """

    name: str
    format = "qcow2"

    def __init__(
        self,
        file: Source,
        mapping: Mapping,
        decoder: ClusterDecoder | None = None,
        *,
        data: Source | None = None,
        backing: Source | None = None,
        cluster_cache: int = CLUSTER_CACHE,
        on_close: Callable[[], None] | None = None,
    ) -> None:
        self.name = file.name
        self.header = mapping.header
        self.backing = backing
        self.file = file
        self.data = file if data is None else data
        self.mapping = mapping
        self._decoder = decoder
        self._cluster_cache = cluster_cache
        self._on_close = on_close
        self._is_closed = False
        self._lock = allocate_lock()
        self._made_reader: ClusterReader | None = None

    @property
    def _reader(self) -> ClusterReader:
        """The reader of clusters, made on first use: much can be reported of an image without it."""
        if self._made_reader is None:
            with self._lock:
                self._made_reader = self._made_reader or self._new_reader()
        return self._made_reader

    def _new_reader(self) -> ClusterReader:
        from pydiskimg.images.qcow2.cluster_reader import ClusterReader
        from pydiskimg.images.qcow2.compressed import ClusterDecoder

        decoder = self._decoder or ClusterDecoder(self.header.compression_type, name=self.name)
        data = None if self.data is self.file else self.data
        return ClusterReader(
            self.file, self.header, decoder, data=data, backing=self.backing, cache=self._cluster_cache
        )

    @property
    def size(self) -> int:
        """Size of the virtual disk in bytes, exactly as the header or the snapshot has it."""
        return self.mapping.size

    @property
    def cluster_size(self) -> int:
        """Bytes in a cluster: a power of two from 512 to 2 MiB."""
        return self.header.cluster_size

    def extents(self) -> Iterator[Extent]:
        """Yield the extents as Source.extents() does; a HOLE of this layer shows the extents of the backing file.

        Raises InvalidImageError if a table is corrupt.
        """
        self._require_open()
        own = self.mapping.extents()
        return own if self.backing is None else _over(own, self.backing.extents())

    def kind_columns(self) -> Iterator[KindColumn] | None:
        self._require_open()
        if self.backing is not None:
            return None
        from pydiskimg.images.qcow2.mapping_extents import mapping_columns  # only here: rarely needed

        return mapping_columns(self.mapping)

    def coarse_extents(self, unit: int) -> Iterator[Extent]:
        self._require_open()
        own = self.mapping.extents(unit)
        return own if self.backing is None else _over(own, self.backing.coarse_extents(unit))

    def read_into(self, offset: int, buffer: WritableBuffer) -> None:
        """Fill buffer as Source.read_into() does."""
        self._require_open()
        check_buffer(self, offset, buffer)
        self._reader.read(self.mapping.coarse_runs(offset, len(buffer)), offset, memoryview(buffer))

    def read_ranges(self, ranges: Sequence[tuple[int, int]], buffer: memoryview) -> None:
        self._require_open()
        start = at = 0  # of buffer, [start, at) is to be read from the host offset on
        host = guest = -1
        for offset, length in ranges:
            check_range(self, offset, length)
        for (offset, length), found in zip(ranges, self.mapping.hosts_of(ranges), strict=True):
            if found is None or found != host + at - start:
                if start < at:
                    self._reader.read_data(guest, host, buffer[start:at])
                start, guest, host = at, offset, found if found is not None else -1
            at += length
            if found is None:
                self.read_into(offset, buffer[start:at])
                start = at
        if start < at:
            self._reader.read_data(guest, host, buffer[start:at])

    def file_ranges(self, offset: int, length: int) -> list[FileRange] | None:
        """Return the result of Source.file_ranges(); None also if clusters or subclusters are smaller than a page."""
        self._require_open()
        if self.header.subcluster_size < SMALLEST_RANGE or not 0 <= offset <= offset + length <= self.size:
            return None
        ranges: list[FileRange] = []
        for run in self.mapping.runs(offset, length):
            found = None
            if run.kind == DATA:
                found = self.data.file_ranges(run.host, run.length)
            elif run.kind == HOLE and self.backing is not None:
                found = self.backing.file_ranges(run.start, run.length)
            if found is None:
                return None
            ranges += found
        return ranges

    def files(self) -> Iterator[str]:
        yield self.name
        if self.data is not self.file:
            yield self.data.name
        if self.backing is not None:
            yield from self.backing.files()

    leaves_out_zeros = True

    @property
    def is_compressed(self) -> bool:
        """True if there is a compressed cluster in the first L2 table: reading then takes processor time."""
        for _, _, table in self.mapping.tables(0, self.size):
            if table is not None:
                return COMPRESSED in table.kinds
        return False

    def close(self) -> None:
        """Call on_close, once; reading raises StorageError from now on."""
        self._is_closed = True
        on_close, self._on_close = self._on_close, None
        if on_close is not None:
            on_close()

    def _require_open(self) -> None:
        if self._is_closed:
            raise closed_error(self.name)


def _over(own: Iterator[Extent], behind: Iterator[Extent]) -> Iterator[Extent]:
    from pydiskimg.extents import merged
    from pydiskimg.images.qcow2.backing import over

    return merged(over(own, behind))


def open_qcow2(
    file: Source,
    *,
    backing: Source | None = None,
    data_file: Source | None = None,
    snapshot: str | None = None,
    header: Header | None = None,
    cache_share: int = 1,
    on_close: Callable[[], None] | None = None,
) -> Qcow2Source:
    """Return the virtual disk in the qcow2 file; its close() calls on_close.

    backing and data_file are the files that the image names, opened by the caller, who keeps them. snapshot is the id
    or the name of an internal snapshot that is read instead of the active layer; header is the result of read_header(),
    if the caller has it. cache_share is the number of images that share the memory for caches. Raises InvalidImageError
    and UnsupportedImageError, each with one sentence (also for a file that is named and was not passed), StorageError
    when reading fails; on_close is not called then.
    """
    header = header or read_header(file)
    require_readable(header, file.name)
    warn_of_corruption(header, file.name)
    _require_references(header, file.name, backing=backing, data_file=data_file)
    location = {"l2_cache": L2_CACHE // cache_share}
    if snapshot is not None:
        from pydiskimg.images.qcow2.snapshots import find_snapshot, read_snapshots  # imported here: rarely needed

        found = find_snapshot(read_snapshots(file, header), snapshot, name=file.name)
        location |= {"l1_table_offset": found.l1_table_offset, "l1_size": found.l1_size, "size": found.disk_size}
    if data_file is not None:
        location["data_size"] = data_file.size
    if header.compression_type != "zlib":
        from pydiskimg.images.qcow2.compressed import ClusterDecoder

        ClusterDecoder(header.compression_type, name=file.name).require_library()
    return Qcow2Source(
        file,
        Mapping(file, header, **location),
        data=data_file,
        backing=backing,
        cluster_cache=CLUSTER_CACHE // cache_share,
        on_close=on_close,
    )


def _require_references(header: Header, name: str, *, backing: Source | None, data_file: Source | None) -> None:
    if header.has_data_file != (data_file is not None):
        if not header.has_data_file:
            raise ValueError(f"{name}: has no external data file, but one was passed")
        if header.data_file is None:
            raise InvalidImageError(f"{name}: keeps its data in an external file, and does not say in which")
        from pydiskimg.text import quoted

        raise UnsupportedImageError(
            f"{name}: keeps its data in the external file {quoted(header.data_file)}, which was not opened"
        )
    if header.backing_file is not None and backing is None:
        from pydiskimg.text import quoted

        raise UnsupportedImageError(f"{name}: has the backing file {quoted(header.backing_file)}, which was not opened")
