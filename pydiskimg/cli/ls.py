# SPDX-License-Identifier: MIT
"""pydiskimg ls: the names in a directory of an image, as virt-ls lists them."""

from __future__ import annotations

import argparse
import os
import stat
from collections.abc import Iterator

from pydiskimg.cli.file_facts import file_facts, long_line, target_of
from pydiskimg.cli.output import add_output_option, show
from pydiskimg.cli.tree_argument import READ, add_tree_arguments, path_argument, tree_argument
from pydiskimg.startup import TYPE_CHECKING

if TYPE_CHECKING:
    from typing import Any

    from pydiskimg.fs.ext4.tree import ExtTree


def add_parser(subparsers: Any) -> None:
    """Declare the subcommand."""
    parser = subparsers.add_parser(
        "ls",
        help="list files of an image",
        description=f"List the directories PATH of IMAGE, or the files PATH themselves, sorted. {READ}",
    )
    parser.add_argument("-l", "--long", action="store_true", help="with mode, links, owners, size and time, as ls -l")
    parser.add_argument("-R", "--recursive", action="store_true", help="everything below PATH, by its whole path")
    add_output_option(parser)
    add_tree_arguments(parser)
    parser.add_argument("paths", metavar="PATH", nargs="*", type=path_argument, help="default: /")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> None:
    """List what the arguments name."""
    with tree_argument(arguments) as tree:
        found = _found(tree, arguments.paths or ["/"], recursive=arguments.recursive)
        if arguments.output == "json":
            show((file_facts(path, status, target_of(tree, path, status)) for path, _, status in found), (), "json")
        elif arguments.long:
            lines = (long_line(name, status, target_of(tree, path, status)) for path, name, status in found)
            show(None, lines, "human")
        else:
            show(None, (name for _, name, _ in found), "human")


def _found(tree: ExtTree, paths: list[str], *, recursive: bool) -> Iterator[tuple[str, str, os.stat_result]]:
    """Yield (path, what a line calls it, lstat)."""
    for path in paths:
        status = tree.stat(path, follow_symlinks=False)
        if stat.S_ISLNK(status.st_mode) and tree.exists(path):
            leads_to_directory = stat.S_ISDIR(tree.stat(path).st_mode)
        else:
            leads_to_directory = stat.S_ISDIR(status.st_mode)
        if not leads_to_directory:
            yield path, path, status
        elif recursive:
            for below, status in tree.walk(path):
                yield below, below, status
        else:
            above = path.rstrip("/")
            for name in tree.list(path):
                below = f"{above}/{name}"
                yield below, name, tree.stat(below, follow_symlinks=False)
