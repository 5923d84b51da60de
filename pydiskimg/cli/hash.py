# SPDX-License-Identifier: MIT
"""pydiskimg hash: print a checksum of the bytes that a guest sees, the same for every format of the image."""

from __future__ import annotations

import os

from pydiskimg.cli.arguments import open_source, require_file_name, require_name, require_names
from pydiskimg.cli.options import add_format_option, add_output_option, add_progress_option
from pydiskimg.cli.output import show, tell
from pydiskimg.cli.references import add_references_option, references
from pydiskimg.errors import DiskImageError
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
        type=str.lower,
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


def run(arguments: argparse.Namespace) -> int:
    """Print the checksums of the images in the arguments, each when it is known; return the exit status."""
    require_names(arguments.images)
    if arguments.snapshot is not None:
        require_name(arguments.snapshot, "snapshot")
    failed: list[str] = []
    found = _checksums(arguments, failed)
    show(
        ({"filename": path, arguments.algorithm: checksum} for path, checksum in found),
        (_line(checksum, path) for path, checksum in found),
        arguments.output,
    )
    return 1 if failed else 0


def _line(checksum: str, path: str) -> str:
    """Return the line that sha256sum prints, and reads again: a backslash precedes it if the name is escaped."""
    escaped = path.replace("\\", "\\\\").replace("\n", "\\n").replace("\r", "\\r")
    return f"{'' if escaped == path else chr(92)}{checksum}  {escaped}"


def _checksums(arguments: argparse.Namespace, failed: list[str]) -> Iterator[tuple[str, str]]:
    """Yield each image that can be read, and its checksum; print a sentence on each other one, and add it to failed."""
    for path in arguments.images:
        try:
            # Not yielded inside: the line of progress ends first.
            checksum = _checksum(path, arguments)
        except DiskImageError as error:
            tell(str(error))
            failed.append(path)
        else:
            yield path, checksum


def _checksum(path: str, arguments: argparse.Namespace) -> str:
    from pydiskimg.cli.progress import progress  # imported here: it would slow --help down

    require_file_name(path)
    with (
        references(arguments) as policy,
        open_source(path, format=arguments.format, references=policy, snapshot=_snapshot(path, arguments)) as source,
        progress(os.path.basename(path), shown=arguments.progress) as callback,
    ):
        return digest(source, arguments.algorithm, progress=callback)


def _snapshot(path: str, arguments: argparse.Namespace) -> str | None:
    if arguments.snapshot is None:
        return None
    from pydiskimg.cli.snapshot_choice import chosen_snapshot

    return chosen_snapshot(path, arguments.format, arguments.snapshot)
