# SPDX-License-Identifier: MIT
"""pydiskimg bitmap: change the dirty bitmaps of a qcow2 image."""

from __future__ import annotations

import os

from pydiskimg.cli.arguments import size_argument
from pydiskimg.cli.options import add_format_option
from pydiskimg.startup import TYPE_CHECKING

if TYPE_CHECKING:
    import argparse
    from typing import Any

    from pydiskimg.images.qcow2.bitmap_set import BitmapSet

_ACTIONS = {
    "add": "add BITMAP, without a bit set, enabled",
    "remove": "remove BITMAP; the one action for a bitmap that is in use",
    "clear": "let no bit of BITMAP be set",
    "enable": "let writes to the disk be recorded in BITMAP",
    "disable": "let writes to the disk not be recorded in BITMAP",
}
_EXAMPLES = """\
pydiskimg bitmap --add -g 64k disk.qcow2 monday
pydiskimg bitmap --add --merge monday disk.qcow2 week
pydiskimg bitmap --remove disk.qcow2 monday
"""


def add_parser(subparsers: Any) -> None:
    """Declare the subcommand."""
    parser = subparsers.add_parser(
        "bitmap",
        description="Change BITMAP, a persistent dirty bitmap of the qcow2 image FILE, by one or more actions, in the "
        "order given. All actions are made by one write: if one fails or is interrupted, the image stays as "
        "it was.",
        examples=_EXAMPLES,
    )
    for name, text in _ACTIONS.items():
        parser.add_argument(f"--{name}", dest="actions", action="append_const", const=(name, ""), help=text)
    parser.add_argument(
        "--merge",
        dest="actions",
        action="append",
        type=lambda source: ("merge", source),
        metavar="SOURCE",
        help="set the bits of BITMAP that bitmap SOURCE has set",
    )
    parser.add_argument("-g", "--granularity", type=size_argument, metavar="SIZE", help="for --add: bytes for a bit")
    parser.add_argument("-b", dest="source_file", metavar="FILE2", help="for --merge: the image that has SOURCE")
    add_format_option(parser, "-F", of="FILE2", dest="source_format")
    add_format_option(parser)
    parser.add_argument("file", metavar="FILE", help="qcow2 image")
    parser.add_argument("bitmap", metavar="BITMAP", help="name of the bitmap")
    parser.set_defaults(run=run, usage_error=parser.error)


def run(arguments: argparse.Namespace) -> None:
    """Change the bitmap in the arguments."""
    from pydiskimg.cli.arguments import require_file_name, require_name

    _check_usage(arguments)
    require_file_name(arguments.file)
    if arguments.source_file is not None:
        require_name(arguments.source_file)
    from pydiskimg.images.open_store import open_qcow2_store
    from pydiskimg.images.qcow2.switch.bitmaps import change_bitmaps

    with open_qcow2_store(arguments.file, format=arguments.format) as store:
        change_bitmaps(store, lambda bitmaps: _change(bitmaps, arguments))


def _check_usage(arguments: argparse.Namespace) -> None:
    names = {action for action, _ in arguments.actions or ()}
    if not names:
        arguments.usage_error("one or more actions are needed: --add, --remove, --clear, --enable, --disable, --merge")
    if arguments.granularity is not None and "add" not in names:
        arguments.usage_error("-g is for --add")
    if arguments.source_file is not None and "merge" not in names:
        arguments.usage_error("-b is for --merge")
    if arguments.source_format is not None and arguments.source_file is None:
        arguments.usage_error("-F is the format of the image that -b names")


def _change(bitmaps: BitmapSet, arguments: argparse.Namespace) -> None:
    name = os.fsencode(arguments.bitmap)
    for action, source in arguments.actions:
        if action == "add":
            bitmaps.add(name, arguments.granularity)
        elif action == "remove":
            bitmaps.remove(name)
        elif action == "clear":
            bitmaps.contents(name).clear()
        elif action == "merge":
            _merge(bitmaps, name, os.fsencode(source), arguments)
        else:
            bitmaps.enable(name, is_enabled=action == "enable")


def _merge(bitmaps: BitmapSet, name: bytes, source: bytes, arguments: argparse.Namespace) -> None:
    if arguments.source_file is None:
        bitmaps.merge(name, bitmaps.contents(source))
        return
    from pydiskimg.images.open_bitmaps import open_bitmaps

    with open_bitmaps(arguments.source_file, format=arguments.source_format) as others:
        bitmaps.merge(name, others.contents(source))
