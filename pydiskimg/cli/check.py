# SPDX-License-Identifier: MIT
"""pydiskimg check: check a qcow2 file, or the file systems of a raw disk. With qemu-img's field names.

A qcow2 file can also be repaired (-r).
"""

from __future__ import annotations

import os

from pydiskimg.cli.arguments import open_file, require_file_name, require_whole
from pydiskimg.cli.options import (
    add_cache_option,
    add_force_share_option,
    add_format_option,
    add_output_option,
    add_progress_option,
    add_quiet_option,
)
from pydiskimg.cli.output import in_qemus_order, show, tell
from pydiskimg.images import FORMATS, detect_image
from pydiskimg.startup import TYPE_CHECKING

if TYPE_CHECKING:
    from typing import Any

    from pydiskimg.cli import Arguments, Parser
    from pydiskimg.images import Format
    from pydiskimg.images.qcow2.check import CheckResult
    from pydiskimg.protocols import ImageBytes, Progress

CONSISTENT, NOT_COMPLETED, CORRUPT, LEAKS, NO_CHECKS = 0, 1, 2, 3, 63
_EXAMPLES = """\
pydiskimg check disk.qcow2
pydiskimg check disk.raw                     # the ext file systems on it
pydiskimg check -r all disk.qcow2
"""


def add_parser(subparsers: Any) -> None:
    """Declare the subcommand."""
    parser = subparsers.add_parser(
        "check",
        description="Compare the reference counts of a qcow2 image with the references to its clusters, and look for "
        "invalid entries in its tables. On a raw disk, a partition or an image of a file system, check ext2, "
        "ext3 and ext4 as e2fsck -fn does, as if the journal had been replayed. With -r, repair a qcow2 image "
        "as far as that loses no data, and check it again. Exit status: 0 consistent, 1 the check was not "
        "completed or the usage is wrong, 2 corrupt, 3 clusters are leaked, which is harmless, 63 there is "
        "nothing to check.",
        examples=_EXAMPLES,
    )
    declare_common(parser)
    parser.set_defaults(run=run)


def declare_common(parser: Parser) -> None:
    """Declare the options; all of them belong to the common form."""
    add_format_option(parser)
    add_progress_option(parser)
    add_quiet_option(parser, "print nothing but what is wrong")
    add_cache_option(parser, "-T")
    add_force_share_option(parser)
    parser.add_argument(
        "-r",
        "--repair",
        choices=("all", "leaks"),
        help="repair a qcow2 image: free leaked clusters, and with all make reference counts right, too",
    )
    add_output_option(parser)
    parser.add_argument("file", metavar="FILE", help="image file or block device")
    parser.set_defaults(usage_error=parser.error, reads_parts=True, opens_described_data_file=True)


def run(arguments: Arguments) -> int:
    """Check the image in the arguments; return the exit status."""
    require_file_name(arguments.file)
    if arguments.repair and arguments.force_share:
        arguments.usage_error("-U is not for -r: an image that others use cannot be repaired")
    if arguments.repair:
        require_whole(arguments.file, "-r")
    with open_file(arguments.file) as file:
        row = FORMATS[arguments.format or detect_image(file)]
        if not row.is_checked and arguments.repair:
            tell(
                f"{file.name}: is {row.title}, and only qcow2 images can be repaired; repair an ext file system with: "
                "e2fsck -f"
            )
            return NO_CHECKS
        if not row.is_checked:
            from pydiskimg.cli.check_volumes import run_check_volumes

            return run_check_volumes(file, arguments)
        result, fixed = _checked(file, row, arguments)
    for text in result.details:
        tell(f"{file.name}: {text}")
    if not arguments.quiet:
        facts = _facts(result, getattr(arguments, "file_as_given", None) or file.name, row.name)
        facts |= {name: count for name, count in fixed.items() if count}
        show(in_qemus_order(facts), _lines(result), arguments.output)
    return _status(result)


def _checked(file: ImageBytes, row: Format, arguments: Arguments) -> tuple[CheckResult, dict[str, int]]:
    """Check the image, after repairing it if requested; return the findings, and numbers of repaired ones."""
    if not arguments.progress:
        return _repaired(arguments, None) if arguments.repair else (row.check(file, None), {})
    from pydiskimg.cli.progress import progress

    with progress(os.path.basename(file.name), shown=True) as callback:
        return _repaired(arguments, callback) if arguments.repair else (row.check(file, callback), {})


def _repaired(arguments: Arguments, callback: Progress | None) -> tuple[CheckResult, dict[str, int]]:
    """Repair the image, and return the findings of a second check; print those of the first one if they differ."""
    from pydiskimg.images.open_store import open_qcow2_store
    from pydiskimg.images.qcow2.repair.image import repair_qcow2

    with open_qcow2_store(arguments.file, format=arguments.format) as store:
        done = repair_qcow2(store, only_leaks=arguments.repair == "leaks", progress=callback)
    if done.refusal:
        tell(done.refusal)
    if done.left is not done.found:
        for text in done.found.details:
            tell(f"{arguments.file}: {text}")
    fixed = {"leaks-fixed": done.leaks_fixed, "corruptions-fixed": done.corruptions_fixed}
    if any(fixed.values()) and not arguments.quiet and arguments.output == "human":
        print("The following inconsistencies were found and repaired:\n")
        print(f"    {done.leaks_fixed} leaked clusters\n    {done.corruptions_fixed} corruptions\n")
        print("Double checking the fixed image now...")
    return done.left, fixed


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
