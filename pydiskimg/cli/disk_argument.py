# SPDX-License-Identifier: MIT
"""The target of a new file system or swap area: a whole disk, a partition of it, or a new file."""

from __future__ import annotations

import os
from contextlib import contextmanager

from pydiskimg.cli.arguments import require_name, size_argument, uuid_argument
from pydiskimg.cli.options import partition_number
from pydiskimg.errors import DiskImageError, FileSystemError, PartitionError, StorageError
from pydiskimg.images import looks_like
from pydiskimg.startup import TYPE_CHECKING

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterator

    from pydiskimg.protocols import Disk
    from pydiskimg.regions.region import Region

KEPT = (
    "A file system, RAID, volume, partition table or image is not overwritten without --force, even if it is damaged: "
    "the signatures that wipefs knows are enough, and those of backup copies."
)
_TABLE = "holds a partition table"


class OverwriteError(DiskImageError):
    """The disk already has contents that may be wanted."""


def add_disk_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the common options of mkfs and mkswap: DISK, --partition, --create, -L, -U, --force."""
    parser.add_argument("-L", dest="label", default="", metavar="LABEL", help="label")
    parser.add_argument("-U", dest="uuid", type=uuid_argument, help="UUID (default: a random one)")
    options = parser.add_mutually_exclusive_group()
    options.add_argument("--partition", type=partition_number, metavar="N", help="work on partition N of DISK")
    options.add_argument(
        "--create", type=size_argument, metavar="SIZE", help="make a new file DISK of SIZE, such as 512M"
    )
    parser.add_argument(
        "--force",
        action="store_true",
        help="overwrite a file system, swap area, partition table or image, or with --create an existing file",
    )
    parser.add_argument("disk", metavar="DISK", help="block device or file")


@contextmanager
def disk_argument(arguments: argparse.Namespace) -> Iterator[Disk]:
    """Give the Disk to work on; writes are durable when the context is left without an error."""
    require_name(arguments.disk, "disk")
    if arguments.create is not None:
        if os.path.isfile(arguments.disk) and not arguments.force:
            raise OverwriteError(f"{arguments.disk}: already exists; use --force to replace it with a new file")
        from pydiskimg.disks.new_file import new_disk_file  # imported here: it would slow --help down

        with new_disk_file(arguments.disk, arguments.create) as file:
            yield file
        return
    from pydiskimg.images.open_disk import open_disk

    with open_disk(arguments.disk, writable=True) as disk:
        target = disk if arguments.partition is None else _partition(disk, arguments.partition)
        if not arguments.force:
            refuse_to_overwrite(target, whole_disk=arguments.partition is None)
        yield target
        disk.flush()


def _partition(disk: Disk, number: int) -> Region:
    from pydiskimg.partitions.read import read_partition_table
    from pydiskimg.regions.region import Region
    from pydiskimg.volumes.find import refuse_other_sectors

    refuse_other_sectors(disk)
    partitions = read_partition_table(disk, sector_size=disk.sector_size)
    for partition in partitions:
        if partition.number == number:
            return Region(disk, partition.start, partition.length, name=f"{disk.name} partition {number}")
    image = None if partitions else looks_like(disk)
    if image is not None:
        raise PartitionError(f"{disk.name}: is {image_noun(image)}; expected a raw disk (pydiskimg convert makes one)")
    found = ", ".join(str(partition.number) for partition in partitions) or "none"
    raise PartitionError(f"{disk.name}: has no partition {number}; found: {found}")


def image_noun(image: str) -> str:
    """Return what looks_like() has found as a noun: "data compressed with xz" of "compressed with xz"."""
    return image if image.startswith(("a ", "the ")) else f"data {image}"


def refuse_to_overwrite(disk: Disk, *, whole_disk: bool, has_partition_option: bool = True) -> None:
    """Raise OverwriteError if the disk has contents, or damaged ones."""
    try:
        found = _found(disk, whole_disk=whole_disk)
    except (FileSystemError, PartitionError) as error:  # contents, but several or damaged
        raise OverwriteError(f"{error}; use --force to overwrite it") from error
    except StorageError as error:
        raise OverwriteError(f"{error}; its contents cannot be determined; use --force to overwrite it") from error
    if found is not None:
        advice = ", or --partition N" if found == _TABLE and has_partition_option else ""
        raise OverwriteError(f"{disk.name}: {found}; use --force to overwrite it{advice}")


def _found(disk: Disk, *, whole_disk: bool) -> str | None:
    """Return a description of the contents; None if nothing is known."""
    from pydiskimg.fs.probe import probe
    from pydiskimg.fs.signatures import table_trace, trace
    from pydiskimg.partitions.read import read_partition_table

    image = looks_like(disk) if whole_disk else None
    if image is not None:
        return f"holds {image_noun(image)}"
    found = probe(disk)
    if found is not None:
        label = "no label" if found.label is None else f"label '{found.label}'"
        return f"holds {found.type} ({label}, {'no UUID' if found.uuid is None else f'UUID {found.uuid}'})"
    other = trace(disk)
    if other is None:
        if whole_disk and read_partition_table(disk, sector_size=disk.sector_size):
            return _TABLE
        other = table_trace(disk)
    return None if other is None else f"looks like {other}"
