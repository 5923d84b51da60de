# SPDX-License-Identifier: MIT
"""A disk whose beginning waits until the system on it is the instance: killed before that, it boots nowhere."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager

from ganeti_os.install.wiping import WholeDisk
from pydiskimg.disks.deferred_head import HEAD_SIZE
from pydiskimg.disks.region import SourceRegion
from pydiskimg.disks.wipe import wipe_partition_table
from pydiskimg.errors import DiskImageError, FileSystemError, PartitionError
from pydiskimg.partitions.partition import Partition
from pydiskimg.partitions.provisional import finish, provisional
from pydiskimg.partitions.read import read_partition_table
from pydiskimg.protocols import ShownDisk

log = logging.getLogger(__name__)


class HeldDisk(WholeDisk):
    """A WholeDisk that release() makes good, and not the commit() of the stream that was copied to it.

    What mounts it sees zeros in its first MiB until then.
    """

    def commit(self) -> None:
        """Wipe what follows the last byte written; the beginning stays in memory."""
        self.wipe_rest()

    def release(self) -> None:
        """Write the beginning, durably, after everything else."""
        super().commit()

    @property
    def lies_after_head(self) -> bool:
        """True when all file systems begin after the first MiB, so that they can be mounted before release()."""
        try:
            partitions = read_partition_table(self, sector_size=self.sector_size)
            return bool(partitions) and not any(self._holds_something(partition) for partition in partitions)
        except (PartitionError, FileSystemError):  # the search for a volume reports it
            return False

    def _holds_something(self, partition: Partition) -> bool:
        """Tell whether a partition begins within the first MiB, and is more than room for a boot loader."""
        if partition.start >= HEAD_SIZE:
            return False
        from pydiskimg.fs.probe import probe  # only here: most disks begin their first partition at 1 MiB

        return probe(SourceRegion(self, partition.start, partition.length)) is not None


@contextmanager
def released_after(target: HeldDisk, *, with_table: bool) -> Iterator[ShownDisk]:
    """Let the block change what is on the disk that it gets; then release the disk.

    With a table, for a script or for what begins in the head itself, the disk has its beginning already, and a
    provisional table in it. A block that fails takes the partition table away: a system that is not the instance yet
    must not be started.
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
            log.warning("the partition table could not be taken away: %s", error)
        raise
