# SPDX-License-Identifier: MIT
"""pydiskimg filesystems: list the file systems and partitions of an image, as virt-filesystems does."""

from __future__ import annotations

import argparse

from pydiskimg.cli.columns import add_columns_options, table_lines
from pydiskimg.cli.file_facts import short_size
from pydiskimg.cli.options import add_human_readable_option, add_output_option
from pydiskimg.cli.output import show, tell
from pydiskimg.cli.volumes_argument import add_volumes_arguments, volume_name, volumes_argument
from pydiskimg.startup import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

    from pydiskimg.protocols import Source
    from pydiskimg.volumes.find import Volume

_UNKNOWN = "unknown"


class _Row:
    """A line: the object on the disk, and the facts about it."""

    def __init__(  # noqa: PLR0913 - each fact is independent, and most are named
        self,
        name: str,
        kind: str,
        size: int,
        partition: int | None = None,
        *,
        vfs: str | None = None,
        label: str | None = None,
        table_type: str | None = None,
        parent: str | None = None,
        uuid: str | None = None,
        start: int = 0,
    ) -> None:
        self.name = name
        self.kind = kind
        self.size = size
        self.partition = partition
        self.vfs = vfs
        self.label = label
        self.table_type = table_type
        self.parent = parent
        self.uuid = uuid
        self.start = start

    @property
    def facts(self) -> dict[str, object]:
        """Return the JSON object."""
        return {
            "name": self.name,
            "type": self.kind,
            "partition": self.partition,
            "vfs": self.vfs,
            "label": self.label,
            "partition-type": self.table_type,
            "start": self.start,
            "size": self.size,
            "parent": self.parent,
            "uuid": self.uuid,
        }


_EXAMPLES = """\
pydiskimg filesystems disk.qcow2             # the names of the file systems
pydiskimg filesystems -lh --uuid disk.qcow2  # with types, labels, sizes, UUIDs
pydiskimg filesystems --all -l /dev/vg/disk  # swap, partitions and the disk, too
"""


def add_parser(subparsers: Any) -> None:
    """Declare the subcommand."""
    parser = subparsers.add_parser(
        "filesystems",
        description="List the file systems of an image or disk; with options also its swap areas, the other contents "
        "of its partitions, the partitions and the disk. /dev/sda1 is partition 1; /dev/sda is a file system "
        "without a partition table. Nothing is mounted or written.",
        examples=_EXAMPLES,
        add_help=False,  # -h is of virt-filesystems
    )
    parser.add_argument("-l", "--long", action="store_true", help="types, labels, sizes and more, too")
    add_human_readable_option(parser, "with -l: ")
    parser.add_argument("--uuid", "--uuids", action="store_true", help="with -l: UUIDs, too")
    parser.add_argument("--filesystems", action="store_true", help="file systems (default)")
    parser.add_argument("--extra", action="store_true", help="swap areas and all else that is not mounted, too")
    parser.add_argument("--partitions", "--parts", action="store_true", help="partitions")
    parser.add_argument("--block-devices", "--blkdevs", action="store_true", help="the disk")
    parser.add_argument("--all", action="store_true", help="all of these")
    add_columns_options(parser)
    add_output_option(parser)
    add_volumes_arguments(parser)
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> None:
    """List the objects in the arguments."""
    unclear: list[str] = []
    with volumes_argument(arguments.image, arguments, unclear.append) as (source, volumes):
        rows = list(_rows(source, volumes, arguments))
    for text in unclear:
        tell(text)
    is_long = arguments.long
    columns = _columns(arguments) if is_long else ["Name"]
    fields = [_fields(row, arguments) for row in rows]
    lines = table_lines(
        columns,
        [[of_row[column] for column in columns] for of_row in fields],
        arguments if is_long or arguments.csv else argparse.Namespace(csv=False, no_title=True),
    )
    show((row.facts for row in rows), lines, arguments.output)


def _columns(arguments: argparse.Namespace) -> list[str]:
    """Return the columns that virt-filesystems has with these options; Label is also for the names in a GPT."""
    of_partitions = arguments.partitions or arguments.all
    of_contents = _has_contents(arguments)
    return [
        *("Name", "Type"),
        *(["VFS"] if of_contents else []),
        *(["Label"] if of_contents or of_partitions else []),
        *(["MBR"] if of_partitions else []),
        *("Size", "Parent"),
        *(["UUID"] if arguments.uuid else []),
    ]


def _has_contents(arguments: argparse.Namespace) -> bool:
    chosen = arguments.partitions or arguments.block_devices
    return bool(arguments.all or arguments.filesystems or arguments.extra or not chosen)


def _fields(row: _Row, arguments: argparse.Namespace) -> dict[str, str | int | None]:
    """Return the value of each column."""
    return {
        "Name": row.name,
        "Type": row.kind,
        "VFS": row.vfs,
        "Label": row.label,
        "MBR": f"{int(row.table_type, 16):02x}" if row.table_type and row.table_type.startswith("0x") else None,
        "Size": short_size(row.size) if arguments.human_readable else row.size,
        "Parent": row.parent,
        "UUID": row.uuid,
    }


def _rows(source: Source, volumes: list[Volume], arguments: argparse.Namespace) -> Iterator[_Row]:
    """Yield the kinds that the options name, in the order of virt-filesystems."""
    if _has_contents(arguments):
        yield from _contents(source, volumes, is_all=arguments.extra or arguments.all)
    numbered = [volume for volume in volumes if volume.partition.number]
    if arguments.all or arguments.partitions:
        yield from map(_partition, numbered)
    if arguments.all or arguments.block_devices:
        yield _Row(volume_name(0), "device", source.size)


def _contents(source: Source, volumes: list[Volume], *, is_all: bool) -> Iterator[_Row]:
    # Imported here: they would slow --help down.
    from pydiskimg.fs.other_types import OTHER_FILE_SYSTEMS, member_type, other_type

    for volume in volumes:
        content, part = volume.content, volume.partition
        region = volume.region(source)
        member = member_type(region)
        content = None if member else content  # the whole's, or an old one
        vfs = member or (content.type if content else other_type(region)) or _UNKNOWN
        if is_all or (content.is_mountable if content else vfs in OTHER_FILE_SYSTEMS):
            label, uuid = (content.label, content.uuid) if content else (None, None)
            yield _Row(
                volume_name(part.number),
                "filesystem",
                part.length,
                part.number,
                vfs=vfs,
                label=label,
                uuid=uuid,
                start=part.start,
            )


def _partition(volume: Volume) -> _Row:
    part = volume.partition
    return _Row(
        volume_name(part.number),
        "partition",
        part.length,
        part.number,
        table_type=part.type,
        label=part.name or None,
        parent=volume_name(0),
        uuid=part.uuid or None,
        start=part.start,
    )
