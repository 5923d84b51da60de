# SPDX-License-Identifier: MIT
"""pydiskimg copy-out: copy files and directories of an image into a directory, as virt-copy-out does."""

from __future__ import annotations

import errno
import os
import stat
from contextlib import suppress

from pydiskimg.cli.arguments import require_name
from pydiskimg.cli.output import tell
from pydiskimg.cli.tree_argument import READ, add_tree_arguments, image_argument, path_argument, tree_argument
from pydiskimg.errors import StorageError
from pydiskimg.startup import TYPE_CHECKING
from pydiskimg.text import printable

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterator, Sequence
    from typing import Any

    from pydiskimg.files.entry import Entry
    from pydiskimg.fs.ext4.tree import ExtTree

_DEVICES = (stat.S_IFCHR, stat.S_IFBLK)
_EXAMPLES = """\
pydiskimg copy-out disk.qcow2 /etc /var/log copies/
"""


def add_parser(subparsers: Any) -> None:
    """Declare the subcommand."""
    parser = subparsers.add_parser(
        "copy-out",
        description="Copy the files and directories PATH of IMAGE, with everything in them, into DIRECTORY. Owners, "
        "devices and attributes other than user.* are copied only by root; copies by other users belong to "
        f"them. A file of the same name in DIRECTORY is replaced. {READ}",
        examples=_EXAMPLES,
    )
    add_tree_arguments(parser)
    parser.add_argument("paths", metavar="PATH", nargs="+", type=path_argument, help="file or directory in the image")
    parser.add_argument("directory", metavar="DIRECTORY", help="existing directory")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> None:
    """Copy the files in the arguments."""
    from pydiskimg.files.writer import Wording, open_writer
    from pydiskimg.fs.ext4.tree.entries import TreeEntries

    require_name(arguments.directory, "directory")
    with (
        tree_argument(arguments) as tree,
        open_writer(arguments.directory, Wording(tree.name, "copy", "copied"), kept=_own_files(arguments)) as writer,
    ):
        _check(tree, arguments.paths)
        _keep_image(arguments)
        for path in arguments.paths:
            name = _name(path)
            prefix = b"" if name in ("", ".", "..") else name.encode("utf-8", "surrogateescape")
            entries = TreeEntries(tree, path, prefix).entries()
            for entry in entries if os.geteuid() == 0 else _ours(entries):
                writer.make(entry)
        writer.finish()
        if writer.left_out:
            tell(str(writer.left_out))


def _check(tree: ExtTree, paths: Sequence[str]) -> None:
    """Refuse, before the first copy, missing files, and a file that would replace another one of PATH."""
    seen: dict[str, tuple[str, bool]] = {}
    for path in paths:
        is_directory = stat.S_ISDIR(tree.stat(path, follow_symlinks=False).st_mode)
        first, both = seen.setdefault(_name(path), (path, is_directory))
        if first != path and not (both and is_directory):
            text = f"would replace the copy of {printable(first)}, which has the same name; copy it elsewhere"
            raise tree.error(path, text, errno.EEXIST)


def _keep_image(arguments: argparse.Namespace) -> None:
    """Raise StorageError if a copy would replace IMAGE, which may be in DIRECTORY."""
    for path in arguments.paths:
        copy = os.path.join(arguments.directory, _name(path))
        if os.path.isfile(copy) and os.path.exists(arguments.image) and os.path.samefile(copy, arguments.image):
            text = f"{copy}: is the image itself, which a copy of {printable(path)} would replace; copy it elsewhere"
            raise StorageError(text, errno=errno.EEXIST, filename=copy)


def _own_files(arguments: argparse.Namespace) -> set[tuple[int, int]]:
    """Return device and inode of IMAGE and its backing files, which may be anywhere in DIRECTORY."""
    found = set()
    with image_argument(arguments) as source:
        for name in source.files():
            with suppress(OSError):  # an address is not a file
                status = os.stat(name)
                found.add((status.st_dev, status.st_ino))
    return found


def _name(path: str) -> str:
    return path.rstrip("/").rpartition("/")[2]


def _ours(entries: Iterator[Entry]) -> Iterator[Entry]:
    """Yield the entries that an ordinary user can make."""
    from dataclasses import replace  # imported here: it would slow --help down

    uid, gid, left_out = os.geteuid(), os.getegid(), 0
    for entry in entries:
        if entry.kind in _DEVICES:
            left_out += 1
            continue
        xattrs = {name: value for name, value in entry.xattrs.items() if name.startswith(b"user.")}
        yield replace(entry, uid=uid, gid=gid, xattrs=xattrs, acls={}, flags=0)
    if left_out:
        tell(f"devices left out, which only root can make: {left_out}")
