# SPDX-License-Identifier: MIT
"""pydiskimg diff: the files in which two images differ, as virt-diff lists them."""

from __future__ import annotations

import argparse
import stat
from collections.abc import Iterator
from typing import Any

from pydiskimg.cli.arguments import require_file_name
from pydiskimg.cli.file_facts import file_facts, short_size, shown
from pydiskimg.cli.output import add_output_option, show, tell
from pydiskimg.cli.references import add_references_option, references
from pydiskimg.cli.tree_argument import partition_number
from pydiskimg.errors import DiskImageError
from pydiskimg.fs.ext4.tree.differences import FileDifference, tree_differences
from pydiskimg.images import FORMATS
from pydiskimg.text import printable
from pydiskimg.volumes.tree import open_tree

SAME, DIFFERENT, NOT_READ = 0, 1, 2
_EXAMPLES = """\
examples:
  pydiskimg diff before.qcow2 after.qcow2
  pydiskimg diff --partition 2 --times before.raw after.raw
"""
_LETTERS = {stat.S_IFREG: "-", stat.S_IFDIR: "d", stat.S_IFLNK: "l", stat.S_IFCHR: "c", stat.S_IFBLK: "b"}
_LETTERS |= {stat.S_IFIFO: "p", stat.S_IFSOCK: "s"}


def add_parser(subparsers: Any) -> None:
    """Declare the subcommand."""
    parser = subparsers.add_parser(
        "diff",
        description="List the files in which the root file systems of two images differ (ext2, ext3 or ext4; raw or "
        "qcow2), or the only file systems there, or those of --partition N. A line begins with - for what only IMAGE1 "
        "has, + for what only IMAGE2 has, = for what has changed; then come type, mode, size and path, and what has "
        "changed. Exit status: 0 the same, 1 different, 2 an image cannot be read.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        add_help=False,  # -h is of virt-diff
    )
    parser.add_argument("--help", action="help", help="show this help message and exit")
    parser.add_argument("-f", dest="format", choices=FORMATS, help="format of IMAGE1 (default: by its contents)")
    parser.add_argument("-F", dest="other_format", choices=FORMATS, help="format of IMAGE2 (default: by its contents)")
    parser.add_argument("--partition", type=partition_number, metavar="N", help="the files of partition N of both")
    parser.add_argument("-h", "--human-readable", action="store_true", help="sizes such as 1.5K and 10G")
    parser.add_argument("--times", action="store_true", help="times of modification are compared, too")
    add_output_option(parser)
    add_references_option(parser)
    parser.add_argument("image", metavar="IMAGE1")
    parser.add_argument("other_image", metavar="IMAGE2")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """List the differences of the images that the arguments name; returns the exit status."""
    counted = _Counted()
    try:
        with references(arguments) as policy:
            require_file_name(arguments.image)
            require_file_name(arguments.other_image)
            how: dict[str, Any] = {"partition": arguments.partition, "references": policy}
            with (
                open_tree(arguments.image, format=arguments.format, **how) as old,
                open_tree(arguments.other_image, format=arguments.other_format, **how) as new,
            ):
                found = counted.each(tree_differences(old, new, times=arguments.times))
                if arguments.output == "json":
                    show((_facts(one) for one in found), (), "json")
                else:
                    show(None, (_line(one, arguments) for one in found), "human")
    except DiskImageError as error:
        tell(str(error))
        return NOT_READ
    return DIFFERENT if counted.any else SAME


class _Counted:
    """Whether anything went by."""

    def __init__(self) -> None:
        self.any = False

    def each(self, found: Iterator[FileDifference]) -> Iterator[FileDifference]:
        for one in found:
            self.any = True
            yield one


def _line(one: FileDifference, arguments: argparse.Namespace) -> str:
    sign = "+" if one.old is None else "-" if one.new is None else "="
    status = one.new or one.old
    assert status is not None
    size = short_size(status.st_size) if arguments.human_readable else str(status.st_size)
    letter = _LETTERS[stat.S_IFMT(status.st_mode)]
    changed = f" # {', '.join(one.fields)}" if one.fields else ""
    return f"{sign} {letter} {stat.S_IMODE(status.st_mode):04o} {size:>10} {printable(one.path)}{changed}"


def _facts(one: FileDifference) -> dict[str, object]:
    sides = {"old": one.old, "new": one.new}
    facts: dict[str, object] = {"path": shown(one.path), "changed": list(one.fields)}
    for side, status in sides.items():
        facts[side] = None if status is None else file_facts(one.path, status, None)
    return facts
