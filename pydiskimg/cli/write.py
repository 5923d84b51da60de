# SPDX-License-Identifier: MIT
"""pydiskimg write: declares its options; write_image writes."""

from __future__ import annotations

from pydiskimg.cli.options import add_format_option, add_output_option, add_progress_option, add_quiet_option
from pydiskimg.cli.references import add_references_option
from pydiskimg.startup import TYPE_CHECKING

if TYPE_CHECKING:
    import argparse
    from typing import Any

_EXAMPLES = """\
pydiskimg write image.raw.xz /dev/sdX
pydiskimg write --yes --bmap disk.bmap disk.qcow2 /dev/vg/disk
"""


def add_parser(subparsers: Any) -> None:
    """Declare the subcommand."""
    parser = subparsers.add_parser(
        "write",
        description="Write IMAGE (raw, qcow2, or raw compressed with gzip, xz, bzip2 or zstd) to DEVICE, sparsely and "
        "durably, and read it back past the cache. On a terminal what is on DEVICE is shown and has to "
        "be confirmed; without a terminal --yes is needed. A device that is mounted, held or "
        "used by a virtual machine is refused. The checksums of a block map (IMAGE.bmap or --bmap) are "
        "compared with the written device. DEVICE may also be a file.",
        examples=_EXAMPLES,
    )
    add_format_option(parser)
    parser.add_argument("--bmap", metavar="FILE", help="block map of IMAGE (default: IMAGE.bmap, if it exists)")
    parser.add_argument("--nobmap", action="store_true", help="use no block map")
    parser.add_argument("--no-verify", action="store_true", help="do not read back what was written")
    parser.add_argument("-y", "--yes", action="store_true", help="do not ask for a confirmation")
    add_progress_option(parser)
    add_quiet_option(parser)
    add_output_option(parser)
    add_references_option(parser)
    parser.add_argument("image", metavar="IMAGE", help="disk image, compressed or not")
    parser.add_argument("device", metavar="DEVICE", help="block device, or existing file")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> None:
    """Write the image in the arguments."""
    from pydiskimg.cli.write_image import write_image  # imported here: it would slow --help down

    write_image(arguments)
