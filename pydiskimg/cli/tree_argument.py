# SPDX-License-Identifier: MIT
"""The files of an image for ls, cat, stat, rm, mkdir and the copying commands: IMAGE, --partition, -f."""

from __future__ import annotations

from pydiskimg.cli.options import add_format_option, volume_number
from pydiskimg.startup import TYPE_CHECKING

if TYPE_CHECKING:
    import argparse
    from typing import Any

    from pydiskimg.cli import Arguments, Parser
    from pydiskimg.fs.ext4.change.tree import ChangedTree
    from pydiskimg.fs.ext4.tree import ExtTree
    from pydiskimg.protocols import ImageSource

READ = (
    "The files are those of the root file system on IMAGE (ext2, ext3 or ext4; raw or qcow2), of its only file "
    "system, or of --partition N. They are read without a mount, and nothing is written to IMAGE."
)

EMPTY_PATH = "the path is empty; / is the root directory"

CHANGED = (
    "The files are those of the root file system on IMAGE (ext2, ext3 or ext4; raw or qcow2), of its only file "
    "system, or of --partition N. They are changed without a mount; an image that is mounted, attached or used by a "
    "virtual machine is refused. An interruption leaves each file in its old or its new state, and a file system that "
    "is consistent once its journal has been replayed or e2fsck -p has run."
)


def add_tree_arguments(parser: argparse.ArgumentParser, *, format_options: tuple[str, ...] = ()) -> None:
    """Add -f, --partition, --allow-references and IMAGE."""
    from pydiskimg.cli.references import add_references_option

    declare_tree_arguments(parser, format_options=format_options)
    add_references_option(parser)


def declare_tree_arguments(parser: Parser, *, format_options: tuple[str, ...] = ()) -> None:
    """Add -f, --partition and IMAGE, which are common."""
    add_format_option(parser, *format_options)
    parser.add_argument(
        "--partition", type=volume_number, metavar="N", help="the files of partition N; 0: of the whole disk"
    )
    parser.add_argument("image", metavar="IMAGE", help="disk image or block device")


def tree_argument(arguments: Arguments) -> ExtTree:
    """Return the files of the image in the arguments, to be closed. Raises as open_tree() does."""
    found: ExtTree = _opened(arguments)
    return found


def changed_tree_argument(arguments: Arguments) -> ChangedTree:
    """Return the files of the image in the arguments, to be changed and closed. Raises as open_tree() does."""
    found: ChangedTree = _opened(arguments, writable=True)
    return found


def image_argument(arguments: Arguments) -> ImageSource:
    """Return the image in the arguments itself, to be closed: its files are those that must not be overwritten."""
    from pydiskimg.cli.arguments import open_source  # imported here: it would slow --help down
    from pydiskimg.cli.references import references

    with references(arguments) as policy:
        return open_source(arguments.image, format=arguments.format, references=policy)


def _opened(arguments: Arguments, **how: Any) -> Any:
    from pydiskimg.volumes.tree import open_tree  # imported here: the readers of file systems would slow --help down

    if arguments.image in ("", "-"):
        from pydiskimg.cli.arguments import require_file_name

        require_file_name(arguments.image)
    how |= {"partition": arguments.partition, "format": arguments.format}
    if arguments.allow_references is None:
        return open_tree(arguments.image, **how)
    from pydiskimg.cli.references import references

    with references(arguments) as policy:
        return open_tree(arguments.image, references=policy, **how)


def check_directory(tree: ExtTree, path: str, advice: str) -> None:
    """Raise StorageError, with the advice, if path is not a directory of the tree."""
    import errno
    import stat

    if not stat.S_ISDIR(tree.stat(path).st_mode):
        raise tree.error(path, f"is not a directory; {advice}", errno.ENOTDIR)


def path_argument(text: str) -> str:
    """Return a path in the image, as a type for argparse: paths begin at the root, with or without "/"."""
    if not text:  # an unset variable of a shell, which must not mean the root
        from argparse import ArgumentTypeError  # imported here: the common forms of cat and ls do not need argparse

        raise ArgumentTypeError(EMPTY_PATH)
    return text if text.startswith("/") else f"/{text}"
