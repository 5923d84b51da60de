# SPDX-License-Identifier: MIT
"""pydiskimg ls: list the names in a directory of an image, as virt-ls does."""

from __future__ import annotations

import os
import stat

from pydiskimg.cli.file_facts import allocated_bytes, file_facts, long_line, other_times, target_of
from pydiskimg.cli.options import add_human_readable_option, add_output_option
from pydiskimg.cli.output import show
from pydiskimg.cli.tree_argument import EMPTY_PATH, READ, declare_tree_arguments, path_argument, tree_argument
from pydiskimg.startup import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

    from pydiskimg.cli import Arguments, Parser
    from pydiskimg.fs.ext4.tree import ExtTree
_EXAMPLES = """\
pydiskimg ls -l disk.qcow2 /etc
pydiskimg ls -lR --checksum disk.qcow2 /etc
pydiskimg ls --partition 2 --output json disk.raw /
"""


def add_parser(subparsers: Any) -> None:
    """Declare the subcommand."""
    from pydiskimg.cli.ls_fields import add_field_options, check_field_options
    from pydiskimg.cli.references import add_references_option

    def run_checked(arguments: Arguments) -> None:
        check_field_options(arguments, parser)
        run(arguments)

    parser = subparsers.add_parser(
        "ls",
        description=f"List the directories PATH of IMAGE, or the files PATH themselves, sorted. {READ}",
        add_help=False,  # -h is of ls
        examples=_EXAMPLES,
    )
    declare_common(parser)
    add_field_options(parser)
    add_references_option(parser)
    parser.set_defaults(run=run_checked)


def declare_common(parser: Parser) -> None:
    """Declare the options of the common form."""
    parser.add_argument("-l", "--long", action="store_true", help="with mode, links, owners, size and time, as ls -l")
    parser.add_argument("-R", "--recursive", action="store_true", help="everything below PATH, by its whole path")
    add_human_readable_option(parser, "with -l: ")
    parser.add_argument("--times", action="store_true", help="times of the last access and of the inode, too")
    parser.add_argument("--extra-stats", action="store_true", help="inode and blocks of 512 bytes, too")
    add_output_option(parser)
    declare_tree_arguments(parser)
    parser.add_argument("paths", metavar="PATH", nargs="*", default=(), type=path_argument, help="default: /")
    parser.set_defaults(more_operands="paths")


def run(arguments: Arguments) -> None:
    """List the files in the arguments."""
    has_fields = arguments.long and arguments.recursive and arguments.output != "json"
    with tree_argument(arguments) as tree:
        if "" in arguments.paths:  # one after options, which was not converted
            arguments.parser.error(EMPTY_PATH)
        paths = [path_argument(path) for path in arguments.paths or ["/"]]  # those after options have no "/" yet
        found = _found(tree, paths, recursive=arguments.recursive, with_top=has_fields)
        if arguments.output == "json":
            show((_facts(tree, path, status, arguments) for path, _, status in found), (), "json")
        elif has_fields:
            from pydiskimg.cli.ls_fields import field_lines  # imported here, because it is rarely used

            show(None, field_lines(tree, found, arguments), "human")
        elif arguments.long or arguments.times or arguments.extra_stats:
            show(None, (_line(tree, path, name, status, arguments) for path, name, status in found), "human")
        else:
            show(None, (name for _, name, _ in found), "human")


def _facts(tree: ExtTree, path: str, status: os.stat_result, arguments: Arguments) -> dict[str, Any]:
    facts = file_facts(path, status, target_of(tree, path, status))
    facts |= other_times(status) if arguments.times else {}
    if arguments.checksum and stat.S_ISREG(status.st_mode):
        from pydiskimg.transfer.digest import digest  # imported here: it imports hashlib

        facts[arguments.checksum] = digest(tree.open(path), arguments.checksum)
    return facts | (allocated_bytes(status) if arguments.extra_stats else {})


def _line(tree: ExtTree, path: str, name: str, status: os.stat_result, arguments: Arguments) -> str:
    return long_line(
        name,
        status,
        target_of(tree, path, status),
        in_units=arguments.human_readable,
        all_times=arguments.times,
        is_extended=arguments.extra_stats,
    )


def _found(
    tree: ExtTree, paths: list[str], *, recursive: bool, with_top: bool
) -> Iterator[tuple[str, str, os.stat_result]]:
    """Yield (path, its name in the line, lstat); with_top: also a directory itself, before the files below it."""
    for path in paths:
        status = tree.stat(path, follow_symlinks=False)
        if stat.S_ISLNK(status.st_mode) and tree.exists(path):
            leads_to_directory = stat.S_ISDIR(tree.stat(path).st_mode)
        else:
            leads_to_directory = stat.S_ISDIR(status.st_mode)
        if not leads_to_directory:
            yield path, path, status
        elif recursive:
            if with_top:
                yield path, path, tree.stat(path)
            for below, status in tree.walk(path):
                yield below, below, status
        else:
            above = path.rstrip("/")
            for name in tree.list(path):
                below = f"{above}/{name}"
                yield below, name, tree.stat(below, follow_symlinks=False)
