# SPDX-License-Identifier: MIT
"""pydiskimg mkswap: make a swap area on a device, a partition or a file."""

from __future__ import annotations

from pydiskimg.cli.disk_argument import KEPT, add_disk_arguments, disk_argument
from pydiskimg.cli.options import add_output_option
from pydiskimg.cli.output import show
from pydiskimg.startup import TYPE_CHECKING
from pydiskimg.units import format_size

if TYPE_CHECKING:
    import argparse
    from typing import Any

_EXAMPLES = """\
pydiskimg mkswap --create 512M swap.img
pydiskimg mkswap --partition 1 --force disk.raw
"""


def add_parser(subparsers: Any) -> None:
    """Declare the subcommand."""
    parser = subparsers.add_parser(
        "mkswap", description=f"Make a swap area on DISK, which keeps its size. {KEPT}", examples=_EXAMPLES
    )
    add_disk_arguments(parser)
    add_output_option(parser)
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> None:
    """Make the swap area that the arguments describe."""
    from pydiskimg.fs.swap import make_swap  # imported here: it would slow --help down

    with disk_argument(arguments) as disk:
        made = make_swap(disk, label=arguments.label, uuid=arguments.uuid)
        name, size = disk.name, disk.size
    facts = {"filename": arguments.disk, "type": "swap", "uuid": str(made.uuid), "label": made.label, "size": size}
    show(facts, [f"{name}: swap, {format_size(size)}, UUID {made.uuid}"], arguments.output)
