# SPDX-License-Identifier: MIT
"""pydiskimg mkfs: make ext2, ext3 or ext4 on a device, a partition or a file."""

from __future__ import annotations

from pydiskimg.cli.arguments import size_argument
from pydiskimg.cli.disk_argument import KEPT, add_disk_arguments, disk_argument
from pydiskimg.cli.options import add_output_option
from pydiskimg.cli.output import show
from pydiskimg.fs.probe.kind import EXT_TYPES
from pydiskimg.startup import TYPE_CHECKING
from pydiskimg.units import format_size

if TYPE_CHECKING:
    import argparse
    from typing import Any

_EXAMPLES = """\
pydiskimg mkfs -t ext4 -L data --create 10G data.img
pydiskimg mkfs --partition 1 --force disk.raw
"""


def add_parser(subparsers: Any) -> None:
    """Declare the subcommand."""
    parser = subparsers.add_parser(
        "mkfs", description=f"Make a file system on DISK, which keeps its size. {KEPT}", examples=_EXAMPLES
    )
    parser.add_argument("-t", dest="kind", choices=EXT_TYPES, default="ext4", help="type (default: ext4)")
    parser.add_argument(
        "-b", dest="block_size", type=size_argument, metavar="BYTES", help="block size: 1024, 2048 or 4096"
    )
    add_disk_arguments(parser)
    add_output_option(parser)
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> None:
    """Make the file system that the arguments describe."""
    from pydiskimg.fs.ext4.make import make_ext  # imported here: it would slow --help down

    with disk_argument(arguments) as disk:
        made = make_ext(
            disk,
            kind=arguments.kind,
            label=arguments.label,
            uuid=arguments.uuid,
            block_size=arguments.block_size,
        )
        name, size = disk.name, disk.size
    facts = {
        "filename": arguments.disk,
        "type": arguments.kind,
        "uuid": str(made.uuid),
        "label": made.label,
        "size": size,
        "block-size": made.block_size,
        "blocks": made.blocks,
        "inodes": made.inodes,
    }
    line = (
        f"{name}: {arguments.kind}, {format_size(size)}, {made.blocks} blocks of {made.block_size} bytes, "
        f"{made.inodes} inodes, UUID {made.uuid}"
    )
    show(facts, [line], arguments.output)
