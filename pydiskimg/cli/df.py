# SPDX-License-Identifier: MIT
"""pydiskimg df: show how much of the file systems of images is in use, as virt-df does."""

from __future__ import annotations

import os

from pydiskimg.cli.arguments import require_names
from pydiskimg.cli.columns import add_columns_options, table_lines
from pydiskimg.cli.file_facts import short_size
from pydiskimg.cli.options import add_human_readable_option, add_output_option
from pydiskimg.cli.output import show, tell
from pydiskimg.cli.volumes_argument import add_volumes_arguments, volume_name, volumes_argument
from pydiskimg.errors import DiskImageError
from pydiskimg.startup import TYPE_CHECKING

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterator
    from typing import Any

    from pydiskimg.protocols import Source
    from pydiskimg.volumes.find import Volume
    from pydiskimg.volumes.space import FileSystemSpace

_BLOCK = 1024
_EXAMPLES = """\
pydiskimg df -h disk.qcow2
pydiskimg df -i --csv /dev/vg/*
"""


def add_parser(subparsers: Any) -> None:
    """Declare the subcommand."""
    parser = subparsers.add_parser(
        "df",
        description="Show how much of each ext2, ext3, ext4, xfs, btrfs and FAT file system is in use, as df would "
        "if it were mounted. The numbers come from superblocks, group descriptors and FATs; nothing is mounted or "
        "written. Exit status: 0 done, 1 failed, also where a file system cannot be counted, 2 wrong usage.",
        examples=_EXAMPLES,
        add_help=False,  # -h is of df
    )
    add_human_readable_option(parser)
    parser.add_argument("-i", "--inodes", action="store_true", help="inodes in place of blocks")
    add_columns_options(parser)
    add_output_option(parser)
    add_volumes_arguments(parser, dest="images", nargs="+")
    parser.set_defaults(run=run)


class _Counted:
    """A file system of an image, and its space."""

    def __init__(self, path: str, volume: Volume, space: FileSystemSpace) -> None:
        self.path = path
        self.volume = volume
        self.space = space

    def facts(self) -> dict[str, object]:
        """Return the JSON object; sizes are bytes."""
        content, space = self.volume.content, self.space
        return {
            "filename": self.path,
            "partition": self.volume.partition.number,
            "type": content.type if content else None,
            "size": space.size,
            "used": space.used,
            "available": space.available,
            "inodes": space.inodes,
            "inodes-used": space.inodes_used,
        }

    def fields(self, *, inodes: bool, in_units: bool) -> list[str | int | None]:
        """Return a line of the table."""
        name = f"{os.path.basename(self.path)}:{volume_name(self.volume.partition.number)}"
        space = self.space
        if inodes:
            if space.inodes is None or space.inodes_used is None:
                return [name, None, None, None, None]
            free = space.inodes - space.inodes_used
            return [name, space.inodes, space.inodes_used, free, _percentage(space.inodes_used, free)]
        shown = (space.size, space.used, space.available)
        sizes = [short_size(size) if in_units else size // _BLOCK for size in shown]
        return [name, *sizes, _percentage(space.used, space.available)]


def run(arguments: argparse.Namespace) -> int:
    """Print the space of the images in the arguments; return the exit status."""
    require_names(arguments.images)
    problems: list[str] = []
    counted: list[_Counted] = []
    for path in arguments.images:
        try:
            counted += _counted(path, arguments, problems)
        except DiskImageError as error:
            problems.append(str(error))
    for text in problems:
        tell(text)
    names = ["Inodes", "IUsed", "IFree", "IUse%"] if arguments.inodes else [_size_title(arguments), *_REST]
    rows = [one.fields(inodes=arguments.inodes, in_units=arguments.human_readable) for one in counted]
    lines = table_lines(["Filesystem", *names], rows, arguments, to_the_right=True)
    show((one.facts() for one in counted), lines, arguments.output)
    return 1 if problems else 0


_REST = ("Used", "Available", "Use%")


def _size_title(arguments: argparse.Namespace) -> str:
    return "Size" if arguments.human_readable else "1K-blocks"


def _counted(path: str, arguments: argparse.Namespace, problems: list[str]) -> Iterator[_Counted]:
    with volumes_argument(path, arguments, problems.append) as (source, volumes):
        for volume in volumes:
            try:
                space = _space(source, volume)
            except DiskImageError as error:
                problems.append(str(error))
                continue
            if space is not None:
                yield _Counted(path, volume, space)


def _space(source: Source, volume: Volume) -> FileSystemSpace | None:
    from pydiskimg.volumes.space import file_system_space  # imported here: it would slow --help down

    return file_system_space(volume.region(source), volume.content.type) if volume.content else None


def _percentage(used: int, available: int) -> str:
    """Return the percentage of df: rounded up, of the space that users other than root can have."""
    whole = used + available
    return f"{-(-100 * used // whole)}%" if whole else "-"
