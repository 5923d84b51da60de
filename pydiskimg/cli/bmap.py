# SPDX-License-Identifier: MIT
"""pydiskimg bmap: a block map of an image, as bmaptool create makes it."""

from __future__ import annotations

import os

from pydiskimg.cli.arguments import require_file_name, require_name
from pydiskimg.cli.options import add_format_option, add_progress_option
from pydiskimg.cli.pipes import write_text
from pydiskimg.cli.references import add_references_option, references
from pydiskimg.startup import TYPE_CHECKING

if TYPE_CHECKING:
    import argparse
    from typing import Any

_EXAMPLES = """\
pydiskimg bmap -o disk.bmap disk.qcow2
"""


def add_parser(subparsers: Any) -> None:
    """Declare the subcommand."""
    parser = subparsers.add_parser(
        "bmap",
        description="Make a block map of IMAGE (raw or qcow2): the blocks of its disk that hold data, with a SHA-256 "
        "of each run. bmaptool and pydiskimg write compare a disk with it.",
        examples=_EXAMPLES,
    )
    add_format_option(parser)
    parser.add_argument(
        "-o", "--output", metavar="FILE", default="-", help="write the map to FILE (default: standard output)"
    )
    add_progress_option(parser)
    add_references_option(parser)
    parser.add_argument("image", metavar="IMAGE", help="disk image or block device")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> None:
    """Make the block map that the arguments ask for."""
    from pydiskimg.cli.convert_target import refuse_own_file  # imported here: they would slow --help down
    from pydiskimg.cli.progress import progress
    from pydiskimg.images.open import open_image
    from pydiskimg.transfer.bmap import make_bmap

    require_file_name(arguments.image)
    require_name(arguments.output, "block map")
    with (
        references(arguments) as policy,
        open_image(arguments.image, format=arguments.format, references=policy) as source,
        progress(os.path.basename(arguments.image), shown=arguments.progress) as callback,
    ):
        refuse_own_file(source, arguments.output, named=[arguments.image])
        block_map = make_bmap(source, progress=callback)
    write_text(arguments.output, block_map.decode())
