# SPDX-License-Identifier: MIT
"""pydiskimg rm: remove files and directories of an image, as rm does."""

from __future__ import annotations

import errno

from pydiskimg.cli.tree_argument import CHANGED, add_tree_arguments, changed_tree_argument, path_argument
from pydiskimg.errors import StorageError
from pydiskimg.startup import TYPE_CHECKING

if TYPE_CHECKING:
    import argparse
    from typing import Any

    from pydiskimg.fs.ext4.change.tree import ChangedTree
_EXAMPLES = """\
pydiskimg rm disk.qcow2 /etc/hostname
pydiskimg rm -rf disk.qcow2 /var/cache/apt
"""


def add_parser(subparsers: Any) -> None:
    """Declare the subcommand."""
    parser = subparsers.add_parser(
        "rm",
        description=f"Remove the files PATH of IMAGE; of a symlink, the link itself. {CHANGED}",
        examples=_EXAMPLES,
    )
    parser.add_argument(
        "-r", "--recursive", action="store_true", help="remove directories, too, with everything in them"
    )
    parser.add_argument("-f", "--force", action="store_true", help="ignore a PATH that does not exist")
    add_tree_arguments(parser, format_options=("--format",))
    parser.add_argument("paths", metavar="PATH", nargs="+", type=path_argument, help="file in the image")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> None:
    """Remove the files in the arguments."""
    from contextlib import suppress  # imported here: they would slow --help down

    from pydiskimg.files.tree import MissingPathError

    with changed_tree_argument(arguments) as tree:
        for path in arguments.paths:
            with suppress(*([MissingPathError] if arguments.force else [])):
                if arguments.recursive:
                    tree.remove_tree(path)
                else:
                    _remove(tree, path)


def _remove(tree: ChangedTree, path: str) -> None:
    try:
        tree.remove(path)
    except StorageError as error:
        if error.errno != errno.EISDIR:
            raise
        raise StorageError(f"{error}; -r removes directories", errno=errno.EISDIR, filename=path) from error
