# SPDX-License-Identifier: MIT
"""pydiskimg copy-in: copy local files and directories into a directory of an image, as virt-copy-in does."""

from __future__ import annotations

import errno
import os

from pydiskimg.cli.arguments import require_name
from pydiskimg.cli.options import add_progress_option
from pydiskimg.cli.output import tell
from pydiskimg.cli.progress import progress
from pydiskimg.cli.tree_argument import (
    CHANGED,
    add_tree_arguments,
    changed_tree_argument,
    check_directory,
    path_argument,
)
from pydiskimg.errors import StorageError
from pydiskimg.startup import TYPE_CHECKING

if TYPE_CHECKING:
    import argparse
    from typing import Any

    from pydiskimg.files.directory import DirectoryReader
_EXAMPLES = """\
pydiskimg copy-in disk.qcow2 index.html icons/ /srv/www
"""


def add_parser(subparsers: Any) -> None:
    """Declare the subcommand."""
    parser = subparsers.add_parser(
        "copy-in",
        description="Copy local files and directories, with everything in them, into the existing directory REMOTEDIR "
        "of IMAGE. Owners, modes, times, links, devices, holes, extended attributes and ACLs are those of the "
        "originals, even if an ordinary user copies. A file of the same name in REMOTEDIR is replaced; a "
        "directory gets the new files in addition to its own. Directories LOCAL of one name are joined, in the order "
        "given: where two of them have the same file, the later one is kept, as by virt-copy-in. IMAGE itself and its "
        f"backing files cannot be copied. {CHANGED}",
        examples=_EXAMPLES,
    )
    add_progress_option(parser, " on standard error")
    add_tree_arguments(parser)
    parser.add_argument("sources", metavar="LOCAL", nargs="+", help="file or directory; a symlink is copied as one")
    parser.add_argument("directory", metavar="REMOTEDIR", type=path_argument, help="directory in the image")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> None:
    """Copy the files in the arguments."""
    from pydiskimg.cli.backing_chain import files_of_image  # imported here, as the following: it would slow --help down
    from pydiskimg.files.writer import Wording

    for source in arguments.sources:
        require_name(source, "file")
    with changed_tree_argument(arguments) as tree:
        check_directory(tree, arguments.directory, "files are copied into one, under their own names")
        refused = files_of_image(arguments)
        readers = [_reader(source, refused) for source in arguments.sources]
        _check_different(arguments.sources, [reader.prefix for reader in readers])
        for source, reader in zip(arguments.sources, readers, strict=True):
            with progress(os.path.basename(source.rstrip("/")) or source, shown=arguments.progress) as reader.progress:
                put = tree.put(reader.entries(), arguments.directory, wording=Wording(source, "copy", "copied"))
            if put.left_out:
                tell(f"{source}: {put.left_out}")


def _check_different(sources: list[str], names: list[bytes]) -> None:
    """Raise StorageError for a source that would replace a file of another one; directories are joined."""
    seen: dict[bytes, str] = {}
    for source, name in zip(sources, names, strict=True):
        if name and name in seen and not (_is_directory(source) and _is_directory(seen[name])):
            raise StorageError(
                f"{source}: has the same name as {seen[name]}; copy it into another directory",
                errno=errno.EEXIST,
                filename=source,
            )
        seen[name] = source


def _is_directory(source: str) -> bool:
    return os.path.isdir(source) and not os.path.islink(source.rstrip("/"))


def _reader(source: str, refused: dict[tuple[int, int], str]) -> DirectoryReader:
    """Return a reader of a file or directory. Raises StorageError for a refused one, before the first copy."""
    from pydiskimg.cli.backing_chain import check_not_of_image  # imported here, as above
    from pydiskimg.files.directory import DirectoryReader

    top = os.fsencode(source.rstrip("/") or "/")
    check_not_of_image(refused, os.fsdecode(top), name=source, follow=False)
    name = os.path.basename(top)
    return DirectoryReader(top, prefix=b"" if name in (b"", b".", b"..") else name, refused=refused)
