# SPDX-License-Identifier: MIT
"""pydiskimg hash: a checksum of the bytes that a guest sees, whatever the format of the image."""

from __future__ import annotations

import argparse
import os
from collections.abc import Iterator
from typing import Any

from pydiskimg.cli.arguments import open_source, require_file_name
from pydiskimg.cli.output import add_output_option, show
from pydiskimg.cli.progress import progress
from pydiskimg.cli.references import add_references_option, references
from pydiskimg.cli.snapshot_choice import chosen_snapshot
from pydiskimg.images import FORMATS
from pydiskimg.transfer.digest import ALGORITHMS, digest

_EXAMPLES = """\
examples:
  pydiskimg hash disk.qcow2               as sha256sum prints it for disk.raw
  pydiskimg hash -a blake2b --output json /dev/vg/disk
"""


def add_parser(subparsers: Any) -> None:
    """Declare the subcommand."""
    parser = subparsers.add_parser(
        "hash",
        description="Print a checksum of the guest's data: the same for every format of image, and what sha256sum "
        "prints for a raw file of the same contents. Holes count as the zeros that they are read as.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("-f", dest="format", choices=FORMATS, help="format (default: by the contents)")
    parser.add_argument(
        "-a", "--algorithm", choices=ALGORITHMS, default="sha256", help="kind of checksum (default: sha256)"
    )
    parser.add_argument("-l", dest="snapshot", metavar="SNAPSHOT", help="of an internal snapshot, by ID or name")
    parser.add_argument("-p", dest="progress", action="store_true", help="show progress")
    add_output_option(parser)
    add_references_option(parser)
    parser.add_argument("images", metavar="IMAGE", nargs="+")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> None:
    """Print the checksums of the images that the arguments name, each when it is known."""
    found = _checksums(arguments)
    show(
        ({"filename": path, arguments.algorithm: checksum} for path, checksum in found),
        (f"{checksum}  {path}" for path, checksum in found),
        arguments.output,
    )


def _checksums(arguments: argparse.Namespace) -> Iterator[tuple[str, str]]:
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
    return arguments.snapshot and chosen_snapshot(path, arguments.format, arguments.snapshot)
