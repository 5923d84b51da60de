# SPDX-License-Identifier: MIT
"""pydiskimg show: declares its options; show_disk draws."""

from __future__ import annotations

from pydiskimg.cli.options import add_format_option, add_output_option
from pydiskimg.cli.references import add_references_option
from pydiskimg.startup import TYPE_CHECKING

if TYPE_CHECKING:
    import argparse
    from typing import Any

_EXAMPLES = """\
pydiskimg show disk.qcow2
pydiskimg show -o disk.svg /dev/vg/disk
"""


def add_parser(subparsers: Any) -> None:
    """Declare the subcommand."""
    parser = subparsers.add_parser(
        "show",
        description="Draw DISK, an image (raw or qcow2) or block device, to scale: its partitions, what of it is "
        "stored, and what its file systems use. Free blocks of ext2, ext3 and ext4 and the contents of swap areas "
        "count as unused. The drawing is as wide as the terminal, and has colours there unless NO_COLOR is "
        "set. Nothing is mounted or written.",
        examples=_EXAMPLES,
    )
    add_format_option(parser)
    parser.add_argument("-o", dest="svg", metavar="FILE", help="write an SVG drawing to FILE (-: standard output)")
    add_output_option(parser)
    add_references_option(parser)
    parser.add_argument("disk", metavar="DISK", help="disk image or block device")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> None:
    """Draw the disk in the arguments."""
    from pydiskimg.cli.show_disk import show_disk  # imported here: it would slow --help down

    show_disk(arguments)
