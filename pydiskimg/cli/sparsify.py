# SPDX-License-Identifier: MIT
"""pydiskimg sparsify: what the file systems on an image do not use is given back, as by virt-sparsify --in-place."""

from __future__ import annotations

import argparse
import os
from collections.abc import Iterator
from typing import Any

from pydiskimg.cli.arguments import require_file_name
from pydiskimg.cli.output import add_output_option, show, tell
from pydiskimg.cli.progress import progress
from pydiskimg.cli.references import add_references_option, references
from pydiskimg.images import FORMATS
from pydiskimg.units import format_size
from pydiskimg.volumes.sparsify import Sparsified, sparsify

_EXAMPLES = """\
examples:
  pydiskimg sparsify disk.qcow2
  pydiskimg sparsify --in-place -p /dev/vg/disk
"""


def add_parser(subparsers: Any) -> None:
    """Declare the subcommand."""
    parser = subparsers.add_parser(
        "sparsify",
        description="Make holes of what an image or disk stores and its file systems do not use: what ext2, ext3 and "
        "ext4 say is free, and swap areas. All else stays as it is, and an interruption harms nothing. What is "
        "mounted, attached or used by a virtual machine is refused. A copy without what is free is made by: pydiskimg "
        "convert --used.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--in-place", action="store_true", help="accepted as by virt-sparsify; nothing else is done")
    parser.add_argument("-f", "--format", dest="format", choices=FORMATS, help="format (default: by the contents)")
    parser.add_argument("-p", dest="progress", action="store_true", help="show progress")
    parser.add_argument("-q", "--quiet", dest="quiet", action="store_true", help="say nothing")
    add_output_option(parser)
    add_references_option(parser)
    parser.add_argument("file", metavar="IMAGE")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> None:
    """Sparsify the image that the arguments name."""
    require_file_name(arguments.file)
    with (
        references(arguments) as policy,
        progress(os.path.basename(arguments.file), shown=arguments.progress) as callback,
    ):
        done = sparsify(arguments.file, format=arguments.format, references=policy, progress=callback)
    if not arguments.quiet:
        for note in done.notes:
            tell(f"{arguments.file}: {note}")
        show(_facts(arguments.file, done), _lines(done), arguments.output)


def _facts(path: str, done: Sparsified) -> dict[str, object]:
    return {
        "filename": path,
        "zeroed": done.zeroed,
        "stored-before": done.stored_before,
        "stored-after": done.stored_after,
        "notes": done.notes,
    }


def _lines(done: Sparsified) -> Iterator[str]:
    if done.stored_before is None or done.stored_after is None:
        yield f"{format_size(done.zeroed)} were discarded."
    else:
        before, after = (format_size(size) for size in (done.stored_before, done.stored_after))
        yield f"The file takes {after}; it took {before}."
