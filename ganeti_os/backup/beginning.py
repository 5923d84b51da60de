# SPDX-License-Identifier: MIT
"""Decide from the beginning of a backup on a pipe, before anything is written, whether its system must be mounted."""

from __future__ import annotations

from collections.abc import Iterator

from ganeti_os.backup.kept_pipe import KeptPipe, NotYetError
from ganeti_os.backup.kind import LOOK_AT, BackupKind
from ganeti_os.guest.root import has_mounts_inside, read_guest
from pydiskimg.errors import DiskImageError, PartitionError
from pydiskimg.fs.ext4.tree import open_ext_tree
from pydiskimg.images import FORMATS
from pydiskimg.images.qcow2.layout import HEADER
from pydiskimg.partitions.partition import SECTOR_SIZES, Partition
from pydiskimg.partitions.read import each_partition, gpt_sector_size
from pydiskimg.protocols import Disk, Source
from pydiskimg.system.fstab import read_entries
from pydiskimg.volumes.find import probed

_LARGEST = 1 << 60
_SIZE = HEADER.slice_of("size")


def has_to_be_mounted(pipe: KeptPipe, kind: BackupKind, disk: Disk) -> bool:
    """True if the backup must be mounted: it has possible roots, and none on an ext, which is read without a mount; or
    the root mounts another file system of the disk that is not an ext.

    kind is a whole disk, to be written to disk. Only as much of the backup is kept as the decision needs: up to the
    fstab of a root on an ext, or to the start of its last file system. Also False if that would be more than can be
    kept.
    """
    wanted = LOOK_AT
    while True:
        is_enough = pipe.keep(wanted)
        try:
            file = pipe.image_file(_most_of_file(pipe, kind, disk))
            with FORMATS[kind.value].open(file, references=None, snapshot=None) as source:
                return _is_mounted(source, disk.sector_size)
        except NotYetError as error:
            if not is_enough:
                return False
            wanted = max(error.end, pipe.came + pipe.came // 8)  # a hostile backup may need them one by one
        except DiskImageError:  # restoring reports the error
            return False


def _most_of_file(pipe: KeptPipe, kind: BackupKind, disk: Disk) -> int:
    """Return more bytes than the backup has, or its disk if that has the bytes."""
    if kind is BackupKind.RAW:
        return max(disk.size, pipe.came)
    header = pipe.peek(HEADER.size).ljust(HEADER.size, b"\0")
    return pipe.came + min(2 * int.from_bytes(header[_SIZE], "big"), _LARGEST)


def _is_mounted(source: Source, sector_size: int) -> bool:
    """Check the volumes as find_guest() does, one after the other, as they arrive."""
    with_gpt = gpt_sector_size(source)
    for size in dict.fromkeys([with_gpt] if with_gpt else [sector_size, *SECTOR_SIZES]):
        is_known = is_mounted = False
        try:
            for partition in _partitions(source, size):
                volume = probed(source, partition, lambda _text: None)
                is_known |= volume.content is not None
                if volume.is_ext:
                    has_root = _has_root(volume.region(source))
                    if has_root:
                        return _mounts_others(source, volume.region(source))
                    is_mounted |= has_root is None
                else:
                    is_mounted |= volume.is_mountable
        except PartitionError:
            continue
        if is_known:
            return is_mounted
    return False


def _partitions(source: Source, sector_size: int) -> Iterator[Partition]:
    is_partitioned = False
    for partition in each_partition(source, sector_size=sector_size):
        is_partitioned = True
        yield partition
    if not is_partitioned:
        yield Partition(0, 0, source.size, "")


def _has_root(source: Source) -> bool | None:
    """True if an ext has an /etc, for which its beginning is enough; None if it cannot be read."""
    try:
        with open_ext_tree(source) as tree:
            return "etc" in tree.names("/")
    except DiskImageError:
        return None


def _mounts_others(source: Source, root: Source) -> bool:
    """Tell whether what is over directories of a root on an ext has to be mounted; only an fstab that has some of them
    needs the beginnings of all file systems."""
    try:
        with open_ext_tree(root) as tree:
            if not has_mounts_inside(read_entries(tree)):
                return False
    except DiskImageError:
        return False
    guest, _ = read_guest(source)
    return guest is not None and not guest.is_ext
