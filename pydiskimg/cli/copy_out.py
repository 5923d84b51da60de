# SPDX-License-Identifier: MIT
"""pydiskimg copy-out: files and directories of an image into a directory, as virt-copy-out copies them."""

from __future__ import annotations

import argparse
import os
import stat
from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from pydiskimg.cli.output import tell
from pydiskimg.cli.tree_argument import READ, add_tree_arguments, path_argument, tree_argument

if TYPE_CHECKING:
    from pydiskimg.files.entry import Entry

_DEVICES = (stat.S_IFCHR, stat.S_IFBLK)


def add_parser(subparsers: Any) -> None:
    """Declare the subcommand."""
    parser = subparsers.add_parser(
        "copy-out",
        description="Copy the files and directories PATH of IMAGE, with all that is in them, into DIRECTORY. Owners, "
        "devices and attributes other than user.* are copied by root alone; for others, the copies are theirs. What "
        f"has the same name in DIRECTORY is replaced. {READ}",
    )
    add_tree_arguments(parser)
    parser.add_argument("paths", metavar="PATH", nargs="+", type=path_argument)
    parser.add_argument("directory", metavar="DIRECTORY", help="a directory that is there")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> None:
    """Copy what the arguments name."""
    from pydiskimg.files.writer import Wording, open_writer
    from pydiskimg.fs.ext4.tree.entries import TreeEntries

    with (
        tree_argument(arguments) as tree,
        open_writer(arguments.directory, Wording(tree.name, "copy", "copied")) as writer,
    ):
        for path in arguments.paths:
            name = path.rstrip("/").rpartition("/")[2]
            prefix = b"" if name in ("", ".", "..") else name.encode("utf-8", "surrogateescape")
            entries = TreeEntries(tree, path, prefix).entries()
            for entry in entries if os.geteuid() == 0 else _ours(entries):
                writer.make(entry)
        writer.finish()
        if writer.left_out:
            tell(str(writer.left_out))


def _ours(entries: Iterator[Entry]) -> Iterator[Entry]:
    """Yield the entries as an ordinary user can make them."""
    uid, gid, left_out = os.geteuid(), os.getegid(), 0
    for entry in entries:
        if entry.kind in _DEVICES:
            left_out += 1
            continue
        xattrs = {name: value for name, value in entry.xattrs.items() if name.startswith(b"user.")}
        yield replace(entry, uid=uid, gid=gid, xattrs=xattrs, acls={}, flags=0)
    if left_out:
        tell(f"devices left out, which only root can make: {left_out}")
