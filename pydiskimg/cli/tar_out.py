# SPDX-License-Identifier: MIT
"""pydiskimg tar-out: pack a directory of an image as a tar archive, as virt-tar-out does."""

from __future__ import annotations

import argparse
import os

from pydiskimg.cli.arguments import require_name
from pydiskimg.cli.output import tell
from pydiskimg.cli.pipes import destination_pipe, is_destination_pipe
from pydiskimg.cli.progress import progress
from pydiskimg.cli.tree_argument import (
    READ,
    add_tree_arguments,
    check_directory,
    image_argument,
    path_argument,
    tree_argument,
)
from pydiskimg.startup import TYPE_CHECKING

if TYPE_CHECKING:
    from typing import Any

    from pydiskimg.fs.ext4.tree import ExtTree
_EXAMPLES = """\
pydiskimg tar-out disk.qcow2 /etc etc.tar
pydiskimg tar-out --partition 2 disk.raw / - | gzip > root.tar.gz
"""


def add_parser(subparsers: Any) -> None:
    """Declare the subcommand."""
    parser = subparsers.add_parser(
        "tar-out",
        description="Pack the directory PATH of IMAGE, with everything in it, as the tar archive TARBALL, "
        "uncompressed, with owners, nanoseconds, hard links, devices, holes, extended attributes and ACLs. A symlink "
        f"PATH is followed. {READ}",
        examples=_EXAMPLES,
    )
    parser.add_argument("-p", dest="progress", action="store_true", help="show progress on standard error")
    add_tree_arguments(parser)
    parser.add_argument("path", metavar="PATH", type=path_argument, help="directory in the image")
    parser.add_argument("tarball", metavar="TARBALL", help="a new file, or - for standard output")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> None:
    """Pack the directory in the arguments."""
    require_name(arguments.tarball, "archive")
    with tree_argument(arguments) as tree:
        check_directory(tree, arguments.path, "copy-out copies a single file, and cat shows one")
        if is_destination_pipe(arguments.tarball):
            if arguments.tarball == "-":  # which may be a file
                _refuse_image(arguments)
            with destination_pipe(arguments.tarball) as (fd, name):
                _pack(tree, arguments, fd, name)
            return
        from pydiskimg.disks.new_file import new_file  # imported here: a pipe does not need it

        if os.path.exists(arguments.tarball):
            _refuse_image(arguments)
        with new_file(arguments.tarball) as (fd, name):
            _pack(tree, arguments, fd, name)


def _refuse_image(arguments: argparse.Namespace) -> None:
    """Raise InUseError if the archive would replace IMAGE or one of its backing files."""
    from pydiskimg.cli.convert_target import refuse_own_file  # imported here: a new file needs no such check

    with image_argument(arguments) as source:
        refuse_own_file(source, arguments.tarball, named=[arguments.image])


def _pack(tree: ExtTree, arguments: argparse.Namespace, fd: int, name: str) -> None:
    # imported here: readers of file systems would slow --help down
    from pydiskimg.files.entry_progress import stored_bytes, with_progress
    from pydiskimg.files.tar.writer import write_archive
    from pydiskimg.fs.ext4.tree.entries import TreeEntries

    path = arguments.path
    entries = TreeEntries(tree, path, b".", follow_symlinks=True).entries()
    with progress(os.path.basename(tree.name), shown=arguments.progress) as callback:
        if callback is not None:
            # A hard link is met once for each of its names, and packed once.
            sizes = {status.st_ino: stored_bytes(status) for _, status in tree.walk(f"{path}/")}
            entries = with_progress(entries, callback, sum(sizes.values()))
        left_out = write_archive(entries, fd, name)
    if left_out:
        tell(f"sockets left out, because tar archives cannot store them: {left_out}")
