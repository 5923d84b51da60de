# SPDX-License-Identifier: MIT
"""A disk whose beginning is written when the system on it is the instance: if killed before, it does not boot."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager

from ganeti_os.install.wiping import WholeDisk
from pydiskimg.disks.deferred_head import HEAD_SIZE
from pydiskimg.disks.wipe import wipe_partition_table
from pydiskimg.errors import DiskImageError, FileSystemError, PartitionError
from pydiskimg.partitions.partition import Partition
from pydiskimg.partitions.provisional import finish, provisional
from pydiskimg.partitions.read import read_partition_table
from pydiskimg.protocols import ShownDisk
from pydiskimg.regions.region import SourceRegion

log = logging.getLogger(__name__)


class HeldDisk(WholeDisk):
    """A WholeDisk that is completed by release(), not by the commit() of the stream that was copied to it.

    Until then a mount sees zeros in its first MiB.
    """

    def commit(self) -> None:
        """Wipe all after the last written byte; the beginning stays in memory."""
        self.wipe_rest()

    def release(self) -> None:
        """Write the beginning, durably, after everything else."""
        super().commit()

    @property
    def lies_after_head(self) -> bool:
        """True if all file systems begin after the first MiB, so that they can be mounted before release()."""
        try:
            partitions = read_partition_table(self, sector_size=self.sector_size)
            return bool(partitions) and not any(self._holds_something(partition) for partition in partitions)
        except (PartitionError, FileSystemError):  # the search for a volume reports the error
            return False

    def _holds_something(self, partition: Partition) -> bool:
        """True if a partition begins within the first MiB, and is not just room for a boot loader."""
        if partition.start >= HEAD_SIZE:
            return False
        from pydiskimg.fs.probe import probe  # imported here: most disks begin their first partition at 1 MiB

        return probe(SourceRegion(self, partition.start, partition.length)) is not None


@contextmanager
def released_after(target: HeldDisk, *, with_table: bool) -> Iterator[ShownDisk]:
    """Let the block change the disk that it gets; then release the disk.

    With a table (for a script, or for a file system in the head itself) the disk already has its beginning, with a
    provisional table. If the block fails, the partition table is removed: a system that is not yet the instance must
    not be started.
    """
    try:
        if with_table:
            target.wipe_rest()
            target.write_head(provisional(target.head))
            yield target.shown
            finish(target.shown, target.head)
        else:
            yield target
            target.release()
    except BaseException:
        try:
            wipe_partition_table(target.shown)
        except DiskImageError as error:  # the first error is the one to report
            log.warning("the partition table could not be removed: %s", error)
        raise
