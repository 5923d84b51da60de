# SPDX-License-Identifier: MIT
"""The actions of pydiskimg partition: show, make and change the table of an image or disk."""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from pydiskimg.cli.arguments import require_file_name, require_name
from pydiskimg.cli.columns import table_lines
from pydiskimg.cli.disk_argument import refuse_to_overwrite
from pydiskimg.cli.interruption import after_interruption
from pydiskimg.cli.output import show, tell
from pydiskimg.cli.references import references
from pydiskimg.disks.block import BlockDisk
from pydiskimg.errors import FileSystemError, PartitionError
from pydiskimg.fs.probe import probe
from pydiskimg.fs.signatures import signature_name
from pydiskimg.images.open import open_image
from pydiskimg.images.open_disk import open_image_disk
from pydiskimg.linux.blockdev import read_partitions_again
from pydiskimg.partitions.change import ChangedTable, PartitionChange, new_table, open_table
from pydiskimg.partitions.layout import MBR
from pydiskimg.partitions.mbr_entries import with_extended
from pydiskimg.partitions.partition import Partition
from pydiskimg.partitions.read import gpt_sector_size, read_partition_table, table_label
from pydiskimg.partitions.types import name_of
from pydiskimg.protocols import Disk, Source
from pydiskimg.regions.region import SourceRegion
from pydiskimg.startup import TYPE_CHECKING
from pydiskimg.units import format_size
from pydiskimg.volumes.find import refuse_other_sectors, table_sector_size

if TYPE_CHECKING:
    from pydiskimg.partitions.types import Label


def _change(arguments: argparse.Namespace) -> PartitionChange:
    if arguments.type is not None:
        require_name(arguments.type, "partition type")
    return PartitionChange(arguments.type, arguments.name, arguments.uuid, arguments.bootable)


def list_partitions(arguments: argparse.Namespace) -> None:
    """Print the partitions of the disk in the arguments."""
    require_file_name(arguments.disk)
    with (
        references(arguments) as policy,
        open_image(arguments.disk, format=arguments.format, references=policy) as source,
    ):
        sector_size = gpt_sector_size(source) or table_sector_size(source)
        found = with_extended(source, sector_size)
        label = table_label(source) if found or not _content_of(source, sector_size) else None
    rows = [
        [
            part.number,
            part.start,
            part.length,
            format_size(part.length),
            name_of(part.type) or part.type,
            "*" if part.bootable else None,
            part.name or None,
            part.uuid or None,
        ]
        for part in found
    ]
    titles = ["Number", "Start", "Bytes", "Size", "Type", "Boot", "Name", "UUID"]
    lines = table_lines(titles, rows, argparse.Namespace(csv=False, no_title=False))
    show(_table_facts(arguments.disk, label, sector_size, found), lines, arguments.output)
    if not found and arguments.output == "human":
        tell(f"{arguments.disk}: has {_without_partitions(label)}")


def _without_partitions(label: Label | None) -> str:
    kinds = {None: "no partition table", "gpt": "a GPT without partitions", "dos": "an MBR without partitions"}
    return kinds[label]


def _table_facts(disk: str, label: Label | None, sector_size: int, found: Sequence[Partition]) -> dict[str, object]:
    return {
        "filename": disk,
        "label": label,
        "sector-size": sector_size,
        "partitions": [_facts(part) for part in found],
    }


def _show_changed(arguments: argparse.Namespace, table: ChangedTable, lines: list[str], **more: int) -> None:
    """Print lines, or the table as it is now."""
    facts = _table_facts(arguments.disk, table.label, table.sector_size, table.partitions)
    show(facts | more, lines, arguments.output)


def _facts(part: Partition) -> dict[str, object]:
    return {
        "number": part.number,
        "start": part.start,
        "size": part.length,
        "type": part.type,
        "type-name": name_of(part.type),
        "bootable": part.bootable,
        "name": part.name or None,
        "uuid": part.uuid or None,
    }


def create(arguments: argparse.Namespace) -> None:
    """Make a partition table without partitions."""
    left = f"{arguments.disk} may have no partition table now; give the command again, with --force"
    with _disk(arguments) as disk, after_interruption(left):
        if not arguments.force:
            refuse_to_overwrite(disk, whole_disk=True, has_partition_option=False)
        table = new_table(disk, arguments.label, disk_id=arguments.disk_id)
        _show_changed(arguments, table, [f"{arguments.disk}: has {_without_partitions(table.label)}"])


def add(arguments: argparse.Namespace) -> None:
    """Add a partition."""
    wanted = _change(arguments)
    with _disk(arguments) as disk:
        if content := _content_of(disk, disk.sector_size):
            raise PartitionError(
                f"{disk.name}: has no partition table, but {content}; make one with: pydiskimg partition create --force"
            )
        table = _opened(disk)
        number = table.add(arguments.start, arguments.size, wanted, number=arguments.number, logical=arguments.logical)
        part = next(part for part in table.partitions if part.number == number)
        kind = name_of(part.type) or part.type
        size = format_size(part.length)
        line = f"{arguments.disk}: partition {number}: {kind}, {size} at byte {part.start}"
        _show_changed(arguments, table, [line], added=number)


def delete(arguments: argparse.Namespace) -> None:
    """Remove partitions from the table."""
    with _table(arguments) as table:
        table.delete(*arguments.numbers)
        _show_changed(arguments, table, [])


def change(arguments: argparse.Namespace) -> None:
    """Change the attributes of a partition in the table."""
    wanted = _change(arguments)
    if wanted == PartitionChange():
        arguments.parser.error("nothing to change: --type, --name, --uuid, --bootable or --no-bootable is missing")
    with _table(arguments) as table:
        table.set(arguments.number, wanted)
        _show_changed(arguments, table, [])


@contextmanager
def _table(arguments: argparse.Namespace) -> Iterator[ChangedTable]:
    with _disk(arguments) as disk:
        yield _opened(disk)


def _opened(disk: Disk) -> ChangedTable:
    refuse_other_sectors(disk)
    return open_table(disk)


def _content_of(source: Source, sector_size: int) -> str:
    """Return the type of what the whole disk contains, such as ext4, if it is not partitioned; empty if unknown."""
    try:
        if read_partition_table(source, sector_size=sector_size):
            return ""
        content = probe(source)
    except (PartitionError, FileSystemError):
        return ""
    if content is not None:
        return content.type
    # The boot sectors of NTFS and exFAT have an MBR's signature.
    return signature_name(SourceRegion(source, 0, min(source.size, MBR.size))) or ""


@contextmanager
def _disk(arguments: argparse.Namespace) -> Iterator[Disk]:
    """Give the disk to be changed; the kernel reads its table again afterwards, if it supports partitions on it."""
    require_file_name(arguments.disk)
    with (
        after_interruption(f"{arguments.disk}: see with: pydiskimg partition list, whether the table was changed"),
        references(arguments) as policy,
        open_image_disk(arguments.disk, format=arguments.format, references=policy) as disk,
    ):
        yield disk
        disk.flush()
        if isinstance(disk, BlockDisk):
            read_partitions_again(disk.fd)
