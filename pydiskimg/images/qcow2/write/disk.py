# SPDX-License-Identifier: MIT
"""A qcow2 image as a Disk: written at random, by whichever program it was made."""

from __future__ import annotations

import threading

from pydiskimg.errors import UnsupportedImageError, closed_error, read_only_error
from pydiskimg.extents import Extent, Kind, merged
from pydiskimg.images.qcow2 import layout
from pydiskimg.images.qcow2.compress import compressor
from pydiskimg.images.qcow2.header import read_header, require_changeable
from pydiskimg.images.qcow2.runs import HOLE, ZERO, MixedRun
from pydiskimg.images.qcow2.runs_in_table import split
from pydiskimg.images.qcow2.write.clusters import ClusterWriter
from pydiskimg.images.qcow2.write.create import change_header, l1_entries, round_size
from pydiskimg.images.qcow2.write.data_file import StoreWithData
from pydiskimg.images.qcow2.write.l2_map import GuestMap
from pydiskimg.images.qcow2.write.packing import Packing
from pydiskimg.images.qcow2.write.preallocate import at_end_of, inside, preallocate_clusters
from pydiskimg.images.qcow2.write.range_lock import RangeLock
from pydiskimg.images.qcow2.write.refcounts import Refcounts
from pydiskimg.images.qcow2.write.subclusters import SubclusterWriter
from pydiskimg.protocols import Disk, check_range
from pydiskimg.startup import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pydiskimg.images.qcow2.compress import Compress
    from pydiskimg.images.qcow2.header import Header
    from pydiskimg.images.qcow2.write.bitmaps import RecordedBitmaps
    from pydiskimg.images.qcow2.write.data_file import DataFile
    from pydiskimg.protocols import Buffer, Source, Store, WritableBuffer

_SMALLEST_UNIT = 4 << 10  # zeros are not looked for in less


class Qcow2Disk(Disk):
    """A Disk over a qcow2 image in a Store; both stay the caller's. Made by open_qcow2_disk().

    Safe from several threads; the image is whole whenever the machine stops, and holds all that was written before the
    last flush(). Memory is bounded: some 32 MiB of tables, the L1 and the refcount table, and the bits of bitmaps.
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
        store = store if data_file is None else StoreWithData(store, data_file)
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
        self._lock = threading.Lock()
        self._ranges = RangeLock()
        self._refcounts = Refcounts(store, header)
        packing = Packing(self._refcounts, header.cluster_size)
        self._map = GuestMap(store, header, self._refcounts, data_file=data_file, on_release=packing.after_releases)
        self._header = header
        self._clusters = (SubclusterWriter if header.extended_l2 else ClusterWriter)(
            store,
            header,
            self._map,
            packing,
            self._lock,
            backing=backing,
            compress=compress,
            data_file=data_file,
        )
        self._unit = header.cluster_size if compress else max(header.subcluster_size, _SMALLEST_UNIT)
        self._unit = min(self._unit, header.cluster_size)
        self.reads_as_zero = backing is None and self._map.is_empty

    @property
    def unit(self) -> int:
        return self._unit

    def extents(self) -> Iterator[Extent]:
        """Yield the extents; what is not stored is DATA as far as there is a backing file, and a HOLE beyond."""
        self._require_open()
        return merged(self._extents())

    def read_into(self, offset: int, buffer: WritableBuffer) -> None:
        self._require_open()
        view = memoryview(buffer)
        check_range(self, offset, len(view))
        with self._ranges.reading(*self._clusters_around(offset, len(view))):
            for cluster, count, start, end in self._by_table(offset, len(view)):
                with self._lock:
                    entries = self._map.entries(cluster, count)
                self._clusters.read(cluster, entries, start, view[start - offset : end - offset])

    def write(self, offset: int, data: Buffer) -> None:
        self._require_open(writing=True)
        view = memoryview(data)
        check_range(self, offset, len(view))
        if not view:
            return
        self._record(offset, len(view))
        with self._ranges.writing(*self._clusters_around(offset, len(view))):
            self._begin()
            for cluster, count, start, end in self._by_table(offset, len(view)):
                self._clusters.write(cluster, count, start, view[start - offset : end - offset])

    def zero(self, offset: int, length: int) -> None:
        self._require_open(writing=True)
        check_range(self, offset, length)
        if not length:
            return
        self._record(offset, length)
        with self._ranges.writing(*self._clusters_around(offset, length)):
            self._begin()
            self._clusters.zero(offset, offset + length)

    def flush(self) -> None:
        self._require_open()
        if self._read_only:
            return
        with self._lock:
            self._pad()
            self._map.flush()
            if self._bitmaps is not None and self._bitmaps.save():
                self._map.flush()  # what they had is free

    def give_back(self) -> None:
        """Flush, and make holes in the image's file of all its clusters that are free."""
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
        """Refuse everything from now on: the store goes, which stays the caller's; flushes nothing."""
        self._closed = True

    def will_stand_on(self, size: int) -> None:
        """Store zeros so that they hide another backing file, of size bytes, which the image is going to name."""
        self._clusters.backed = max(self._clusters.backed, size)

    def keep_zeros(self) -> None:
        """Store zeros that write() gets as they are, compressed where all else is."""
        self._clusters.keeps_zeros = True

    def forbid_writing(self) -> None:
        """Refuse what changes the image, as the store was opened for reading only."""
        self._read_only = True

    def drop_cache(self) -> None:
        self._require_open()
        with self._lock:
            self._map.clear_cache()
        self._store.drop_cache()

    def grow(self, size: int) -> None:
        """Make the virtual disk size bytes large, rounded up to 512, where it is smaller; what is new reads as zero.

        Nothing else may be called meanwhile. Raises DoesNotFitError when clusters of this size cannot map so much.
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
            self._map.grow(old, l1_size)
        # What lies beyond the old end in its table, and in the backing file, is zero before the header tells of the new
        # size: a crash must not show it.
        span = self._map.entries_per_table * self.cluster_size
        backing_size = self.backing.size if self.backing is not None else 0
        end = min(size, max(used * span, backing_size))
        self.size = self._clusters.size = size
        try:
            if end > old:
                self.zero(old, end - old)
            with self._lock:
                self._map.grow(size, l1_size)
        except BaseException:
            self.size = self._clusters.size = old
            raise
        if self._kept:
            self.bitmaps.resize(size)

    def preallocate(self, offset: int, length: int, *, full: bool = False) -> None:
        """Store whole clusters around [offset, offset + length) as zeros where nothing was written yet; see flush().

        The file becomes longer without being written, or is written where full. What was zeroed is stored, too; what a
        backing file shows there is hidden. Raises as write().
        """
        self._require_open(writing=True)
        check_range(self, offset, length)
        if not length:
            return
        if self.data_file is None:
            allocate = at_end_of(self._store, self._refcounts, self.cluster_size, full=full)
        else:
            allocate = inside(self.data_file, self.size, self.cluster_size, full=full)
        with self._ranges.writing(*self._clusters_around(offset, length)):
            self._begin()
            for cluster, count, _, _ in self._by_table(offset, length):
                with self._lock:
                    preallocate_clusters(self._map, cluster, count, allocate)
                    self._pad()

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
        """Before the first change: what only a program that knows an autoclear bit keeps right is no longer."""
        if self.data_file is not None and self.data_file.size < self.size:
            self.data_file.grow(self.size)
        if not self._autoclear:
            return
        with self._lock:
            change_header(self._store, autoclear_features=self._kept | self._raw_bit)
            self._store.flush()
            self._autoclear = 0

    def _pad(self) -> None:
        """Let the file end with a cluster, so that the last one can be read whole."""
        end = self._refcounts.end * self.cluster_size
        if self._store.size < end:
            self._store.write(end - 1, b"\0")

    def _extents(self) -> Iterator[Extent]:
        span = self._map.entries_per_table * self.cluster_size
        for start in range(0, self.size, span):
            end = min(self.size, start + span)
            cluster = start // self.cluster_size
            with self._lock:
                entries = self._map.entries(cluster, -(-(end - start) // self.cluster_size))
            for coarse in self._map.runs(cluster, entries, start, end):
                runs = split(coarse, self._header.subcluster_size) if isinstance(coarse, MixedRun) else (coarse,)
                for run in runs:
                    if run.kind == HOLE:
                        yield from self._unmapped(run.start, run.start + run.length)
                    else:
                        yield Extent(run.start, run.length, Kind.ZERO if run.kind == ZERO else Kind.DATA)

    def _unmapped(self, start: int, end: int) -> Iterator[Extent]:
        behind = min(end, max(start, self.backing.size)) if self.backing is not None else start
        yield Extent(start, behind - start, Kind.DATA)
        yield Extent(behind, end - behind, Kind.HOLE)


def open_qcow2_disk(
    store: Store, *, backing: Source | None = None, data_file: DataFile | None = None, compress: bool = False
) -> Qcow2Disk:
    """Return the virtual disk of the qcow2 image in store, to be read and written.

    backing and data_file are what the image names, to be handed in; both stay the caller's. The data file is made as
    large as the disk when something is written. compress compresses whole
    clusters that write() gets where nothing is mapped yet; everything else is stored as it is.
    Raises InvalidImageError, UnsupportedImageError for what is not written here, StorageError.
    """
    header = read_header(store)
    require_changeable(header, store.name)
    _require_references(header, store.name, backing=backing, data_file=data_file)
    if compress:
        require_compressible(store.name, has_data_file=header.has_data_file)
    by = compressor(header.compression_type, name=store.name) if compress else None
    return Qcow2Disk(store, header, backing=backing, data_file=data_file, compress=by)


def require_compressible(name: str, *, has_data_file: bool) -> None:
    """Raise UnsupportedImageError where clusters cannot be compressed; name is the image's, for the text."""
    if has_data_file:
        raise UnsupportedImageError(
            f"{name}: an external data file has no compressed clusters; leave out the compression or the data file"
        )


def _require_references(header: Header, name: str, *, backing: Source | None, data_file: DataFile | None) -> None:
    if header.has_data_file and data_file is None:
        raise UnsupportedImageError(f"{name}: has an external data file, which must be opened with it")
    if header.backing_file is not None and backing is None:
        raise UnsupportedImageError(f"{name}: has a backing file, which must be opened with it")
