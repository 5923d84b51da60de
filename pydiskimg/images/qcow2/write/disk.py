# SPDX-License-Identifier: MIT
"""A qcow2 image as a Disk: random writes to an image made by any program."""

from __future__ import annotations

from _thread import allocate_lock

from pydiskimg.errors import UnsupportedImageError, closed_error, read_only_error
from pydiskimg.images.qcow2 import layout
from pydiskimg.images.qcow2.header import read_header, require_changeable
from pydiskimg.images.qcow2.sizes import l1_entries, round_size
from pydiskimg.images.qcow2.write.head import change_header
from pydiskimg.images.qcow2.write.l2_map import GuestMap
from pydiskimg.images.qcow2.write.refcounts import Refcounts
from pydiskimg.protocols import Disk, check_buffer, check_range
from pydiskimg.startup import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from pydiskimg.extents import Extent
    from pydiskimg.images.qcow2.compress import Compress
    from pydiskimg.images.qcow2.header import Header
    from pydiskimg.images.qcow2.write.bitmaps import RecordedBitmaps
    from pydiskimg.images.qcow2.write.clusters import ClusterWriter
    from pydiskimg.images.qcow2.write.data_file import DataFile
    from pydiskimg.protocols import Buffer, FileRange, Source, Store, WritableBuffer

_SMALLEST_UNIT = 4 << 10  # zeros are not searched in less


class Qcow2Disk(Disk):
    """A Disk over a qcow2 image in a Store; both stay the caller's. Made by open_qcow2_disk().

    Safe from several threads; the image is consistent whenever the machine stops, and contains all data written before
    the last flush(). Memory is bounded: about 32 MiB of tables, the L1 and the refcount table, and the bits of bitmaps.
    """

    name: str
    size: int
    reads_as_zero: bool
    format = "qcow2"
    sector_size = 512

    def __init__(
        self,
        store: Store,
        header: Header,
        *,
        backing: Source | None,
        compress: Compress | None,
        data_file: DataFile | None = None,
    ) -> None:
        self.name = store.name
        self.data_file = data_file
        if data_file is not None:
            from pydiskimg.images.qcow2.write.data_file import StoreWithData

            store = StoreWithData(store, data_file)
        self.cluster_size = header.cluster_size
        self.size = header.size
        self.version = header.version
        self.backing = backing
        self._closed = self._read_only = False
        self._store = store
        self._bitmaps: RecordedBitmaps | None = None
        self._kept = layout.AUTOCLEAR_BITMAPS * header.has_bitmaps
        self._raw_bit = layout.AUTOCLEAR_DATA_FILE_RAW * header.data_file_raw
        self._autoclear = header.autoclear_features & ~(self._kept | self._raw_bit)
        self._lock = allocate_lock()
        self._refcounts = Refcounts(store, header)
        self._map = GuestMap(store, header, self._refcounts, data_file=data_file, on_release=self._after_releases)
        self._header = header
        self._compress = compress
        self._writer: ClusterWriter | None = None
        self._unit = header.cluster_size if compress else max(header.subcluster_size, _SMALLEST_UNIT)
        self._unit = min(self._unit, header.cluster_size)
        self.reads_as_zero = backing is None and self._map.is_empty

    @property
    def _clusters(self) -> ClusterWriter:
        """The reader and writer of clusters, made on first use: changing the size does not need it."""
        if self._writer is None:
            with self._lock:
                self._writer = self._writer or self._new_writer()
        return self._writer

    def _new_writer(self) -> ClusterWriter:
        from pydiskimg.images.qcow2.write.clusters import ClusterWriter
        from pydiskimg.images.qcow2.write.packing import Packing

        kind = ClusterWriter
        if self._header.extended_l2:
            from pydiskimg.images.qcow2.write.subclusters import SubclusterWriter

            kind = SubclusterWriter
        packing = Packing(self._refcounts, self.cluster_size)
        writer = kind(
            self._store,
            self._header,
            self._map,
            packing,
            self._lock,
            backing=self.backing,
            compress=self._compress,
            data_file=self.data_file,
        )
        writer.size = self.size
        return writer

    def _after_releases(self) -> None:
        if self._writer is not None:
            self._writer.after_releases()

    @property
    def has_raw_data_file(self) -> bool:
        """True if the external data file is also a raw image of the disk."""
        return bool(self._raw_bit)

    @property
    def unit(self) -> int:
        return self._unit

    def extents(self) -> Iterator[Extent]:
        """Yield the extents; unallocated parts are DATA up to the size of the backing file, and a HOLE beyond."""
        from pydiskimg.images.qcow2.write.disk_extents import disk_extents

        self._require_open()
        return disk_extents(
            self._map,
            self._lock,
            size=self.size,
            subcluster_size=self._header.subcluster_size,
            backing_size=0 if self.backing is None else self.backing.size,
        )

    def read_into(self, offset: int, buffer: WritableBuffer) -> None:
        self._require_open()
        view = memoryview(buffer)
        check_buffer(self, offset, view)
        clusters = self._clusters
        with clusters.ranges.reading(*self._clusters_around(offset, len(view))):
            for cluster, count, start, end in self._by_table(offset, len(view)):
                with self._lock:
                    entries = self._map.entries(cluster, count)
                clusters.read(cluster, entries, start, view[start - offset : end - offset])

    def write(self, offset: int, data: Buffer) -> None:
        self._require_open(writing=True)
        view = memoryview(data)
        check_buffer(self, offset, view)
        if not view:
            return
        self._record(offset, len(view))
        clusters = self._clusters
        with clusters.ranges.writing(*self._clusters_around(offset, len(view))):
            self._begin()
            for cluster, count, start, end in self._by_table(offset, len(view)):
                clusters.write(cluster, count, start, view[start - offset : end - offset])

    def write_ranges(self, ranges: Sequence[tuple[int, int, int]], data: memoryview) -> None:
        if len(ranges) < 2 or self._compress is not None or self.data_file is not None:
            super().write_ranges(ranges, data)
            return
        self._require_open(writing=True)
        for offset, start, end in ranges:
            check_range(self, offset, end - start)
            self._record(offset, end - start)
        clusters, first = self._clusters, ranges[0][0]
        last, start, end = ranges[-1]
        with clusters.ranges.writing(*self._clusters_around(first, last + end - start - first)):
            self._begin()
            others = clusters.write_new(ranges, data)
            for offset, start, end in others:
                for cluster, count, at, stop in self._by_table(offset, end - start):
                    clusters.write(cluster, count, at, data[start + at - offset : start + stop - offset])

    def share(self, offset: int, ranges: Sequence[FileRange]) -> bool:
        from pydiskimg.images.qcow2.write.shared import BytesInFiles, NotSharedError

        self._require_open(writing=True)
        contents = BytesInFiles(ranges)
        check_range(self, offset, len(contents))
        is_whole = not (offset | len(contents)) % self.cluster_size
        if not is_whole or self._compress is not None or self.data_file is not None:
            return False
        self._record(offset, len(contents))
        clusters = self._clusters
        with clusters.ranges.writing(offset, offset + len(contents)):
            self._begin()
            try:
                for cluster, _, start, end in self._by_table(offset, len(contents)):
                    clusters.write_whole(cluster, contents[start - offset : end - offset])
            except NotSharedError:
                return False
        return True

    def zero(self, offset: int, length: int) -> None:
        self._require_open(writing=True)
        check_range(self, offset, length)
        if not length:
            return
        self._record(offset, length)
        clusters = self._clusters
        with clusters.ranges.writing(*self._clusters_around(offset, length)):
            self._begin()
            clusters.zero(offset, offset + length)

    def flush(self) -> None:
        self._require_open()
        if self._read_only:
            return
        with self._lock:
            self._pad()
            self._map.flush()
            if self._bitmaps is not None and self._bitmaps.save():
                self._map.flush()  # their former clusters are free

    def give_back(self) -> None:
        """Flush, and make holes in the image's file for all its free clusters."""
        self.flush()
        with self._lock:
            self._refcounts.give_back(0, -(-self._store.size // self.cluster_size))

    @property
    def bitmaps(self) -> RecordedBitmaps:
        """The dirty bitmaps of the image; flush() writes them."""
        if not self._bitmaps:
            from pydiskimg.images.qcow2.write.bitmaps import RecordedBitmaps

            self._bitmaps = RecordedBitmaps(self._store, self._header, self._refcounts)
            self._kept = layout.AUTOCLEAR_BITMAPS
        return self._bitmaps

    def close(self) -> None:
        """Refuse all further calls: the store, which stays the caller's, will be closed; flushes nothing."""
        self._closed = True

    def will_stand_on(self, size: int) -> None:
        """Store zeros so that they hide another backing file, of size bytes, which the image will get."""
        self._clusters.backed = max(self._clusters.backed, size)

    def keep_zeros(self) -> None:
        """Store zeros of write() unchanged, or compressed if all other data are, and leave no holes in the file."""
        self._clusters.keeps_zeros = True

    def forbid_writing(self) -> None:
        """Refuse changes of the image, because the store was opened for reading only."""
        self._read_only = True

    def drop_cache(self) -> None:
        self._require_open()
        with self._lock:
            self._map.clear_cache()
        self._store.drop_cache()

    def grow(self, size: int) -> None:
        """Extend the virtual disk to size bytes, rounded up to 512, if it is smaller; the new part reads as zero.

        No other method may be called meanwhile. Raises DoesNotFitError if clusters of this size cannot map that much.
        """
        self._require_open(writing=True)
        size, old = round_size(size), self.size
        if self._kept and size > old:
            self.bitmaps.begin(size)
        if size <= old:
            return
        l1_size = l1_entries(size, self.cluster_size, name=self.name, entry_size=self._header.l2_entry_size)
        self._begin()
        if self.data_file is not None:
            if self._header.data_file_raw and self.data_file.size > old:
                self.data_file.zero(old, min(self.data_file.size, size) - old)
            self.data_file.grow(size)
        used = -(-old // (self._map.entries_per_table * self.cluster_size))
        with self._lock:
            if any(self._map.has_table(index) for index in range(used, self._map.l1_size)):
                raise UnsupportedImageError(
                    f"{self.name}: cannot be made larger: the state of a saved machine lies beyond the disk's end; "
                    "delete the snapshot that it belongs to"
                )
        # Bytes beyond the old end in its table and in the backing file are zeroed before the header has the new size: a
        # crash must not show them.
        span = self._map.entries_per_table * self.cluster_size
        backing_size = self.backing.size if self.backing is not None else 0
        end = min(size, max(used * span, backing_size))
        hides = end > old and (backing_size > old or not self._is_unmapped(old, end))
        if hides:
            with self._lock:
                self._map.grow(old, l1_size)
        self._set_size(size)
        try:
            if hides:
                self.zero(old, end - old)
            with self._lock:
                self._map.grow(size, l1_size)
        except BaseException:
            self._set_size(old)
            raise
        if self._kept:
            self.bitmaps.resize(size)

    def preallocate(self, offset: int, length: int, *, full: bool = False) -> None:
        """Store whole clusters around [offset, offset + length) as zeros if nothing was written yet; see flush().

        The file is extended without being written, or written if full is set. Zeroed clusters are stored, too; the
        backing file is hidden there. Raises as write().
        """
        self._require_open(writing=True)
        check_range(self, offset, length)
        if not length:
            return
        from pydiskimg.images.qcow2.write.preallocate import at_end_of, inside, preallocate_clusters

        if self.data_file is None:
            allocate = at_end_of(self._store, self._refcounts, self.cluster_size, full=full)
        else:
            allocate = inside(self.data_file, self.size, self.cluster_size, full=full)
        with self._clusters.ranges.writing(*self._clusters_around(offset, length)):
            self._begin()
            for cluster, count, _, _ in self._by_table(offset, length):
                with self._lock:
                    preallocate_clusters(self._map, cluster, count, allocate)
                    self._pad()

    def _set_size(self, size: int) -> None:
        self.size = size
        if self._writer is not None:
            self._writer.size = size

    def _is_unmapped(self, start: int, end: int) -> bool:
        """True if no entry maps any cluster of [start, end), which is in the range of one L2 table."""
        first = start // self.cluster_size
        with self._lock:
            return not any(self._map.entries(first, -(-end // self.cluster_size) - first) or ())

    def _require_open(self, *, writing: bool = False) -> None:
        if self._closed:
            raise closed_error(self.name)
        if writing and self._read_only:
            raise read_only_error(self.name)

    def _record(self, offset: int, length: int) -> None:
        """Before [offset, offset + length) is written: record it in the dirty bitmaps."""
        if self._kept:
            with self._lock:
                self.bitmaps.record(offset, offset + length)

    def _clusters_around(self, offset: int, length: int) -> tuple[int, int]:
        size = self.cluster_size
        return offset // size * size, -(-(offset + length) // size) * size

    def _by_table(self, offset: int, length: int) -> Iterator[tuple[int, int, int, int]]:
        """Yield (first cluster, clusters, start, end) of the parts that one L2 table maps each."""
        span = self._map.entries_per_table * self.cluster_size
        end = offset + length
        while offset < end:
            stop = min(end, (offset // span + 1) * span)
            cluster = offset // self.cluster_size
            yield cluster, -(-stop // self.cluster_size) - cluster, offset, stop
            offset = stop

    def _begin(self) -> None:
        """Before the first change: clear the autoclear bits of unknown features, whose data become invalid."""
        if self.data_file is not None and self.data_file.size < self.size:
            self.data_file.grow(self.size)
        if not self._autoclear:
            return
        with self._lock:
            change_header(self._store, autoclear_features=self._kept | self._raw_bit)
            self._store.flush()
            self._autoclear = 0

    def _pad(self) -> None:
        """Let the file end with a cluster, so that the last one can be read completely."""
        self._store.extend(self._refcounts.end * self.cluster_size)


def open_qcow2_disk(
    store: Store, *, backing: Source | None = None, data_file: DataFile | None = None, compress: bool = False
) -> Qcow2Disk:
    """Return the virtual disk of the qcow2 image in store, to be read and written.

    backing and data_file are the files that the image names, opened by the caller, who keeps them. The data file is
    extended to the disk's size at the first write. compress compresses whole clusters that write() gets where nothing
    is mapped yet; all others are stored uncompressed. Raises InvalidImageError, UnsupportedImageError for an image that
    cannot be written here, StorageError.
    """
    header = read_header(store)
    require_changeable(header, store.name)
    _require_references(header, store.name, backing=backing, data_file=data_file)
    if compress:
        require_compressible(store.name, has_data_file=header.has_data_file)
    by = None
    if compress:
        from pydiskimg.images.qcow2.compress import compressor

        by = compressor(header.compression_type, name=store.name)
    return Qcow2Disk(store, header, backing=backing, data_file=data_file, compress=by)


def require_compressible(name: str, *, has_data_file: bool) -> None:
    """Raise UnsupportedImageError if clusters cannot be compressed; name is the image's, for the text."""
    if has_data_file:
        raise UnsupportedImageError(
            f"{name}: an external data file has no compressed clusters; leave out the compression or the data file"
        )


def _require_references(header: Header, name: str, *, backing: Source | None, data_file: DataFile | None) -> None:
    if header.has_data_file and data_file is None:
        raise UnsupportedImageError(f"{name}: has an external data file, which must be opened with it")
    if header.backing_file is not None and backing is None:
        raise UnsupportedImageError(f"{name}: has a backing file, which must be opened with it")
