# SPDX-License-Identifier: MIT
"""pydiskimg commit: write the contents of an image into its backing file."""

from __future__ import annotations

import os

from pydiskimg.cli.arguments import require_file_name, require_name
from pydiskimg.cli.options import (
    add_cache_option,
    add_format_option,
    add_progress_option,
    add_quiet_option,
    add_rate_option,
)
from pydiskimg.cli.references import add_references_option, references
from pydiskimg.errors import UnsupportedImageError
from pydiskimg.startup import TYPE_CHECKING

if TYPE_CHECKING:
    import argparse
    from typing import Any

_EXAMPLES = """\
pydiskimg commit --allow-references . top.qcow2
pydiskimg commit -d -p --allow-references . top.qcow2
"""


def add_parser(subparsers: Any) -> None:
    """Declare the subcommand."""
    parser = subparsers.add_parser(
        "commit",
        description="Write the contents of the qcow2 image FILE into its backing file, and empty FILE, which then "
        "shows the same as before. The backing file is opened below the directory of --allow-references only. Other "
        "images with the same backing file show other contents afterwards. After an interruption FILE shows "
        "the same as before, and commit can be run again.",
        examples=_EXAMPLES,
    )
    add_format_option(parser, choices=("qcow2",), note="format; only qcow2 has backing files")
    parser.add_argument("-b", dest="base", metavar="BASE", help="write into this file of the chain; implies -d")
    add_rate_option(parser)
    parser.add_argument("-d", dest="keep", action="store_true", help="do not empty FILE")
    add_progress_option(parser)
    add_quiet_option(parser)
    add_cache_option(parser, "-t")
    add_references_option(parser)
    parser.add_argument("file", metavar="FILE", help="qcow2 image with a backing file")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> None:
    """Commit the image in the arguments."""
    from pydiskimg.cli.progress import progress  # imported here: they would slow --help down
    from pydiskimg.transfer.commit import commit

    require_file_name(arguments.file)
    if arguments.base is not None:
        require_name(arguments.base)
    _require_qcow2(arguments.file)
    with (
        references(arguments) as policy,
        progress(
            os.path.basename(arguments.file), shown=arguments.progress and not arguments.quiet, as_qemu_img=True
        ) as callback,
    ):
        commit(
            arguments.file,
            references=policy,
            base=arguments.base,
            empty=not arguments.keep and arguments.base is None,
            rate=arguments.rate,
            progress=callback,
        )
    if not arguments.quiet:
        print("Image committed.")


def _require_qcow2(path: str) -> None:
    from pydiskimg.images import detect_image
    from pydiskimg.images.raw import open_raw

    with open_raw(path) as file:
        if detect_image(file) != "qcow2":
            raise UnsupportedImageError(f"{path}: is a raw image, which has no backing file")
