# SPDX-License-Identifier: MIT
"""Turn runs into bytes: clusters are read from the file, decompressed, zero, or taken from the backing file."""

from __future__ import annotations

from _thread import allocate_lock

from pydiskimg.errors import InvalidImageError
from pydiskimg.images.qcow2.backing import fill_with_zeros, read_behind
from pydiskimg.images.qcow2.cache import Cache
from pydiskimg.images.qcow2.runs import COMPRESSED, DATA, HOLE, MixedRun, Run
from pydiskimg.startup import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

    from pydiskimg.images.qcow2.compressed import ClusterDecoder
    from pydiskimg.images.qcow2.header import Header
    from pydiskimg.protocols import Addressable, Source

# Compressed clusters that are close together in the file are read with one call of at most this size, including gaps;
# it also limits the clusters with mixed subclusters in one step.
BATCH = 1 << 20
GAP = 16 << 10

GATES = 61  # locks that are shared by the clusters; a prime, because offsets are multiples of powers of two


class ClusterReader:
    """Reads the runs of one layer of an image; safe from several threads.

    file is the qcow2 file itself, data the file with the clusters of DATA (None: file), backing the source below a HOLE
    (None: zeros). cache is the number of bytes of cached decompressed clusters; None is for a file whose clusters
    change.
    """

    def __init__(
        self,
        file: Addressable,
        header: Header,
        decoder: ClusterDecoder,
        *,
        data: Source | None = None,
        backing: Source | None = None,
        cache: int | None = None,
    ) -> None:
        self._file = file
        self._data: Addressable = file if data is None else data
        self._backing = backing
        self._cluster_size = header.cluster_size
        self._subcluster_size = header.subcluster_size
        self._decoder = decoder
        self._clusters: Cache[bytearray] | None = None if cache is None else Cache(cache)
        self._gates = [allocate_lock() for _ in range(GATES)]

    def read(self, runs: Iterable[Run], offset: int, view: memoryview) -> None:
        """Fill view, which begins at offset of the virtual disk, from runs, which cover it in order.

        Raises InvalidImageError if the image is corrupt, and what reading raises.
        """
        batch: list[Run] = []
        for run in runs:
            if batch and not self._joins(batch, run):
                self._read_batch(batch, offset, view)
                batch = []
            part = view[run.start - offset : run.start - offset + run.length]
            if run.kind != COMPRESSED:
                self._read_uncompressed(run, part)
            elif run.length < self._cluster_size:
                self._read_part_of_cluster(run, part)
            else:
                batch.append(run)
        if batch:
            self._read_batch(batch, offset, view)

    def _read_uncompressed(self, run: Run, part: memoryview) -> None:
        if run.kind == DATA:
            self.read_data(run.start, run.host, part)
        elif isinstance(run, MixedRun):
            self._read_mixed(run, part)
        elif run.kind == HOLE and self._backing is not None:
            read_behind(self._backing, run.start, part)
        else:
            fill_with_zeros(part)

    def _read_mixed(self, run: MixedRun, part: memoryview) -> None:
        """Read many whole clusters at once, and partly wanted ones by their runs."""
        from pydiskimg.images.qcow2.mixed_runs import split  # imported here: few images have subclusters

        size, start, stop = self._cluster_size, run.start, run.start + run.length
        most = max(BATCH, size)
        while start < stop:
            inside = start % size
            is_ragged = inside or stop - start < size
            end = min(start - inside + size if is_ragged else start + most, stop if is_ragged else stop - stop % size)
            some, view = run.between(start, end, size), part[start - run.start : end - run.start]
            if is_ragged:
                for each in split(some, self._subcluster_size):
                    self._read_uncompressed(each, view[each.start - start : each.start - start + each.length])
            else:
                self._read_whole(some, view)
            start = end

    def _read_whole(self, run: MixedRun, part: memoryview) -> None:
        from pydiskimg.images.qcow2.subclusters import fill, fill_over

        def read_stored(at: int, host: int, some: memoryview) -> None:
            self.read_data(run.start + at, host, some)

        if self._backing is None:
            fill(run, self._subcluster_size, part, read_stored)
            return
        backing = self._backing

        def read_holes(at: int, some: memoryview) -> None:
            read_behind(backing, run.start + at, some)

        fill_over(run, self._subcluster_size, part, read_stored, read_holes)

    def read_data(self, guest: int, host: int, part: memoryview) -> None:
        """Fill part, for the bytes of the virtual disk from guest on, from the host offset on."""
        if host + len(part) > self._data.size:
            where = "the file" if self._data is self._file else f"its data file {self._data.name}"
            raise InvalidImageError(
                f"{self._file.name}: the data of guest bytes {guest} to {guest + len(part)} is at 0x{host:x} "
                f"and ends beyond the end of {where} (0x{self._data.size:x}); the image is truncated or corrupt"
            )
        self._data.read_into(host, part)

    def _joins(self, batch: list[Run], run: Run) -> bool:
        """True if run is a whole compressed cluster shortly after the batch in the file."""
        first, last = batch[0], batch[-1]
        return (
            run.kind == COMPRESSED
            and run.length == self._cluster_size
            and last.host <= run.host <= last.host + last.host_length + GAP
            and run.host + run.host_length - first.host <= BATCH
        )

    def _read_batch(self, batch: list[Run], offset: int, view: memoryview) -> None:
        """Read neighbouring compressed clusters at once, then put the result of each into its part of view."""
        start = batch[0].host
        stored = self._stored(start, max(run.host + run.host_length for run in batch))
        for run in batch:
            data = stored[run.host - start : run.host - start + run.host_length]
            self._decompress(run, data, view[run.start - offset : run.start - offset + run.length])

    def _read_part_of_cluster(self, run: Run, part: memoryview) -> None:
        """Decompress a cluster for a part of it, and cache it for the reader of the next part.

        That may be another thread at the same time: it waits, because decompressing it again would not be faster.
        """
        # The key includes the length: an entry with too few sectors is corrupt, even if another one read enough of
        # them.
        key = run.host << 24 | run.host_length
        with self._gates[run.host % len(self._gates)]:
            cluster = None if self._clusters is None else self._clusters.get(key)
            if cluster is None:
                cluster = bytearray(self._cluster_size)
                self._decompress(run, self._stored(run.host, run.host + run.host_length), memoryview(cluster))
                if self._clusters is not None:
                    self._clusters.put(key, cluster, len(cluster))
        inside = run.start % self._cluster_size
        part[:] = memoryview(cluster)[inside : inside + len(part)]

    def _stored(self, start: int, end: int) -> memoryview:
        """The bytes from start to end of the file, fewer at its end: end is a sector's, not the data's."""
        stored = memoryview(bytearray(min(end, self._file.size) - start))
        self._file.read_into(start, stored)
        return stored

    def _decompress(self, run: Run, data: memoryview, cluster: memoryview) -> None:
        """Fill the whole cluster from data."""
        try:
            self._decoder.decode(data, cluster)
        except ValueError as error:
            raise self._corrupt(run, str(error)) from error

    def _corrupt(self, run: Run, what: str) -> InvalidImageError:
        guest = run.start - run.start % self._cluster_size
        return InvalidImageError(
            f"{self._file.name}: the compressed cluster of guest offset {guest} at 0x{run.host:x} in the file {what}; "
            "the image is truncated or corrupt"
        )
