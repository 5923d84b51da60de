# SPDX-License-Identifier: MIT
"""pydiskimg rebase: an image stands on another backing file."""

from __future__ import annotations

import os

from pydiskimg.cli.arguments import CACHE_MODES, require_file_name
from pydiskimg.cli.progress import progress
from pydiskimg.cli.references import add_references_option, references
from pydiskimg.images import FORMATS
from pydiskimg.startup import TYPE_CHECKING
from pydiskimg.transfer.rebase import rebase, rename_backing

if TYPE_CHECKING:
    import argparse
    from typing import Any


def add_parser(subparsers: Any) -> None:
    """Declare the subcommand."""
    parser = subparsers.add_parser(
        "rebase",
        description="Let the qcow2 image FILE stand on BACKING, whose name is relative to FILE's directory, and show "
        "the same as before: what BACKING shows otherwise than the old backing file is written into FILE first. An "
        "empty BACKING lets FILE stand on none. With -u only the name changes, and what FILE shows may change with it. "
        "After an interruption FILE stands on the old file and shows the same.",
    )
    parser.add_argument("-f", dest="format", choices=("qcow2",), help="format; only qcow2 has backing files")
    parser.add_argument("-b", dest="backing", metavar="BACKING", required=True, help="new backing file; '' for none")
    parser.add_argument("-F", dest="backing_format", choices=FORMATS, help="format of BACKING (default: by contents)")
    parser.add_argument("-u", dest="unsafe", action="store_true", help="change the name only: open and compare nothing")
    parser.add_argument("-c", dest="compress", action="store_true", help="compress the clusters that are written")
    parser.add_argument("-U", "--force-share", action="store_true", help="accepted: backing files are not locked")
    parser.add_argument("-p", dest="progress", action="store_true", help="show progress")
    parser.add_argument("-q", dest="quiet", action="store_true", help="accepted as by qemu-img: nothing is printed")
    for option in ("-t", "-T"):
        parser.add_argument(
            option, dest="cache", choices=CACHE_MODES, metavar="CACHE", help="accepted: all is durable at the end"
        )
    add_references_option(parser)
    parser.add_argument("file", metavar="FILE")
    parser.set_defaults(run=run, usage_error=parser.error)


def run(arguments: argparse.Namespace) -> None:
    """Rebase the image that the arguments name."""
    require_file_name(arguments.file)
    if arguments.unsafe:
        if arguments.backing and arguments.backing_format is None:
            arguments.usage_error("-u needs -F: nothing is opened, and the format of a backing file is not guessed")
        rename_backing(arguments.file, arguments.backing, backing_format=arguments.backing_format or "")
        return
    with (
        references(arguments) as policy,
        progress(
            os.path.basename(arguments.file), shown=arguments.progress and not arguments.quiet, as_qemu_img=True
        ) as callback,
    ):
        rebase(
            arguments.file,
            arguments.backing,
            backing_format=arguments.backing_format,
            references=policy,
            compress=arguments.compress,
            progress=callback,
        )
