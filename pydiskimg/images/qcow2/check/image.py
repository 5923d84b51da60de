# SPDX-License-Identifier: MIT
"""Check a qcow2 file: whether its references and its reference counts agree. Nothing is changed.

Every reference (header, tables, data, snapshots, bitmaps) is counted; then the counts are compared with the stored
ones. Host clusters are processed in windows, so that memory is bounded for every image; an image of up to 2 TiB in
clusters of 64 KiB is one window.
"""

from __future__ import annotations

from array import array

from pydiskimg.errors import UnsupportedImageError
from pydiskimg.images.qcow2 import layout
from pydiskimg.images.qcow2.check import reference_counter
from pydiskimg.images.qcow2.check.areas import Area, Areas
from pydiskimg.images.qcow2.check.findings import CheckResult
from pydiskimg.images.qcow2.check.l1 import L1Walk
from pydiskimg.images.qcow2.check.reference_counter import MAX_COUNT, ReferenceCounter, agree, used_clusters
from pydiskimg.images.qcow2.check.tables import TableChecker
from pydiskimg.images.qcow2.header import Header, read_header
from pydiskimg.images.qcow2.refcount_reader import MANY, REFTABLE_RESERVED, RefcountReader
from pydiskimg.images.qcow2.words import is_zero, nonzero
from pydiskimg.protocols import Progress, Source

# Larger files are refused, as by QEMU: the limit is 128 TiB in clusters of 64 KiB.
MAX_CLUSTERS = 1 << 31


def check_qcow2(file: Source, *, progress: Progress | None = None) -> CheckResult:
    """Check the qcow2 image whose own bytes file has, and return what was found; nothing is changed.

    file is the image's file opened as raw. Backing and data files are not opened. progress is called with the bytes of
    tables that are done and their total. Memory stays below 150 MiB.

    Raises InvalidImageError and UnsupportedImageError when the header or a table of tables is so damaged that nothing
    can be checked, or when the file has more than 2^31 clusters; StorageError when the system refuses.

    >>> from pydiskimg import check_qcow2, open_image
    >>> with open_image("disk.qcow2", format="raw") as file:
    ...     result = check_qcow2(file)
    >>> result.corruptions, result.leaks
    (0, 0)
    """
    header = read_header(file, tables_inside=False)  # cut-off bytes read as zeros and are counted
    clusters = -(-file.size // header.cluster_size)
    if clusters >= MAX_CLUSTERS:
        raise UnsupportedImageError(
            f"{file.name}: the file has {clusters} clusters, but at most {MAX_CLUSTERS - 1} are checked"
        )
    return ImageCheck(file, header, clusters, progress).run()


class ImageCheck:
    """A check of one file; subclasses that count its references for other purposes override the undecorated methods."""

    def __init__(self, file: Source, header: Header, clusters: int, progress: Progress | None) -> None:
        self._file = file
        self._header = header
        self._clusters = clusters
        self._progress = progress
        self._passes_done = 0
        sectors = header.size // layout.SECTOR  # as QEMU counts: less than a sector at the end is ignored
        self.result = CheckResult(total_clusters=-(-sectors * layout.SECTOR // header.cluster_size))
        self._areas = Areas(file, header, self.result)
        self._reader = RefcountReader(file, header)
        self._largest = (1 << header.refcount_bits) - 1
        self._highest = -1
        # A range that ends in an incomplete last cluster may reach into another one.
        self._end = clusters + 1

    def run(self) -> CheckResult:
        for first in range(0, self._end, reference_counter.WINDOW):
            counter = ReferenceCounter(self._reader, first, self._end)
            try:
                self._pass(counter)
            finally:
                counter.close()
            self._passes_done += 1
        self.result.image_end_offset = (self._highest + 1) * self._header.cluster_size
        return self.result

    def _pass(self, counter: ReferenceCounter) -> None:
        """Count everything again, for the clusters of one window."""
        areas, is_first = self._areas, counter.first == 0
        tables = TableChecker(self._file, self._header, counter, self.result, is_first_pass=is_first)
        for area in filter(self.is_counted, areas.all):
            tables.add_range(area.offset, area.length, area.times, area.what)
        for offset in areas.bitmap_clusters():
            tables.add_range(offset, self._header.cluster_size, 1, "a cluster of a bitmap")
        walk = L1Walk(self._file, self._header, tables, counter, self.result, is_first_pass=is_first)
        walk.walk([areas.active_table, *areas.snapshot_tables], self._advance)
        self.count_refcount_blocks(counter)
        self.use(counter)

    def _advance(self, done: int, total: int) -> None:
        """Report the progress of a pass, in bytes of L1 tables, over all passes."""
        if self._progress is not None:
            passes = -(-self._end // reference_counter.WINDOW)
            self._progress(self._passes_done * total + done, passes * total)

    def is_counted(self, area: Area) -> bool:  # noqa: ARG002 - a default
        """True if the references of an area are counted."""
        return True

    def count_refcount_blocks(self, counter: ReferenceCounter) -> None:
        """Count the refcount blocks, after everything else: none of them may be used for anything else."""
        cluster_size, is_first = self._header.cluster_size, counter.first == 0
        for index in nonzero(self._reader.entries):
            entry = self._reader.entries[index]
            offset = entry & ~REFTABLE_RESERVED
            cluster = offset // cluster_size
            if entry & REFTABLE_RESERVED or offset % cluster_size:
                what = "has reserved bits set or is not aligned"
            elif cluster >= self._clusters:
                what = "is beyond the end of the file"
            else:
                if not counter.first <= cluster < counter.end:
                    continue
                counter.add(cluster, 1)
                if self._is_shared(counter.references[cluster - counter.first]):
                    self.result.needs_rebuild = True
                    self.result.add_corruption(
                        f"refcount block {index} at 0x{offset:x} is also used for something else", is_repairable=True
                    )
                continue
            self.result.needs_rebuild = True
            if is_first:
                self.result.add_corruption(f"refcount table entry {index}: 0x{entry:016x} {what}", is_repairable=True)

    def _is_shared(self, references: int) -> bool:
        """False also if a reference count cannot express the number, so that only the surplus is reported."""
        return min(references, self._largest) != 1

    def use(self, counter: ReferenceCounter) -> None:
        """Compare the counts of one window with those stored in the file."""
        end = self._clusters
        if counter.is_last and counter.references[self._clusters - counter.first]:
            end += 1
        for first, references, stored in counter.pages(end):
            self._highest = first + used_clusters(references, stored) - 1
            if not agree(references, stored):
                self._compare_page(first, references, stored)
        self._unreadable_blocks(counter, min(counter.end, end))
        self._too_many_to_count(counter.lost)

    def _compare_page(self, first: int, references: bytes, stored: bytes) -> None:
        result = self.result
        if not result.wants_details and is_zero(references):
            result.leaks += len(stored) - stored.count(0)
            return
        for number, (found, count) in enumerate(zip(array("H", references), stored, strict=True)):
            if found == count != MANY:
                continue
            cluster, surplus = first + number, found - self._largest
            if surplus > 0:
                self._overflow(cluster, surplus)
                found = self._largest  # noqa: PLW2901 - as many as can be stored
            self._compare_cluster(cluster, found, count)

    def _compare_cluster(self, cluster: int, found: int, count: int) -> None:
        if self._reader.is_unreadable(cluster):
            return
        if count == MANY:
            count = self._reader.count(cluster)
        if count == found:
            return
        where = f"cluster {cluster} (0x{cluster * self._header.cluster_size:x})"
        if count < found:
            self.result.needs_rebuild |= count == 0
            text = f"{where} has the reference count {count} and {found} references"
            self.result.add_corruption(text, is_repairable=True)
        else:
            self.result.add_leak(f"{where} is leaked: it has the reference count {count} and {found} references")

    def _overflow(self, cluster: int, surplus: int) -> None:
        self.result.add_corruption(
            f"cluster {cluster} has {surplus} references more than {self._header.refcount_bits} bits can count",
            surplus,
        )

    def _unreadable_blocks(self, counter: ReferenceCounter, end: int) -> None:
        """A refcount block at an impossible offset: none of its clusters could be checked."""
        size = self._reader.block_clusters
        for start in range(counter.first - counter.first % size, end, size):
            if self._reader.is_unreadable(start):
                first, stop = max(start, counter.first), min(start + size, end)
                self.result.add_check_error(
                    f"clusters {first} to {stop - 1} have no readable reference count", stop - first, is_repairable=True
                )

    def _too_many_to_count(self, lost: int) -> None:
        if not lost:
            return
        if self._header.refcount_bits <= 16:
            self.result.add_corruption("there are more references to a cluster than can be counted", lost)
        else:
            self.result.add_check_error(f"a cluster has more than {MAX_COUNT} references, the limit of this check")
