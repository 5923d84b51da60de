# SPDX-License-Identifier: MIT
"""pydiskimg cat: print the contents of files of an image, as virt-cat does."""

from __future__ import annotations

import os
import sys

from pydiskimg.cli.tree_argument import READ, declare_tree_arguments, path_argument, tree_argument
from pydiskimg.protocols import read_bytes
from pydiskimg.startup import TYPE_CHECKING

if TYPE_CHECKING:
    from typing import Any

    from pydiskimg.cli import Arguments, Parser
    from pydiskimg.fs.ext4.tree import ExtTree

_AT_ONCE = 1 << 20  # bytes
_EXAMPLES = """\
pydiskimg cat disk.qcow2 /etc/os-release
pydiskimg cat --partition 2 disk.raw /etc/hostname /etc/fstab
"""


def add_parser(subparsers: Any) -> None:
    """Declare the subcommand."""
    from pydiskimg.cli.references import add_references_option

    parser = subparsers.add_parser(
        "cat",
        description=f"Print the contents of the files PATH of IMAGE, one after the other. {READ}",
        examples=_EXAMPLES,
    )
    declare_common(parser)
    add_references_option(parser)
    parser.set_defaults(run=run)


def declare_common(parser: Parser) -> None:
    """Declare the options of the common form."""
    declare_tree_arguments(parser)
    parser.add_argument("paths", metavar="PATH", nargs="+", type=path_argument, help="file in the image")


def run(arguments: Arguments) -> None:
    """Print the files in the arguments."""
    sys.stdout.flush()
    with tree_argument(arguments) as tree:
        for path in arguments.paths:
            _print(tree, path)


def _print(tree: ExtTree, path: str) -> None:
    source = tree.open(path)
    for offset in range(0, source.size, _AT_ONCE):
        with tree.errors(path):
            data = read_bytes(source, offset, min(_AT_ONCE, source.size - offset))
        left = memoryview(data)
        while left:
            left = left[os.write(sys.stdout.fileno(), left) :]
