# SPDX-License-Identifier: MIT
"""pydiskimg commit: what an image holds goes into its backing file."""

from __future__ import annotations

import os

from pydiskimg.cli.arguments import CACHE_MODES, require_file_name, size_argument
from pydiskimg.cli.progress import progress
from pydiskimg.cli.references import add_references_option, references
from pydiskimg.errors import UnsupportedImageError
from pydiskimg.images.raw import open_raw
from pydiskimg.startup import TYPE_CHECKING
from pydiskimg.transfer.commit import commit

if TYPE_CHECKING:
    import argparse
    from typing import Any


def add_parser(subparsers: Any) -> None:
    """Declare the subcommand."""
    parser = subparsers.add_parser(
        "commit",
        description="Write what the qcow2 image FILE holds into its backing file, and empty FILE, which then shows the "
        "same as before. The backing file is opened below the directory of --allow-references only. Other images that "
        "stand on the backing file show something else afterwards. After an interruption FILE shows what it did, and "
        "commit may be run again.",
    )
    parser.add_argument("-f", dest="format", choices=("qcow2",), help="format; only qcow2 has backing files")
    parser.add_argument("-b", dest="base", metavar="BASE", help="write into this file of the chain; implies -d")
    parser.add_argument(
        "-r",
        dest="rate",
        type=size_argument,
        metavar="RATE",
        help="write RATE bytes a second on average, and no more; 0 (default): no limit",
    )
    parser.add_argument("-d", dest="keep", action="store_true", help="do not empty FILE")
    parser.add_argument("-p", dest="progress", action="store_true", help="show progress")
    parser.add_argument("-q", dest="quiet", action="store_true", help="say nothing")
    parser.add_argument(
        "-t",
        dest="cache",
        choices=CACHE_MODES,
        metavar="CACHE",
        help="accepted: all is durable at the end",
    )
    add_references_option(parser)
    parser.add_argument("file", metavar="FILE")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> None:
    """Commit the image that the arguments name."""
    require_file_name(arguments.file)
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

    with open_raw(path) as file:
        if detect_image(file) != "qcow2":
            raise UnsupportedImageError(f"{path}: is a raw image, which has no backing file")
