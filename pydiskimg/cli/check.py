# SPDX-License-Identifier: MIT
"""pydiskimg check: is a qcow2 file consistent, or the file systems of a raw disk? With qemu-img's field names."""

from __future__ import annotations

import argparse
import os
from typing import Any, NoReturn

from pydiskimg.cli.arguments import CACHE_MODES, require_file_name
from pydiskimg.cli.output import add_output_option, show, tell
from pydiskimg.cli.progress import progress
from pydiskimg.images import FORMATS, detect_image
from pydiskimg.images.raw import open_raw
from pydiskimg.startup import TYPE_CHECKING

if TYPE_CHECKING:
    from pydiskimg.images.qcow2.check import CheckResult

CONSISTENT, NOT_COMPLETED, CORRUPT, LEAKS = 0, 1, 2, 3


def add_parser(subparsers: Any) -> None:
    """Declare the subcommand."""
    parser = subparsers.add_parser(
        "check",
        description="Compare the reference counts of a qcow2 image with what refers to its clusters, and look for "
        "entries that cannot be. Of a raw disk, a partition or an image of a file system, check ext2, ext3 and ext4 as "
        "e2fsck -fn does, as the journal will leave them. Nothing is changed: repairing (-r) is left to qemu-img check "
        "and e2fsck. Exit status: 0 consistent, 1 the check was not completed or the usage is wrong, 2 corrupt, 3 "
        "clusters are leaked, which is harmless, 63 there is nothing to check.",
    )
    parser.add_argument("-f", dest="format", choices=FORMATS, help="format (default: by the contents)")
    parser.add_argument("-p", dest="progress", action="store_true", help="show progress")
    parser.add_argument("-q", dest="quiet", action="store_true", help="print nothing but what is wrong")
    parser.add_argument("-T", dest="cache", choices=CACHE_MODES, metavar="CACHE", help="accepted as by qemu-img")
    parser.add_argument("-U", dest="force_share", action="store_true", help="accepted; reading takes no lock")
    parser.add_argument("-r", type=_no_repair, metavar="all|leaks", help="refused: repairing is qemu-img's")
    add_output_option(parser)
    parser.add_argument("file", metavar="FILE")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Check the image that the arguments name; returns the exit status."""
    require_file_name(arguments.file)
    with open_raw(arguments.file) as file:
        row = FORMATS[arguments.format or detect_image(file)]
        if not row.is_checked:
            from pydiskimg.cli.check_volumes import run_check_volumes

            return run_check_volumes(file, arguments)
        with progress(os.path.basename(arguments.file), shown=arguments.progress) as callback:
            result = row.check(file, callback)
    for text in result.details:
        tell(f"{file.name}: {text}")
    if not arguments.quiet:
        show(_facts(result, arguments.file, row.name), _lines(result), arguments.output)
    return _status(result)


def _no_repair(text: str) -> NoReturn:
    raise argparse.ArgumentTypeError(f"nothing is repaired here; use: qemu-img check -r {text}, or e2fsck -f")


def _status(result: CheckResult) -> int:
    if result.check_errors:
        return NOT_COMPLETED
    if result.corruptions:
        return CORRUPT
    return LEAKS if result.leaks else CONSISTENT


def _facts(result: CheckResult, path: str, format_name: str) -> dict[str, object]:
    """Fields that are zero are left out, apart from check-errors."""
    counts = {
        "image-end-offset": result.image_end_offset,
        "total-clusters": result.total_clusters,
        "allocated-clusters": result.allocated_clusters,
        "fragmented-clusters": result.fragmented_clusters,
        "compressed-clusters": result.compressed_clusters,
        "corruptions": result.corruptions,
        "leaks": result.leaks,
    }
    facts: dict[str, object] = {"filename": path, "format": format_name, "check-errors": result.check_errors}
    return facts | {name: count for name, count in counts.items() if count}


def _lines(result: CheckResult) -> list[str]:
    """The words of `qemu-img check`, which scripts read."""
    lines = []
    if result.is_clean:
        lines.append("No errors were found on the image.")
    if result.corruptions:
        lines += ["", f"{result.corruptions} errors were found on the image."]
        lines.append("Data may be corrupted, or further writes to the image may corrupt it.")
    if result.leaks:
        lines += ["", f"{result.leaks} leaked clusters were found on the image."]
        lines.append("This means waste of disk space, but no harm to data.")
    if result.check_errors:
        lines += ["", f"{result.check_errors} internal errors have occurred during the check."]
    if result.total_clusters and result.allocated_clusters:
        allocated = result.allocated_clusters
        lines.append(
            f"{allocated}/{result.total_clusters} = {allocated / result.total_clusters:.2%} allocated, "
            f"{result.fragmented_clusters / allocated:.2%} fragmented, "
            f"{result.compressed_clusters / allocated:.2%} compressed clusters"
        )
    if result.image_end_offset:
        lines.append(f"Image end offset: {result.image_end_offset}")
    return lines
