# SPDX-License-Identifier: MIT
"""pydiskimg resize: make an image larger or smaller in place."""

from __future__ import annotations

from pydiskimg.cli.options import add_format_option, add_quiet_option
from pydiskimg.cli.references import add_references_option, references
from pydiskimg.startup import TYPE_CHECKING
from pydiskimg.units import parse_size

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from pydiskimg.cli import Arguments, Parser
_EXAMPLES = """\
pydiskimg resize disk.qcow2 +10G
pydiskimg resize --shrink disk.qcow2 -10G
pydiskimg resize --preallocation full disk.raw +16M
"""


def add_parser(subparsers: Any) -> None:
    """Declare the subcommand."""
    parser = subparsers.add_parser(
        "resize",
        description="Change the size of the virtual disk in an image to SIZE, such as 10G, or by a difference, such as "
        "+2G or -2G. New bytes read as zero; partitions and file systems in the image stay as they are (see "
        "grow). A smaller size needs --shrink, and the bytes after the new end are lost. An interruption "
        "leaves the old or the new size.",
        examples=_EXAMPLES,
    )
    declare_common(parser)
    add_references_option(parser)
    parser.set_defaults(run=run)


def declare_common(parser: Parser) -> None:
    """Declare the options of the common form."""
    add_format_option(parser)
    parser.add_argument(
        "--preallocation",
        choices=("off", "metadata", "falloc", "full"),
        default="off",
        help="how new space is stored: not at all (off, the default), with its tables (metadata, qcow2 only), reserved "
        "(falloc) or as written zeros (full)",
    )
    parser.add_argument("--shrink", action="store_true", help="allow a smaller size, which loses data")
    add_quiet_option(parser)
    parser.add_argument("file", metavar="FILE", help="image file")
    parser.add_argument("size", metavar="[+|-]SIZE", type=_size, help="new size, or the difference to the old one")


def run(arguments: Arguments) -> None:
    """Resize the image in the arguments."""
    from pydiskimg.cli.arguments import require_file_name
    from pydiskimg.images.resize import resize_image

    require_file_name(arguments.file)
    with references(arguments) as allowed:
        resize_image(
            arguments.file,
            arguments.size,
            format=arguments.format,
            shrink=arguments.shrink,
            preallocation=arguments.preallocation,
            references=allowed,
        )
    if not arguments.quiet:
        print("Image resized.")


def _size(text: str) -> Callable[[int], int]:
    """Return a function from the old size to the new one."""
    sign = text[:1] if text[:1] in ("+", "-") else ""
    try:
        size = parse_size(text[len(sign) :])
    except ValueError as error:
        from argparse import ArgumentTypeError  # imported here: the common form does not use argparse

        raise ArgumentTypeError(str(error)) from None
    if sign == "+":
        return lambda old: old + size
    return (lambda old: old - size) if sign else (lambda _: size)
