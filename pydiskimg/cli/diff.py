# SPDX-License-Identifier: MIT
"""pydiskimg diff: list the files in which two images differ, as virt-diff does."""

from __future__ import annotations

import stat
from argparse import SUPPRESS

from pydiskimg.cli.arguments import require_file_name
from pydiskimg.cli.file_facts import file_facts, short_size, shown
from pydiskimg.cli.options import add_format_option, add_human_readable_option, add_output_option, volume_number
from pydiskimg.cli.output import show, tell
from pydiskimg.cli.references import add_references_option, references
from pydiskimg.errors import DiskImageError
from pydiskimg.startup import TYPE_CHECKING
from pydiskimg.text import printable

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterator
    from typing import Any

    from pydiskimg.fs.ext4.tree.differences import FileDifference

_CHECKSUMS = ("crc", "md5", "sha1", "sha224", "sha256", "sha384", "sha512")  # of virt-diff
SAME, DIFFERENT, NOT_READ = 0, 1, 2
_LETTERS = {stat.S_IFREG: "-", stat.S_IFDIR: "d", stat.S_IFLNK: "l", stat.S_IFCHR: "c", stat.S_IFBLK: "b"}
_LETTERS |= {stat.S_IFIFO: "p", stat.S_IFSOCK: "s"}
_EXAMPLES = """\
pydiskimg diff before.qcow2 after.qcow2
pydiskimg diff --partition 2 --times before.qcow2 disk.raw
"""


def add_parser(subparsers: Any) -> None:
    """Declare the subcommand."""
    parser = subparsers.add_parser(
        "diff",
        description="List the files that differ between the root file systems of two images (ext2, ext3 or ext4; raw "
        "or qcow2), their only file systems, or those of --partition N. A line begins with - for a file that "
        "only IMAGE1 has, + for one that only IMAGE2 has, = for one that differs; type, mode and size "
        "(of IMAGE1, if both have it), path and what differs follow. Exit status: 0 the same, 1 different, "
        "2 an image cannot be read.",
        examples=_EXAMPLES,
        add_help=False,  # -h is of virt-diff
    )
    add_format_option(parser, of="IMAGE1")
    add_format_option(parser, "-F", of="IMAGE2", dest="other_format")
    parser.add_argument(
        "--partition", type=volume_number, metavar="N", help="compare partition N of both; 0: the whole disks"
    )
    add_human_readable_option(parser)
    parser.add_argument("--times", "--all", action="store_true", help="compare times of modification, too")
    text = "accepted as by virt-diff; contents are always compared, byte by byte"
    parser.add_argument("--checksum", action="store_true", help=text)
    with_kind = [f"--checksum={kind}" for kind in _CHECKSUMS]
    parser.add_argument(*with_kind, dest="checksum", action="store_true", help=SUPPRESS)
    for option in ("--uids", "--xattrs"):
        parser.add_argument(option, action="store_true", help="accepted as by virt-diff; is always compared")
    add_output_option(parser)
    add_references_option(parser)
    parser.add_argument("image", metavar="IMAGE1", help="disk image or block device")
    parser.add_argument("other_image", metavar="IMAGE2", help="disk image or block device")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """List the differences of the images in the arguments; return the exit status."""
    from pydiskimg.fs.ext4.tree.differences import tree_differences  # imported here: they would slow --help down
    from pydiskimg.volumes.tree import open_tree

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
    """Records whether there was any difference."""

    def __init__(self) -> None:
        self.any = False

    def each(self, found: Iterator[FileDifference]) -> Iterator[FileDifference]:
        for one in found:
            self.any = True
            yield one


def _line(one: FileDifference, arguments: argparse.Namespace) -> str:
    sign = "+" if one.old is None else "-" if one.new is None else "="
    status = one.old or one.new  # virt-diff, too, shows the old state of a changed file
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
