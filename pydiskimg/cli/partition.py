# SPDX-License-Identifier: MIT
"""pydiskimg partition: the partition table of an image or disk shown, made and changed, in the words of sfdisk."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from pydiskimg.cli.arguments import require_file_name, size_argument
from pydiskimg.cli.columns import table_lines
from pydiskimg.cli.disk_argument import refuse_to_overwrite
from pydiskimg.cli.output import add_output_option, show
from pydiskimg.cli.references import add_references_option, references
from pydiskimg.disks.block import BlockDisk
from pydiskimg.images import FORMATS
from pydiskimg.images.open import open_image
from pydiskimg.images.open_disk import open_image_disk
from pydiskimg.linux.blockdev import read_partitions_again
from pydiskimg.partitions.change import ChangedTable, PartitionChange, new_table, open_table
from pydiskimg.partitions.mbr_entries import with_extended
from pydiskimg.partitions.partition import SECTOR_SIZES, Partition
from pydiskimg.partitions.read import gpt_sector_size
from pydiskimg.partitions.types import TYPES, name_of
from pydiskimg.protocols import Disk
from pydiskimg.units import format_size

_EXAMPLES = """\
examples:
  pydiskimg partition list disk.qcow2
  pydiskimg partition create --label gpt disk.raw
  pydiskimg partition add --type esp --size 256M --name EFI disk.raw
  pydiskimg partition add --type root-x86-64 disk.raw
  pydiskimg partition set --type swap disk.raw 2
  pydiskimg partition delete disk.raw 2
"""
_TYPES = "types: " + ", ".join(known.name for known in TYPES) + "; a byte such as 0x83 in an MBR, a GUID in a GPT."


def add_parser(subparsers: Any) -> None:
    """Declare the subcommand and its actions."""
    parser = subparsers.add_parser(
        "partition",
        description="Show, make and change the partition table (MBR or GPT) of an image or disk. Partitions begin and "
        "end at whole MiB unless --start and --size say otherwise, and their contents stay as they are. What is "
        "mounted, attached or used by a virtual machine is refused. An interruption leaves the old table or the new "
        "one.",
        epilog=f"{_TYPES}\n\n{_EXAMPLES}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    actions = parser.add_subparsers(metavar="ACTION", required=True)
    _add_list(actions)
    _add_create(actions)
    _add_add(actions)
    _add_delete(actions)
    _add_set(actions)


def _action(actions: Any, name: str, text: str, run: Any) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = actions.add_parser(name, help=text, description=f"{text.capitalize()}.")
    parser.add_argument("-f", "--format", dest="format", choices=FORMATS, help="format (default: by the contents)")
    add_references_option(parser)
    parser.set_defaults(run=run, parser=parser)
    return parser


def _add_list(actions: Any) -> None:
    parser = _action(actions, "list", "show the partitions of a disk", _list)
    add_output_option(parser)
    parser.add_argument("disk", metavar="DISK")


def _add_create(actions: Any) -> None:
    parser = _action(actions, "create", "make a table without partitions", _create)
    parser.add_argument("--label", choices=("dos", "gpt"), help="kind of table (default: dos below 2 TiB)")
    parser.add_argument("--id", dest="disk_id", metavar="ID", help="UUID of a GPT, or 0x12345678 of an MBR")
    parser.add_argument("--force", action="store_true", help="overwrite what is there")
    parser.add_argument("disk", metavar="DISK")


def _add_add(actions: Any) -> None:
    parser = _action(actions, "add", "add a partition", _add)
    parser.add_argument(
        "--start", type=size_argument, metavar="OFFSET", help="where it begins (default: in free space)"
    )
    parser.add_argument("--size", type=size_argument, metavar="SIZE", help="such as 512M (default: all that is free)")
    parser.add_argument("--number", type=_number, metavar="N", help="default: the first that is free")
    parser.add_argument("--logical", action="store_true", help="inside of the extended partition of an MBR")
    _add_change_options(parser)
    parser.add_argument("disk", metavar="DISK")


def _add_delete(actions: Any) -> None:
    parser = _action(actions, "delete", "remove partitions from the table; their contents stay", _delete)
    parser.add_argument("disk", metavar="DISK")
    parser.add_argument("numbers", metavar="N", nargs="+", type=_number)


def _add_set(actions: Any) -> None:
    parser = _action(actions, "set", "change what the table says of a partition", _set)
    _add_change_options(parser)
    parser.add_argument("disk", metavar="DISK")
    parser.add_argument("number", metavar="N", type=_number)


def _add_change_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--type", metavar="TYPE", help="see: pydiskimg partition --help (default: linux)")
    parser.add_argument("--name", metavar="NAME", help="name in a GPT")
    parser.add_argument("--uuid", metavar="UUID", type=_uuid, help="UUID in a GPT (default: a random one)")
    parser.add_argument("--bootable", action=argparse.BooleanOptionalAction, help="flag for a BIOS")


def _number(text: str) -> int:
    if not (text.isascii() and text.isdecimal()) or len(text) > 4 or not int(text):
        raise argparse.ArgumentTypeError(f"{text[:20]!r} is not the number of a partition; expected 1, 2, 3 or more")
    return int(text)


def _uuid(text: str) -> str:
    from pydiskimg.cli.arguments import uuid_argument

    return str(uuid_argument(text))


def _change(arguments: argparse.Namespace) -> PartitionChange:
    return PartitionChange(arguments.type, arguments.name, arguments.uuid, arguments.bootable)


def _list(arguments: argparse.Namespace) -> None:
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


def _create(arguments: argparse.Namespace) -> None:
    with _disk(arguments) as disk:
        if not arguments.force:
            refuse_to_overwrite(disk, whole_disk=True)
        table = new_table(disk, arguments.label, disk_id=arguments.disk_id)
        print(f"{arguments.disk}: has {'a GPT' if table.label == 'gpt' else 'an MBR'} without partitions")


def _add(arguments: argparse.Namespace) -> None:
    with _table(arguments) as table:
        number = table.add(
            arguments.start, arguments.size, _change(arguments), number=arguments.number, logical=arguments.logical
        )
        part = next(part for part in table.partitions if part.number == number)
        kind = name_of(part.type) or part.type
        print(f"{arguments.disk}: partition {number}: {kind}, {format_size(part.length)} at byte {part.start}")


def _delete(arguments: argparse.Namespace) -> None:
    with _table(arguments) as table:
        for number in sorted(set(arguments.numbers), reverse=True):  # logical ones after it get other numbers
            table.delete(number)


def _set(arguments: argparse.Namespace) -> None:
    with _table(arguments) as table:
        table.set(arguments.number, _change(arguments))


@contextmanager
def _table(arguments: argparse.Namespace) -> Iterator[ChangedTable]:
    with _disk(arguments) as disk:
        yield open_table(disk)


@contextmanager
def _disk(arguments: argparse.Namespace) -> Iterator[Disk]:
    """Give the disk to be changed; the kernel reads its table again afterwards, where it knows partitions."""
    require_file_name(arguments.disk)
    with (
        references(arguments) as policy,
        open_image_disk(arguments.disk, format=arguments.format, references=policy) as disk,
    ):
        yield disk
        disk.flush()
        if isinstance(disk, BlockDisk):
            read_partitions_again(disk.fd)
