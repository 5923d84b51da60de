# SPDX-License-Identifier: MIT
"""pydiskimg cat: the contents of files of an image on standard output, as virt-cat prints them."""

from __future__ import annotations

import argparse
import os
import sys

from pydiskimg.cli.tree_argument import READ, add_tree_arguments, path_argument, tree_argument
from pydiskimg.protocols import read_bytes
from pydiskimg.startup import TYPE_CHECKING
from pydiskimg.units import MIB

if TYPE_CHECKING:
    from typing import Any

    from pydiskimg.fs.ext4.tree import ExtTree


def add_parser(subparsers: Any) -> None:
    """Declare the subcommand."""
    parser = subparsers.add_parser(
        "cat",
        help="print files of an image",
        description=f"Print the contents of the files PATH of IMAGE, one after the other. {READ}",
    )
    add_tree_arguments(parser)
    parser.add_argument("paths", metavar="PATH", nargs="+", type=path_argument)
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> None:
    """Print the files that the arguments name."""
    sys.stdout.flush()
    with tree_argument(arguments) as tree:
        for path in arguments.paths:
            _print(tree, path)


def _print(tree: ExtTree, path: str) -> None:
    source = tree.open(path)
    for offset in range(0, source.size, MIB):
        with tree.errors(path):
            data = read_bytes(source, offset, min(MIB, source.size - offset))
        left = memoryview(data)
        while left:
            left = left[os.write(sys.stdout.fileno(), left) :]
