# SPDX-License-Identifier: MIT
"""pydiskimg mkdir: make directories in an image, as mkdir does."""

from __future__ import annotations

import argparse
import errno
import stat
from itertools import accumulate

from pydiskimg.cli.tree_argument import (
    CHANGED,
    add_tree_arguments,
    changed_tree_argument,
    check_directory,
    path_argument,
)
from pydiskimg.startup import TYPE_CHECKING

if TYPE_CHECKING:
    from typing import Any

    from pydiskimg.fs.ext4.change.tree import ChangedTree

_MODE = 0o755
_EXAMPLES = """\
pydiskimg mkdir -p disk.qcow2 /srv/www/icons
pydiskimg mkdir -m 700 disk.qcow2 /root/.ssh
"""


def add_parser(subparsers: Any) -> None:
    """Declare the subcommand."""
    parser = subparsers.add_parser(
        "mkdir", description=f"Make the directories PATH in IMAGE, owned by root. {CHANGED}", examples=_EXAMPLES
    )
    parser.add_argument(
        "-p", "--parents", action="store_true", help="make missing directories above PATH, too; existing ones are kept"
    )
    parser.add_argument("-m", "--mode", type=_mode, default=_MODE, metavar="MODE", help="in octal (default: 755)")
    add_tree_arguments(parser)
    parser.add_argument("paths", metavar="PATH", nargs="+", type=path_argument, help="directory in the image")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> None:
    """Make the directories in the arguments."""
    with changed_tree_argument(arguments) as tree:
        for path in arguments.paths:
            (_make_with_parents if arguments.parents else _make)(tree, path, arguments.mode)


def _make(tree: ChangedTree, path: str, mode: int) -> None:
    if tree.exists(path):
        raise tree.error(path, "already exists; -p accepts a directory that exists", errno.EEXIST)
    parts = [part for part in path.split("/") if part not in ("", ".")]
    for above in accumulate(f"/{part}" for part in parts[:-1]):
        if not tree.exists(above):
            raise tree.error(above, "does not exist; -p makes it, too", errno.ENOENT)
        if not stat.S_ISDIR(tree.stat(above).st_mode):
            break  # making it reports the error
    tree.make_directory(path, mode=mode)


def _make_with_parents(tree: ChangedTree, path: str, mode: int) -> None:
    parts = [part for part in path.split("/") if part not in ("", ".")]
    with tree.together():
        for count in range(1, len(parts) + 1):
            above = "/" + "/".join(parts[:count])
            if tree.exists(above):
                check_directory(tree, above, "remove or rename it first")
                continue
            tree.make_directory(above, mode=mode if count == len(parts) else _MODE)


def _mode(text: str) -> int:
    try:
        mode = int(text, 8)
    except ValueError:
        mode = -1
    if not 0 <= mode <= 0o7777 or not text.isdecimal():
        raise argparse.ArgumentTypeError(f"{text[:20]!r} is not a mode in octal; expected one such as 755")
    return mode
