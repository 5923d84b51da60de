# SPDX-License-Identifier: MIT
"""A qcow2 image as a Disk: written at random, by whichever program it was made."""

from __future__ import annotations

import threading
from array import array

from pydiskimg.errors import UnsupportedImageError, closed_error, read_only_error
from pydiskimg.extents import Extent, Kind, merged
from pydiskimg.images.qcow2 import layout
from pydiskimg.images.qcow2.compress import compressor
from pydiskimg.images.qcow2.header import read_header, require_changeable
from pydiskimg.images.qcow2.write.create import change_header, l1_entries, round_size
from pydiskimg.images.qcow2.write.l2_map import GuestMap, is_in_place, standard_entries
from pydiskimg.images.qcow2.write.packing import Packing, joined, runs_of, starts_of
from pydiskimg.images.qcow2.write.preallocate import preallocate_clusters
from pydiskimg.images.qcow2.write.range_lock import RangeLock
from pydiskimg.images.qcow2.write.refcounts import Refcounts
from pydiskimg.protocols import Disk, check_range
from pydiskimg.startup import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pydiskimg.images.qcow2.cluster_reader import ClusterReader
    from pydiskimg.images.qcow2.compress import Compress
    from pydiskimg.images.qcow2.header import Header
    from pydiskimg.protocols import Buffer, Source, Store, WritableBuffer


class Qcow2Disk(Disk):
    """A Disk over a qcow2 image in a Store; both stay the caller's. Made by open_qcow2_disk().

    Safe from several threads; the image is whole whenever the machine stops, and holds all that was written before
    the last flush(). Memory is bounded, whatever the image's size is: some 32 MiB of tables, and the L1 and the
    refcount table.
    """

    name: str
    size: int
    reads_as_zero: bool
    format = "qcow2"
    sector_size = 512

    def __init__(self, store: Store, header: Header, *, backing: Source | None, compress: Compress | None) -> None:
        self.name = store.name
        self.cluster_size = header.cluster_size
        self.size = header.size
        self.version = header.version
        self.backing = backing
        self._closed = self._read_only = False
        self._store = store
        self._compress = compress
        self._autoclear = header.autoclear_features
        self._lock = threading.Lock()
        self._ranges = RangeLock()
        self._refcounts = Refcounts(store, header)
        self._packing = Packing(self._refcounts, header.cluster_size)
        self._map = GuestMap(store, header, self._refcounts, on_release=self._packing.after_releases)
        self._header = header
        self._reader: ClusterReader | None = None
        self._zeros = bytearray(header.cluster_size)
        self.reads_as_zero = backing is None and self._map.is_empty

    @property
    def unit(self) -> int:
        return self.cluster_size

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
                self._read(cluster, entries, start, view[start - offset : end - offset])

    def write(self, offset: int, data: Buffer) -> None:
        self._require_open(writing=True)
        view = memoryview(data)
        check_range(self, offset, len(view))
        if not view:
            return
        with self._ranges.writing(*self._clusters_around(offset, len(view))):
            self._begin()
            for cluster, count, start, end in self._by_table(offset, len(view)):
                self._write_in_table(cluster, count, start, view[start - offset : end - offset])

    def zero(self, offset: int, length: int) -> None:
        self._require_open(writing=True)
        check_range(self, offset, length)
        if not length:
            return
        with self._ranges.writing(*self._clusters_around(offset, length)):
            self._begin()
            self._zero(offset, offset + length)

    def flush(self) -> None:
        self._require_open()
        if self._read_only:
            return
        with self._lock:
            self._pad()
            self._map.flush()

    def close(self) -> None:
        """Refuse everything from now on: the store goes, which stays the caller's; flushes nothing."""
        self._closed = True

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
        if size <= old:
            return
        l1_size = l1_entries(size, self.cluster_size, name=self.name)
        self._begin()
        used = -(-old // (self._map.entries_per_table * self.cluster_size))
        with self._lock:
            if any(self._map.has_table(index) for index in range(used, self._map.l1_size)):
                raise UnsupportedImageError(
                    f"{self.name}: cannot be made larger: the state of a saved machine lies beyond the disk's end; "
                    "delete the snapshot that it belongs to"
                )
            self._map.grow(old, l1_size)
        # What lies beyond the old end in its own table, and what the backing file has there, is zero before the
        # header tells of the new size: a crash must not show it.
        span = self._map.entries_per_table * self.cluster_size
        backing_size = self.backing.size if self.backing is not None else 0
        end = min(size, max(used * span, backing_size))
        self.size = size
        try:
            if end > old:
                self.zero(old, end - old)
            with self._lock:
                self._map.grow(size, l1_size)
        except BaseException:
            self.size = old
            raise

    def preallocate(self, offset: int, length: int, *, full: bool = False) -> None:
        """Store whole clusters around [offset, offset + length) as zeros where nothing was written yet; see flush().

        The file becomes longer without being written, or is written where full. What was zeroed is stored, too; what a
        backing file shows there is hidden. Raises as write().
        """
        self._require_open(writing=True)
        check_range(self, offset, length)
        if not length:
            return
        with self._ranges.writing(*self._clusters_around(offset, length)):
            self._begin()
            for cluster, count, _, _ in self._by_table(offset, length):
                with self._lock:
                    preallocate_clusters(self._store, self._map, self._refcounts, cluster, count, full=full)
                    self._pad()

    def _require_open(self, *, writing: bool = False) -> None:
        if self._closed:
            raise closed_error(self.name)
        if writing and self._read_only:
            raise read_only_error(self.name)

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
        if not self._autoclear:
            return
        with self._lock:
            change_header(self._store, autoclear_features=0)
            self._store.flush()
            self._autoclear = 0

    def _make_room(self) -> None:
        if self._map.is_crowded:
            self._map.commit()

    def _read(self, cluster: int, entries: array[int] | None, start: int, view: memoryview) -> None:
        """Fill view from start of the disk on, in the clusters from cluster on, which entries map."""
        if self._reader is None:
            # Only here: most images that are written are new, and not read.
            from pydiskimg.images.qcow2.cluster_reader import ClusterReader
            from pydiskimg.images.qcow2.compressed import ClusterDecoder

            decoder = ClusterDecoder(self._header.compression_type, name=self.name)
            self._reader = ClusterReader(self._store, self._header, decoder, backing=self.backing)
        self._reader.read(self._map.runs(cluster, entries, start, start + len(view)), start, view)

    def _write_in_table(self, cluster: int, count: int, start: int, view: memoryview) -> None:
        """Write view at start, inside of count clusters of one table: ragged ends first, then the rest at once."""
        size = self.cluster_size
        first, end = cluster * size, (cluster + count) * size
        stop = start + len(view)
        if start > first:
            some = min(first + size, stop)
            self._write_partial(cluster, start - first, view[: some - start])
            cluster, view, start = cluster + 1, view[some - start :], some
        if len(view) and stop < end:
            last = stop // size
            at = max(0, last * size - start)
            self._write_partial(last, 0, view[at:])
            view = view[:at]
        if len(view):
            self._write_whole(cluster, view)

    def _write_partial(self, cluster: int, inside: int, view: memoryview) -> None:
        with self._lock:
            entries = self._map.entries_to_write(cluster, 1)
        entry = entries[0] if entries else 0
        if is_in_place(entry):
            self._store.write((entry & layout.ENTRY_OFFSET) + inside, view)
            return
        whole = bytearray(self.cluster_size)
        start = cluster * self.cluster_size
        known = min(self.cluster_size, self.size - start)
        self._read(cluster, entries, start, memoryview(whole)[:known])
        whole[inside : inside + len(view)] = view
        if len(view) == known and not entry:
            self._write_new(cluster, memoryview(whole))  # the end of the disk
        else:
            self._write_standard(cluster, memoryview(whole))

    def _write_whole(self, cluster: int, view: memoryview) -> None:
        """Write whole clusters of one table."""
        size = self.cluster_size
        count = len(view) // size
        with self._lock:
            entries = self._map.entries_to_write(cluster, count)
        if entries is None or not any(entries):
            self._write_new(cluster, view)
            return
        start = 0
        while start < count:
            end = start + 1
            if is_in_place(entries[start]):
                while end < count and entries[end] == entries[end - 1] + size:
                    end += 1
                self._store.write(entries[start] & layout.ENTRY_OFFSET, view[start * size : end * size])
            elif not entries[start]:
                while end < count and not entries[end]:
                    end += 1
                self._write_new(cluster + start, view[start * size : end * size])
            else:
                while end < count and entries[end] and not is_in_place(entries[end]):
                    end += 1
                self._write_standard(cluster + start, view[start * size : end * size])
            start = end

    def _write_new(self, cluster: int, view: memoryview) -> None:
        """Write clusters that are not mapped yet."""
        if self._compress is None:
            self._write_standard(cluster, view)
        else:
            self._write_compressed(self._compress, cluster, view)

    def _write_standard(self, cluster: int, view: memoryview) -> None:
        """Write clusters to new host offsets."""
        size = self.cluster_size
        while len(view):
            with self._lock:
                self._make_room()
                first, count = self._refcounts.allocate(len(view) // size)
            try:
                self._store.write(first * size, view[: count * size])
                with self._lock:
                    self._map.put(cluster, standard_entries(first, count, size))
            except Exception:  # after a signal they may be mapped or not: better wasted
                with self._lock:
                    self._refcounts.release(first, count)
                raise
            cluster, view = cluster + count, view[count * size :]

    def _write_compressed(self, compress: Compress, cluster: int, view: memoryview) -> None:
        """Store clusters compressed: nothing for zeros, as they are those that do not become smaller."""
        size = self.cluster_size
        indices: list[int] = []
        pieces: list[bytes] = []
        kept: list[int] = []
        for index in range(len(view) // size):
            part = view[index * size : (index + 1) * size]
            # Version 2 has no entry for zeros in front of a backing file: there they are compressed like all else.
            if self._zeros == part and (self.version >= 3 or not self._has_backing(cluster + index)):
                continue
            piece = compress(part)
            if len(piece) < size:
                indices.append(index)
                pieces.append(piece)
            else:
                kept.append(index)
        if len(kept) + len(pieces) < len(view) // size:
            self._zero(cluster * size, min(self.size, cluster * size + len(view)))
        if pieces:
            kept += self._write_packed(cluster, indices, pieces)
        for index, end in runs_of(sorted(kept)):
            self._write_standard(cluster + index, view[index * size : end * size])

    def _write_packed(self, cluster: int, indices: list[int], pieces: list[bytes]) -> list[int]:
        """Returns the indices of clusters whose host offset no entry for a compressed cluster can name."""
        with self._lock:
            self._make_room()
            offsets = self._packing.offsets_for([len(piece) for piece in pieces])
        refused = []
        waiting = set(range(len(pieces)))  # placed and not mapped yet
        try:
            for offset, data in joined(offsets, pieces):
                self._store.write(offset, data)
            with self._lock:
                for (start, end), at in zip(runs_of(indices), starts_of(indices), strict=True):
                    numbers = range(at, at + end - start)
                    new = [self._map.compressed_entry(offsets[number], len(pieces[number])) for number in numbers]
                    self._map.put(cluster + start, array("Q", (entry or 0 for entry in new)))
                    waiting.difference_update(number for number, entry in zip(numbers, new, strict=True) if entry)
                    refused += [indices[number] for number, entry in zip(numbers, new, strict=True) if not entry]
        except Exception:  # as in _write_standard()
            self._take_back(offsets, pieces, waiting)
            raise
        self._take_back(offsets, pieces, waiting)
        return refused

    def _take_back(self, offsets: list[int], pieces: list[bytes], numbers: set[int]) -> None:
        with self._lock:
            for number in numbers:
                self._packing.take_back(offsets[number], len(pieces[number]))

    def _zero(self, start: int, end: int) -> None:
        """Zero [start, end): whole clusters by their entries, the rest of others by writing where there is data."""
        size = self.cluster_size
        first, last = -(-start // size), end // size
        if end == self.size:
            last = -(-end // size)
        if first > last:
            self._zero_partial(start, end)
            return
        if start < first * size:
            self._zero_partial(start, min(end, first * size))
        while first < last:
            stop = min(last, (first // self._map.entries_per_table + 1) * self._map.entries_per_table)
            self._zero_clusters(first, stop)
            first = stop
        if start <= last * size < end:
            self._zero_partial(last * size, end)

    def _zero_partial(self, start: int, end: int) -> None:
        """Zero bytes inside of one cluster."""
        cluster, inside = divmod(start, self.cluster_size)
        with self._lock:
            entries = self._map.entries(cluster, 1)
        entry = entries[0] if entries else 0
        if entry & layout.L2_ZERO and not entry & layout.L2_COMPRESSED:
            return
        if not entry and not self._has_backing(cluster):
            return
        self._write_partial(cluster, inside, memoryview(bytes(end - start)))

    def _zero_clusters(self, first: int, last: int) -> None:
        """Zero whole clusters of one table."""
        with self._lock:
            self._make_room()
            entries = self._map.entries(first, last - first)
            backed = [self._has_backing(cluster) for cluster in (first, last - 1)]
            if not any(backed):
                if entries is not None and any(entries):
                    self._map.put(first, array("Q", bytes(8 * (last - first))))
                return
            if self.version >= 3:
                self._map.put(first, array("Q", [layout.L2_ZERO]) * (last - first))
                return
        zeros = memoryview(self._zeros)
        for cluster in range(first, last):
            self._write_whole_uncompressed(cluster, zeros)

    def _write_whole_uncompressed(self, cluster: int, view: memoryview) -> None:
        with self._lock:
            entries = self._map.entries_to_write(cluster, 1)
        if entries and is_in_place(entries[0]):
            self._store.write(entries[0] & layout.ENTRY_OFFSET, view)
        else:
            self._write_standard(cluster, view)

    def _has_backing(self, cluster: int) -> bool:
        """True when something may shine through an unmapped cluster."""
        return self.backing is not None and cluster * self.cluster_size < self.backing.size

    def _pad(self) -> None:
        """Let the file end with a cluster, so that the last one can be read whole."""
        end = self._refcounts.end * self.cluster_size
        if self._store.size < end:
            self._store.write(end - 1, b"\0")

    def _extents(self) -> Iterator[Extent]:
        per_table, size = self._map.entries_per_table, self.cluster_size
        span = per_table * size
        for start in range(0, self.size, span):
            end = min(self.size, start + span)
            count = -(-(end - start) // size)
            with self._lock:
                entries = self._map.entries(start // size, count)
            if entries is None:
                yield from self._unmapped(start, end)
                continue
            for index, entry in enumerate(entries):
                first, last = start + index * size, min(end, start + (index + 1) * size)
                if not entry & (layout.ENTRY_OFFSET | layout.L2_COMPRESSED | layout.L2_ZERO):
                    yield from self._unmapped(first, last)
                elif entry & layout.L2_ZERO and not entry & layout.L2_COMPRESSED:
                    yield Extent(first, last - first, Kind.ZERO)
                else:
                    yield Extent(first, last - first, Kind.DATA)

    def _unmapped(self, start: int, end: int) -> Iterator[Extent]:
        behind = min(end, max(start, self.backing.size)) if self.backing is not None else start
        yield Extent(start, behind - start, Kind.DATA)
        yield Extent(behind, end - behind, Kind.HOLE)


def open_qcow2_disk(store: Store, *, backing: Source | None = None, compress: bool = False) -> Qcow2Disk:
    """Return the virtual disk of the qcow2 image in store, to be read and written.

    backing is what its backing file holds, to be handed in when the image names one. compress compresses whole
    clusters that write() gets where nothing is mapped yet; everything else is stored as it is.
    Raises InvalidImageError, UnsupportedImageError for what is not written here, StorageError.
    """
    header = read_header(store)
    _require_writable(header, store.name, has_backing=backing is not None)
    return Qcow2Disk(
        store,
        header,
        backing=backing,
        compress=compressor(header.compression_type, name=store.name) if compress else None,
    )


def _require_writable(header: Header, name: str, *, has_backing: bool) -> None:
    require_changeable(header, name)
    for present, what in (
        (header.has_data_file, "an external data file"),
        (header.extended_l2, "extended L2 entries (subclusters)"),
    ):
        if present:
            raise UnsupportedImageError(
                f"{name}: has {what}, and such images are read but not written; "
                "convert it with: qemu-img convert -O qcow2 OLD NEW"
            )
    if header.backing_file is not None and not has_backing:
        raise UnsupportedImageError(f"{name}: has a backing file, which must be opened with it")
