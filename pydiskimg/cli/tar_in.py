# SPDX-License-Identifier: MIT
"""pydiskimg tar-in: unpack a tar archive into a directory of an image, as virt-tar-in does."""

from __future__ import annotations

import os
from contextlib import ExitStack

from pydiskimg.cli.arguments import require_name
from pydiskimg.cli.options import add_progress_option
from pydiskimg.cli.output import tell
from pydiskimg.cli.pipes import is_source_pipe, source_pipe
from pydiskimg.cli.progress import progress
from pydiskimg.cli.tree_argument import (
    CHANGED,
    add_tree_arguments,
    changed_tree_argument,
    check_directory,
    path_argument,
)
from pydiskimg.startup import TYPE_CHECKING

if TYPE_CHECKING:
    import argparse
    from typing import Any

_EXAMPLES = """\
pydiskimg tar-in disk.qcow2 site.tar.gz /srv/www
tar -cf - icons | pydiskimg tar-in -f qcow2 disk.qcow2 - /srv/www
"""


def add_parser(subparsers: Any) -> None:
    """Declare the subcommand."""
    parser = subparsers.add_parser(
        "tar-in",
        description="Unpack TARBALL, compressed or not, into the existing directory REMOTEDIR of IMAGE. Numeric "
        "owners, nanoseconds, hard links, devices, holes, extended attributes and ACLs are restored as packed, even "
        "if an ordinary user unpacks. A file of the same name is replaced, also by a later one of TARBALL; a "
        "directory gets the new files in addition to its own. TARBALL cannot be IMAGE itself or one of its backing "
        f"files. {CHANGED}",
        examples=_EXAMPLES,
    )
    add_progress_option(parser, " on standard error; not of pipes")
    add_tree_arguments(parser)
    parser.add_argument("tarball", metavar="TARBALL", help="a file, or - for standard input")
    parser.add_argument("directory", metavar="REMOTEDIR", type=path_argument, help="directory in the image")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> None:
    """Unpack the archive in the arguments."""
    from pydiskimg.cli.backing_chain import check_not_of_image, files_of_image
    from pydiskimg.files.tar import open_tar  # imported here: --help need not load libarchive
    from pydiskimg.files.writer import Wording

    require_name(arguments.tarball, "archive")
    with ExitStack() as stack:
        tree = stack.enter_context(changed_tree_argument(arguments))
        check_directory(tree, arguments.directory, "an archive is unpacked into one")
        fd, name = None, arguments.tarball
        if is_source_pipe(name):
            fd, name = stack.enter_context(source_pipe(name))
        check_not_of_image(files_of_image(arguments), name if fd is None else fd, name=name, follow=True)
        callback = stack.enter_context(progress(os.path.basename(name), shown=arguments.progress))
        entries = stack.enter_context(open_tar(name, fd=fd, progress=callback))
        put = tree.put(entries, arguments.directory, wording=Wording(name))
    if put.left_out:
        tell(f"{name}: {put.left_out}")
