# SPDX-License-Identifier: MIT
"""pydiskimg hash: print a checksum of the bytes that a guest sees, the same for every format of the image."""

from __future__ import annotations

import os

from pydiskimg.cli.arguments import open_source, require_file_name
from pydiskimg.cli.options import add_format_option, add_output_option, add_progress_option
from pydiskimg.cli.output import show
from pydiskimg.cli.references import add_references_option, references
from pydiskimg.startup import TYPE_CHECKING
from pydiskimg.transfer.digest import ALGORITHMS, digest

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterator
    from typing import Any

_EXAMPLES = """\
pydiskimg hash disk.qcow2                    # as sha256sum prints it for disk.raw
pydiskimg hash -a blake2b --output json /dev/vg/disk
"""


def add_parser(subparsers: Any) -> None:
    """Declare the subcommand."""
    parser = subparsers.add_parser(
        "hash",
        description="Print a checksum of the guest's data: the same for every image format, and the one that sha256sum "
        "prints for a raw file of the same contents. Holes count as zeros.",
        examples=_EXAMPLES,
    )
    add_format_option(parser)
    parser.add_argument(
        "-a",
        "--algorithm",
        choices=ALGORITHMS,
        default="sha256",
        metavar="KIND",
        help=f"{', '.join(ALGORITHMS)} (default: sha256)",
    )
    parser.add_argument("-l", dest="snapshot", metavar="SNAPSHOT", help="read this internal snapshot: its id or name")
    add_progress_option(parser)
    add_output_option(parser)
    add_references_option(parser)
    parser.add_argument("images", metavar="IMAGE", nargs="+", help="disk image or block device")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> None:
    """Print the checksums of the images in the arguments, each when it is known."""
    found = _checksums(arguments)
    show(
        ({"filename": path, arguments.algorithm: checksum} for path, checksum in found),
        (f"{checksum}  {path}" for path, checksum in found),
        arguments.output,
    )


def _checksums(arguments: argparse.Namespace) -> Iterator[tuple[str, str]]:
    from pydiskimg.cli.progress import progress  # imported here: it would slow --help down

    for path in arguments.images:
        require_file_name(path)
        with (
            references(arguments) as policy,
            open_source(
                path, format=arguments.format, references=policy, snapshot=_snapshot(path, arguments)
            ) as source,
            progress(os.path.basename(path), shown=arguments.progress) as callback,
        ):
            yield path, digest(source, arguments.algorithm, progress=callback)


def _snapshot(path: str, arguments: argparse.Namespace) -> str | None:
    if arguments.snapshot is None:
        return None
    from pydiskimg.cli.snapshot_choice import chosen_snapshot

    return chosen_snapshot(path, arguments.format, arguments.snapshot)
