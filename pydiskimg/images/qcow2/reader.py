# SPDX-License-Identifier: MIT
"""A qcow2 image as a Source."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from functools import partial

from pydiskimg.errors import InvalidImageError, UnsupportedImageError
from pydiskimg.extents import Extent, merged
from pydiskimg.images.qcow2.backing import fill_with_zeros, over, read_behind
from pydiskimg.images.qcow2.cache import Cache
from pydiskimg.images.qcow2.compressed import DecompressInto, decompressor_into
from pydiskimg.images.qcow2.header import Header, read_header
from pydiskimg.images.qcow2.mapping import COMPRESSED, DATA, HOLE, L2_CACHE, MIXED, Mapping, Run
from pydiskimg.images.qcow2.subclusters import fill, fill_over
from pydiskimg.images.qcow2.support import require_readable, warn_of_corruption
from pydiskimg.protocols import FileRange, Source, WritableBuffer, check_range, coarse_extents, file_ranges
from pydiskimg.text import quoted

# Compressed clusters that lie close together in the file are fetched by one read of at most this, gaps included.
BATCH = 1 << 20
GAP = 16 << 10

# Decompressed clusters are kept only when less than the whole cluster was asked for.
CLUSTER_CACHE = 8 << 20
GATES = 61  # locks that share the clusters between them; a prime, as offsets are multiples of powers of two

# Nothing is moved in parts of less than a page, and a list of very small ones would be long.
SMALLEST_RANGE = 4 << 10


class Qcow2Source:
    """A Source over one layer of a qcow2 file, the active one or an internal snapshot, and what lies behind it.

    file is the qcow2 file itself, mapping where its clusters are, backing what is seen where the layer has a HOLE
    (None: zeros), data where the clusters of DATA are (None: in file). All of them stay the caller's and must not
    change meanwhile; close() only calls on_close. cluster_cache is the bytes of decompressed clusters that are kept.
    Made by open_qcow2().
    """

    format = "qcow2"

    def __init__(
        self,
        file: Source,
        mapping: Mapping,
        decompress_into: DecompressInto,
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
        self._decompress_into = decompress_into
        self._clusters: Cache[bytearray] = Cache(cluster_cache)
        self._gates = [threading.Lock() for _ in range(GATES)]
        self._on_close = on_close

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

        Raises InvalidImageError where a table is corrupt.
        """
        own = self.mapping.extents()
        return own if self.backing is None else merged(over(own, self.backing.extents()))

    def coarse_extents(self, unit: int) -> Iterator[Extent]:
        """Yield extents as coarse_extents() of protocols does."""
        own = self.mapping.extents(unit)
        return own if self.backing is None else merged(over(own, coarse_extents(self.backing, unit)))

    def read_into(self, offset: int, buffer: WritableBuffer) -> None:
        """Fill buffer as Source.read_into() does."""
        view = memoryview(buffer)
        check_range(self, offset, len(view))
        batch: list[Run] = []
        for run in self.mapping.coarse_runs(offset, len(view)):
            if batch and not self._joins(batch, run):
                self._read_batch(batch, offset, view)
                batch = []
            part = view[run.start - offset : run.start - offset + run.length]
            if run.kind != COMPRESSED:
                self._read_uncompressed(run, part)
            elif run.length < self.cluster_size:
                self._read_part_of_cluster(run, part)
            else:
                batch.append(run)
        if batch:
            self._read_batch(batch, offset, view)

    def file_ranges(self, offset: int, length: int) -> list[FileRange] | None:
        """Return what FileBackedSource.file_ranges() does; backing files are seen through holes.

        None also where clusters or subclusters are smaller than a page of memory.
        """
        check_range(self, offset, length)
        if self.header.subcluster_size < SMALLEST_RANGE:
            return None
        ranges: list[FileRange] = []
        for run in self.mapping.runs(offset, length):
            found = None
            if run.kind == DATA:
                found = file_ranges(self.data, run.host, run.length)
            elif run.kind == HOLE and self.backing is not None:
                found = file_ranges(self.backing, run.start, run.length)
            if found is None:
                return None
            ranges += found
        return ranges

    @property
    def is_compressed(self) -> bool:
        """True when there is a compressed cluster under the first L2 table: reading then takes processor time."""
        for _, _, table in self.mapping.tables(0, self.size):
            if table is not None:
                return COMPRESSED in table.kinds
        return False

    def close(self) -> None:
        """Call on_close, the first time."""
        on_close, self._on_close = self._on_close, None
        if on_close is not None:
            on_close()

    def __enter__(self) -> Qcow2Source:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def _read_uncompressed(self, run: Run, part: memoryview) -> None:
        if run.kind == DATA:
            self._read_data(run, 0, part)
        elif run.kind == MIXED:
            self._read_mixed(run, part)
        elif run.kind == HOLE and self.backing is not None:
            read_behind(self.backing, run.start, part)
        else:
            fill_with_zeros(part)

    def _read_mixed(self, run: Run, part: memoryview) -> None:
        unit, read_data = self.header.subcluster_size, partial(self._read_data, run)
        if run.start % unit or run.length % unit:
            for each in self.mapping.split(run):
                at = each.start - run.start
                self._read_uncompressed(each, part[at : at + each.length])
        elif self.backing is None or HOLE not in run.subclusters:
            fill(run.subclusters, unit, part, read_data)
        else:
            fill_over(run.subclusters, unit, part, read_data, partial(self._read_behind, run))

    def _read_behind(self, run: Run, at: int, part: memoryview) -> None:
        assert self.backing is not None
        read_behind(self.backing, run.start + at, part)

    def _read_data(self, run: Run, at: int, part: memoryview) -> None:
        """Fill part with what is stored for byte at of run and those behind it."""
        host, guest = run.host + at, run.start + at
        if host + len(part) > self.data.size:
            where = "the file" if self.data is self.file else f"its data file {self.data.name}"
            raise InvalidImageError(
                f"{self.name}: the data of guest bytes {guest} to {guest + len(part)} is at 0x{host:x} "
                f"and ends beyond the end of {where} (0x{self.data.size:x}); the image is truncated or corrupt"
            )
        self.data.read_into(host, part)

    def _joins(self, batch: list[Run], run: Run) -> bool:
        """True when run is a whole compressed cluster and lies in the file shortly after the batch."""
        first, last = batch[0], batch[-1]
        return (
            run.kind == COMPRESSED
            and run.length == self.cluster_size
            and last.host <= run.host <= last.host + last.host_length + GAP
            and run.host + run.host_length - first.host <= BATCH
        )

    def _read_batch(self, batch: list[Run], offset: int, view: memoryview) -> None:
        """Read neighbouring compressed clusters at once, then put what each gives where it belongs in view."""
        start = batch[0].host
        stored = self._stored(start, max(run.host + run.host_length for run in batch))
        for run in batch:
            data = stored[run.host - start : run.host - start + run.host_length]
            self._decompress(run, data, view[run.start - offset : run.start - offset + run.length])

    def _read_part_of_cluster(self, run: Run, part: memoryview) -> None:
        """Decompress a cluster for a part of it, and keep it for the reader of the next part.

        That one may be another thread at the same time: it waits, since to decompress as well would not be sooner.
        """
        # With the length: an entry that tells too few sectors is corrupt, also when another one read enough of them.
        key = run.host << 24 | run.host_length
        with self._gates[run.host % len(self._gates)]:
            cluster = self._clusters.get(key)
            if cluster is None:
                cluster = bytearray(self.cluster_size)
                self._decompress(run, self._stored(run.host, run.host + run.host_length), memoryview(cluster))
                self._clusters.put(key, cluster, len(cluster))
        inside = run.start % self.cluster_size
        part[:] = memoryview(cluster)[inside : inside + len(part)]

    def _stored(self, start: int, end: int) -> memoryview:
        """The bytes from start to end of the file, fewer where it ends: end is a sector's, not the data's."""
        stored = memoryview(bytearray(min(end, self.file.size) - start))
        self.file.read_into(start, stored)
        return stored

    def _decompress(self, run: Run, data: memoryview, cluster: memoryview) -> None:
        """Fill the whole cluster from data."""
        try:
            length = self._decompress_into(data, cluster)
        except ValueError as error:
            raise self._corrupt(run, f"does not decompress ({error})") from error
        if length != self.cluster_size:
            raise self._corrupt(run, f"decompresses to {length} bytes, expected {self.cluster_size}")

    def _corrupt(self, run: Run, what: str) -> InvalidImageError:
        guest = run.start - run.start % self.cluster_size
        return InvalidImageError(
            f"{self.name}: the compressed cluster of guest offset {guest} at 0x{run.host:x} in the file {what}; "
            "the image is truncated or corrupt"
        )


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
    """Return the virtual disk in the qcow2 file; on_close is what its close() calls.

    backing and data_file are what the image names: nothing is opened here. They stay the caller's. snapshot is the
    id or the name of an internal snapshot that is read instead of the active layer; header is what read_header()
    gave for the file, if the caller has that already. cache_share is how many images share the memory for caches.

    Raises InvalidImageError and UnsupportedImageError, each with one sentence (also for a file that is named and was
    not handed in), StorageError when the system refuses; on_close is not called then.
    """
    header = header or read_header(file)
    require_readable(header, file.name)
    warn_of_corruption(header, file.name)
    _require_references(header, file.name, backing=backing, data_file=data_file)
    location = {"l2_cache": L2_CACHE // cache_share}
    if snapshot is not None:
        from pydiskimg.images.qcow2.snapshots import find_snapshot, read_snapshots  # only here: rarely asked for

        found = find_snapshot(read_snapshots(file, header), snapshot, name=file.name)
        location |= {"l1_table_offset": found.l1_table_offset, "l1_size": found.l1_size, "size": found.disk_size}
    if data_file is not None:
        location["data_size"] = data_file.size
    return Qcow2Source(
        file,
        Mapping(file, header, **location),
        decompressor_into(header.compression_type, name=file.name),
        data=data_file,
        backing=backing,
        cluster_cache=CLUSTER_CACHE // cache_share,
        on_close=on_close,
    )


def _require_references(header: Header, name: str, *, backing: Source | None, data_file: Source | None) -> None:
    if header.has_data_file != (data_file is not None):
        if not header.has_data_file:
            raise ValueError(f"{name}: has no external data file, and one was handed in")
        if header.data_file is None:
            raise InvalidImageError(f"{name}: keeps its data in an external file, and does not say in which")
        raise UnsupportedImageError(
            f"{name}: keeps its data in the external file {quoted(header.data_file)}, which was not opened"
        )
    if header.backing_file is not None and backing is None:
        raise UnsupportedImageError(f"{name}: has the backing file {quoted(header.backing_file)}, which was not opened")
