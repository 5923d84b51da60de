# SPDX-License-Identifier: MIT
"""pydiskimg sparsify: release unused space of the file systems on an image, as virt-sparsify --in-place does."""

from __future__ import annotations

import os

from pydiskimg.cli.arguments import require_file_name
from pydiskimg.cli.options import add_format_option, add_output_option, add_progress_option, add_quiet_option
from pydiskimg.cli.output import show, tell
from pydiskimg.cli.references import add_references_option, references
from pydiskimg.startup import TYPE_CHECKING
from pydiskimg.units import format_size

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterator
    from typing import Any

    from pydiskimg.volumes.sparsify import Sparsified

_EXAMPLES = """\
pydiskimg sparsify disk.qcow2
pydiskimg sparsify --in-place -p /dev/vg/disk
"""


def add_parser(subparsers: Any) -> None:
    """Declare the subcommand."""
    parser = subparsers.add_parser(
        "sparsify",
        description="Punch holes, in place, where an image or disk stores what its file systems do not use: the free "
        "blocks of ext2, ext3 and ext4, and the contents of swap areas. Everything else stays as it is, and "
        "an interruption does no harm. A disk that is mounted, attached or used by a virtual machine is "
        "refused. For a copy without free blocks, use pydiskimg convert --used.",
        examples=_EXAMPLES,
    )
    parser.add_argument("--in-place", action="store_true", help="accepted as by virt-sparsify; it is always in place")
    add_format_option(parser)
    add_progress_option(parser)
    add_quiet_option(parser)
    add_output_option(parser)
    add_references_option(parser)
    parser.add_argument("file", metavar="IMAGE", help="disk image or block device")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> None:
    """Sparsify the image in the arguments."""
    from pydiskimg.cli.interruption import after_interruption  # imported here: they would slow --help down
    from pydiskimg.cli.progress import progress
    from pydiskimg.volumes.sparsify import sparsify

    require_file_name(arguments.file)
    with (
        after_interruption(f"{arguments.file} has all that is in use; give the command again to finish"),
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
