# SPDX-License-Identifier: MIT
"""Read, write (in place, to new clusters, compressed) and zero clusters, those of one L2 table at a time."""

from __future__ import annotations

from pydiskimg.images.qcow2 import layout
from pydiskimg.images.qcow2.write.blank import parts_to_write
from pydiskimg.images.qcow2.write.packing import joined, runs_of, starts_of
from pydiskimg.images.qcow2.write.range_lock import RangeLock
from pydiskimg.images.qcow2.write.shared import NotSharedError
from pydiskimg.startup import TYPE_CHECKING

if TYPE_CHECKING:
    from _thread import LockType
    from array import array
    from collections.abc import Iterator, Sequence

    from pydiskimg.images.qcow2.cluster_reader import ClusterReader
    from pydiskimg.images.qcow2.compress import Compress
    from pydiskimg.images.qcow2.header import Header
    from pydiskimg.images.qcow2.write.l2_map import GuestMap
    from pydiskimg.images.qcow2.write.packing import Packing
    from pydiskimg.images.qcow2.write.shared import Contents
    from pydiskimg.protocols import Disk, Source, Store


class ClusterWriter:
    """Reads and writes in one image; the caller must lock the clusters of a call in ranges.

    lock guards guest_map and packing. compress is for whole clusters that are not mapped yet. data_file has the
    clusters of data, if the image keeps them outside; nothing is written there after the disk's end. size is the
    disk's, in bytes, and changes with it.
    """

    def __init__(
        self,
        store: Store,
        header: Header,
        guest_map: GuestMap,
        packing: Packing,
        lock: LockType,
        *,
        backing: Source | None,
        compress: Compress | None,
        data_file: Disk | None,
    ) -> None:
        self.size = header.size
        self.ranges = RangeLock()
        self._header = header
        self._version = header.version
        self._backing = backing
        self.backed = 0 if backing is None else backing.size  # bytes that may become visible if necessary later
        self.keeps_zeros = False
        self._cluster_size = header.cluster_size
        self._store = store
        self._data: Store | Disk = store if data_file is None else data_file
        self._data_file = data_file
        self._map = guest_map
        self._words = guest_map.words
        self._packing = packing
        self._lock = lock
        self._compress = compress
        self._zeros = bytearray(header.cluster_size)
        self._reader: ClusterReader | None = None

    def read(self, cluster: int, entries: array[int] | None, start: int, view: memoryview) -> None:
        """Fill view from start of the disk on, in the clusters from cluster on, mapped by entries."""
        if self._reader is None:
            # Imported here: most images that are written are new, and not read.
            from pydiskimg.images.qcow2.cluster_reader import ClusterReader
            from pydiskimg.images.qcow2.compressed import ClusterDecoder

            decoder = ClusterDecoder(self._header.compression_type, name=self._store.name)
            data, backing = self._data_file, self._backing
            self._reader = ClusterReader(self._store, self._header, decoder, data=data, backing=backing)
        self._reader.read(self._map.runs(cluster, entries, start, start + len(view)), start, view)

    def after_releases(self) -> None:
        """Note that clusters became free."""
        self._packing.after_releases()

    def write(self, cluster: int, count: int, start: int, view: memoryview) -> None:
        """Write view at start, inside count clusters of one table: unaligned ends first, then the rest at once."""
        size = self._cluster_size
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
            self.write_whole(cluster, view)

    def write_new(self, ranges: Sequence[tuple[int, int, int]], data: memoryview) -> list[tuple[int, int, int]]:
        """Write together the ranges (as for Disk.write_ranges()) that are whole clusters and not mapped yet.

        Returns the others, which are not written.
        """
        size, per_table = self._cluster_size, self._map.entries_per_table
        others: list[tuple[int, int, int]] = []
        tables: dict[int, list[tuple[int, int, int]]] = {}  # by L2 table: (cluster, start, end)
        for offset, start, end in ranges:
            cluster = offset // size
            table, at = divmod(cluster, per_table)
            if (offset | end - start) % size or at * size + end - start > per_table * size:
                others.append((offset, start, end))
            else:
                tables.setdefault(table, []).append((cluster, start, end))
        for parts in tables.values():
            with self._lock:
                is_new = self._map.are_unmapped((cluster, (end - start) // size) for cluster, start, end in parts)
            if is_new:
                self._write_together(parts, data)
            else:
                others += [(cluster * size, start, end) for cluster, start, end in parts]
        return others

    def _write_together(self, parts: list[tuple[int, int, int]], data: memoryview) -> None:
        """Write data[start:end] of parts (cluster, start, end), unmapped clusters of one table, to new host offsets."""
        size = self._cluster_size
        count = sum(end - start for _, start, end in parts) // size
        with self._lock:
            self._make_room()
            first, given, is_blank = self._map.allocate(parts[0][0], count)
        if given < count:  # no contiguous room for all of them
            with self._lock:
                self._map.release(first, given)
            for cluster, start, end in parts:
                self._write_standard(cluster, data[start:end])
            return
        try:
            host = first * size
            for start, end in _joined_parts(parts):
                self._write_allocated(host, data[start:end], is_blank=is_blank)
                host += end - start
            with self._lock:
                self._map.put_new([(cluster, (end - start) // size) for cluster, start, end in parts], first)
        except Exception:  # as in _write_standard()
            with self._lock:
                self._map.release(first, count)
            raise

    def zero(self, start: int, end: int) -> None:
        """Zero [start, end): whole clusters by their entries, parts of others by writing if they have data.

        A data file that is also a raw image of the disk is zeroed itself; unmapped clusters read as zero.
        """
        if self._data_file is not None and self._header.data_file_raw:
            self._data_file.zero(start, end - start)
            return
        size = self._cluster_size
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

    def _write_partial(self, cluster: int, inside: int, view: memoryview) -> None:
        with self._lock:
            entries = self._map.entries_to_write(cluster, 1)
        entry = entries[0] if entries else 0
        if self._words.is_in_place(entry):
            self._data.write((entry & layout.ENTRY_OFFSET) + inside, view)
            return
        whole = self._whole(cluster, entries)
        whole[inside : inside + len(view)] = view
        if len(view) == self._known(cluster) and not entry:
            self._write_new(cluster, memoryview(whole))  # the end of the disk
        else:
            self._write_standard(cluster, memoryview(whole))

    def write_whole(self, cluster: int, view: Contents) -> None:
        """Write whole clusters of one table. Raises NotSharedError for bytes in files whose blocks cannot be shared."""
        size, in_place = self._cluster_size, self._words.is_in_place
        count = len(view) // size
        with self._lock:
            entries = self._map.entries_to_write(cluster, count)
        if entries is None or not any(entries):
            self._write_new(cluster, view)
            return
        start = 0
        while start < count:
            end = start + 1
            if in_place(entries[start]):
                while end < count and entries[end] == entries[end - 1] + size:
                    end += 1
                self._overwrite(entries[start] & layout.ENTRY_OFFSET, view[start * size : end * size])
            elif not entries[start]:
                while end < count and not entries[end]:
                    end += 1
                self._write_new(cluster + start, view[start * size : end * size])
            else:
                while end < count and entries[end] and not in_place(entries[end]):
                    end += 1
                self._write_standard(cluster + start, view[start * size : end * size])
            start = end

    def _known(self, cluster: int) -> int:
        """The bytes of a cluster that are on the disk."""
        return min(self._cluster_size, self.size - cluster * self._cluster_size)

    def _whole(self, cluster: int, entries: array[int] | None) -> bytearray:
        """The disk's bytes of a cluster, zeros after its end."""
        whole = bytearray(self._cluster_size)
        self.read(cluster, entries, cluster * self._cluster_size, memoryview(whole)[: self._known(cluster)])
        return whole

    def _overwrite(self, host: int, view: Contents) -> None:
        """Write to clusters that the image already has."""
        if isinstance(view, memoryview):
            self._data.write(host, view)
        elif not self._store.share(host, view.ranges):
            raise NotSharedError

    def _write_new(self, cluster: int, view: Contents) -> None:
        """Write clusters that are not mapped yet."""
        if self._compress is None or not isinstance(view, memoryview):
            self._write_standard(cluster, view)
        else:
            self._write_compressed(self._compress, cluster, view)

    def _write_standard(self, cluster: int, view: Contents) -> None:
        """Write clusters to new host offsets."""
        size = self._cluster_size
        while len(view):
            first, count, is_blank = self._allocate(cluster, len(view) // size)
            try:
                self._write_allocated(first * size, view[: count * size], is_blank=is_blank)
                with self._lock:
                    self._map.put(cluster, self._words.data(first, count))
            except Exception:  # after a signal they may or may not be mapped: wasting them is safer
                with self._lock:
                    self._map.release(first, count)
                raise
            cluster, view = cluster + count, view[count * size :]

    def _allocate(self, cluster: int, most: int) -> tuple[int, int, bool]:
        with self._lock:
            self._make_room()
            return self._map.allocate(cluster, most)

    def _write_allocated(self, host: int, view: Contents, *, is_blank: bool) -> None:
        """Write to new clusters; where they are blank, the zeros at both ends of each stay a hole in the file."""
        if not isinstance(view, memoryview):
            self._overwrite(host, view)
            return
        if not is_blank or self.keeps_zeros:
            self._write_data(host, view)
            return
        end = 0
        for start, end in parts_to_write(view, self._cluster_size):
            self._data.write(host + start, view[start:end])
        if end < len(view):
            self._store.extend(host + len(view))

    def _write_data(self, host: int, view: memoryview) -> None:
        """Write to a host offset; the padding of the disk's last cluster is not written to an external data file."""
        self._data.write(host, view if self._data_file is None else view[: max(0, self.size - host)])

    def _write_compressed(self, compress: Compress, cluster: int, view: memoryview) -> None:
        """Store clusters compressed; zeros, which are those that do not shrink, are not stored."""
        size = self._cluster_size
        indices: list[int] = []
        pieces: list[bytes] = []
        kept: list[int] = []
        for index in range(len(view) // size):
            part = view[index * size : (index + 1) * size]
            # Version 2 has no entry for zeros over a backing file: there they are compressed like all others.
            is_left_out = not self.keeps_zeros and (self._version >= 3 or not self._has_backing(cluster + index))
            if is_left_out and self._zeros == part:
                continue
            piece = compress(part)
            if len(piece) < size:
                indices.append(index)
                pieces.append(piece)
            else:
                kept.append(index)
        if len(kept) + len(pieces) < len(view) // size:
            self.zero(cluster * size, min(self.size, cluster * size + len(view)))
        if pieces:
            kept += self._write_packed(cluster, indices, pieces)
        for index, end in runs_of(sorted(kept)):
            self._write_standard(cluster + index, view[index * size : end * size])

    def _write_packed(self, cluster: int, indices: list[int], pieces: list[bytes]) -> list[int]:
        """Return the indices of clusters whose host offset does not fit in an entry for a compressed cluster."""
        with self._lock:
            self._make_room()
            offsets = self._packing.offsets_for([len(piece) for piece in pieces])
        refused = []
        waiting = set(range(len(pieces)))  # placed and not mapped yet
        try:
            for offset, data in joined(offsets, pieces):
                self._data.write(offset, data)
            with self._lock:
                for (start, end), at in zip(runs_of(indices), starts_of(indices), strict=True):
                    numbers = range(at, at + end - start)
                    new = [self._map.compressed_entry(offsets[number], len(pieces[number])) for number in numbers]
                    self._map.put(cluster + start, self._words.compressed([entry or 0 for entry in new]))
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

    def _zero_partial(self, start: int, end: int) -> None:
        """Zero bytes inside one cluster."""
        cluster, inside = divmod(start, self._cluster_size)
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
                    self._map.put(first, self._words.unmapped(last - first))
                return
            if self._version >= 3:
                self._map.put(first, self._words.zero(last - first))
                return
        zeros = memoryview(self._zeros)
        for cluster in range(first, last):
            self._write_whole_uncompressed(cluster, zeros)

    def _write_whole_uncompressed(self, cluster: int, view: memoryview) -> None:
        with self._lock:
            entries = self._map.entries_to_write(cluster, 1)
        if entries and self._words.is_in_place(entries[0]):
            self._data.write(entries[0] & layout.ENTRY_OFFSET, view)
        else:
            self._write_standard(cluster, view)

    def _has_backing(self, cluster: int) -> bool:
        """True if other bytes may be visible through an unmapped cluster."""
        return cluster * self._cluster_size < self.backed

    def _make_room(self) -> None:
        if self._map.is_crowded:
            self._map.commit()


def _joined_parts(parts: list[tuple[int, int, int]]) -> Iterator[tuple[int, int]]:
    """Yield [start, end) of parts (cluster, start, end), in one where they follow each other."""
    first = after = parts[0][1]
    for _, start, end in parts:
        if start != after:
            yield first, after
            first = start
        after = end
    yield first, after
