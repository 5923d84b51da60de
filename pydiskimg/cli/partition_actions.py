# SPDX-License-Identifier: MIT
"""The actions of pydiskimg partition: show, make and change the table of an image or disk."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from contextlib import contextmanager

from pydiskimg.cli.arguments import require_file_name
from pydiskimg.cli.columns import table_lines
from pydiskimg.cli.disk_argument import refuse_to_overwrite
from pydiskimg.cli.interruption import after_interruption
from pydiskimg.cli.output import show
from pydiskimg.cli.references import references
from pydiskimg.disks.block import BlockDisk
from pydiskimg.images.open import open_image
from pydiskimg.images.open_disk import open_image_disk
from pydiskimg.linux.blockdev import read_partitions_again
from pydiskimg.partitions.change import ChangedTable, PartitionChange, new_table, open_table
from pydiskimg.partitions.mbr_entries import with_extended
from pydiskimg.partitions.partition import SECTOR_SIZES, Partition
from pydiskimg.partitions.read import gpt_sector_size
from pydiskimg.partitions.types import name_of
from pydiskimg.protocols import Disk
from pydiskimg.units import format_size


def _change(arguments: argparse.Namespace) -> PartitionChange:
    return PartitionChange(arguments.type, arguments.name, arguments.uuid, arguments.bootable)


def list_partitions(arguments: argparse.Namespace) -> None:
    """Print the partitions of the disk in the arguments."""
    require_file_name(arguments.disk)
    with (
        references(arguments) as policy,
        open_image(arguments.disk, format=arguments.format, references=policy) as source,
    ):
        sector_size = gpt_sector_size(source) or SECTOR_SIZES[0]
        found = with_extended(source, sector_size)
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
    facts = {"filename": arguments.disk, "sector-size": sector_size, "partitions": [_facts(part) for part in found]}
    show(facts, lines, arguments.output)


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
            refuse_to_overwrite(disk, whole_disk=True)
        table = new_table(disk, arguments.label, disk_id=arguments.disk_id)
        kind = "a GPT" if table.label == "gpt" else "an MBR"
        show(None, [f"{arguments.disk}: has {kind} without partitions"], "human")


def add(arguments: argparse.Namespace) -> None:
    """Add a partition."""
    with _table(arguments) as table:
        number = table.add(
            arguments.start, arguments.size, _change(arguments), number=arguments.number, logical=arguments.logical
        )
        part = next(part for part in table.partitions if part.number == number)
        kind = name_of(part.type) or part.type
        size = format_size(part.length)
        show(None, [f"{arguments.disk}: partition {number}: {kind}, {size} at byte {part.start}"], "human")


def delete(arguments: argparse.Namespace) -> None:
    """Remove partitions from the table."""
    with _table(arguments) as table:
        table.delete(*arguments.numbers)


def change(arguments: argparse.Namespace) -> None:
    """Change the attributes of a partition in the table."""
    with _table(arguments) as table:
        table.set(arguments.number, _change(arguments))


@contextmanager
def _table(arguments: argparse.Namespace) -> Iterator[ChangedTable]:
    with _disk(arguments) as disk:
        yield open_table(disk)


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
