# SPDX-License-Identifier: MIT
"""pydiskimg copy-in: local files and directories into a directory of an image, as virt-copy-in copies them."""

from __future__ import annotations

import argparse
import os
from typing import Any

from pydiskimg.cli.arguments import require_name
from pydiskimg.cli.output import tell
from pydiskimg.cli.tree_argument import CHANGED, add_tree_arguments, changed_tree_argument, path_argument


def add_parser(subparsers: Any) -> None:
    """Declare the subcommand."""
    parser = subparsers.add_parser(
        "copy-in",
        help="copy files into an image",
        description="Copy the local files and directories LOCAL, with all that is in them, into REMOTEDIR of IMAGE, a "
        "directory that is there. Owners, modes, times, links, devices, holes, extended attributes and ACLs are those "
        "of the originals, also when an ordinary user copies. What has the same name in REMOTEDIR is replaced; a "
        f"directory is filled. {CHANGED}",
    )
    add_tree_arguments(parser)
    parser.add_argument("sources", metavar="LOCAL", nargs="+", help="file or directory; a symlink is copied as one")
    parser.add_argument("directory", metavar="REMOTEDIR", type=path_argument, help="directory in the image")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> None:
    """Copy what the arguments name."""
    from pydiskimg.files.directory import DirectoryReader  # only here, as what follows: it would slow --help down
    from pydiskimg.files.writer import Wording

    for source in arguments.sources:
        require_name(source, "file")
    with changed_tree_argument(arguments) as tree:
        for source in arguments.sources:
            top = os.fsencode(source.rstrip("/") or "/")
            name = os.path.basename(top)
            reader = DirectoryReader(top, prefix=b"" if name in (b"", b".", b"..") else name)
            put = tree.put(reader.entries(), arguments.directory, wording=Wording(source, "copy", "copied"))
            if put.left_out:
                tell(f"{source}: {put.left_out}")
