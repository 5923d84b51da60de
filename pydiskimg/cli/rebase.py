# SPDX-License-Identifier: MIT
"""pydiskimg rebase: give an image another backing file."""

from __future__ import annotations

import os

from pydiskimg.cli.arguments import require_file_name
from pydiskimg.cli.options import (
    add_cache_option,
    add_force_share_option,
    add_format_option,
    add_progress_option,
    add_quiet_option,
)
from pydiskimg.cli.references import add_references_option, references
from pydiskimg.images import FORMATS, PROTOCOLS
from pydiskimg.startup import TYPE_CHECKING

if TYPE_CHECKING:
    import argparse
    from typing import Any

_EXAMPLES = """\
pydiskimg rebase --allow-references . -b other.qcow2 -F qcow2 top.qcow2
pydiskimg rebase -u -b /images/other.qcow2 -F qcow2 top.qcow2
"""


def add_parser(subparsers: Any) -> None:
    """Declare the subcommand."""
    parser = subparsers.add_parser(
        "rebase",
        description="Give the qcow2 image FILE another backing file, BACKING, whose name is relative to FILE's "
        "directory. FILE shows the same as before: where BACKING differs from the old backing file, the old contents "
        "are written into FILE first. With an empty BACKING, FILE has no backing file any more. With -u only the "
        "name changes, and the contents that FILE shows can change with it. After an interruption FILE has "
        "its old backing file and shows the same.",
        examples=_EXAMPLES,
    )
    add_format_option(parser, choices=("qcow2",), note="format; only qcow2 has backing files")
    parser.add_argument("-b", dest="backing", metavar="BACKING", help="new backing file; '' for none, as with -u alone")
    add_format_option(parser, "-F", of="BACKING", dest="backing_format", choices=(*FORMATS, *PROTOCOLS))
    parser.add_argument("-u", dest="unsafe", action="store_true", help="change the name only: open and compare nothing")
    parser.add_argument("-c", dest="compress", action="store_true", help="compress the clusters that are written")
    add_force_share_option(parser, "accepted as by qemu-img; files are locked all the same")
    add_progress_option(parser)
    add_quiet_option(parser, "accepted as by qemu-img: nothing is printed")
    add_cache_option(parser, "-t", "-T")
    add_references_option(parser)
    parser.add_argument("file", metavar="FILE", help="qcow2 image")
    parser.set_defaults(run=run, usage_error=parser.error)


def run(arguments: argparse.Namespace) -> None:
    """Rebase the image in the arguments."""
    from pydiskimg.transfer.rebase import rebase, rename_backing  # imported here: they would slow --help down

    require_file_name(arguments.file)
    if arguments.unsafe:
        arguments.backing = arguments.backing or ""
        if arguments.backing and arguments.backing_format is None:
            arguments.usage_error("-u needs -F: nothing is opened, and the format of a backing file is not guessed")
        rename_backing(arguments.file, arguments.backing, backing_format=arguments.backing_format or "")
        return
    if arguments.backing is None:
        arguments.usage_error("missing: -b, the new backing file, or -u to have none")
    if arguments.backing_format in PROTOCOLS:
        arguments.usage_error(f"-F {arguments.backing_format} goes with -u, which opens nothing; use -F raw")
    from pydiskimg.cli.progress import progress

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
