# SPDX-License-Identifier: MIT
"""pydiskimg resize: an image becomes larger or smaller in place."""

from __future__ import annotations

from pydiskimg.cli.references import add_references_option, references
from pydiskimg.images import FORMATS
from pydiskimg.startup import TYPE_CHECKING
from pydiskimg.units import parse_size

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from pydiskimg.cli import Arguments, Parser


def add_parser(subparsers: Any) -> None:
    """Declare the subcommand."""
    parser = subparsers.add_parser(
        "resize",
        description="Give the virtual disk in an image another size: SIZE such as 10G, or by how much it changes, such "
        "as +2G or -2G. What is new reads as zero; partitions and file systems inside stay as they are. To make one "
        "smaller needs --shrink: what lies beyond the new end is lost. An interrupted change leaves the old size or "
        "the new.",
    )
    declare_common(parser)
    add_references_option(parser)
    parser.set_defaults(run=run)


def declare_common(parser: Parser) -> None:
    """Declare the options of the common form."""
    parser.add_argument("-f", dest="format", choices=FORMATS, help="format (default: by the contents)")
    parser.add_argument(
        "--preallocation",
        choices=("off", "metadata", "falloc", "full"),
        default="off",
        help="how what is new is stored: not at all (off, the default), as tables (metadata, qcow2 only), as reserved "
        "room (falloc) or as zeros that are written (full)",
    )
    parser.add_argument("--shrink", action="store_true", help="allow a smaller size, which loses data")
    parser.add_argument("-q", dest="quiet", action="store_true", help="say nothing")
    parser.add_argument("file", metavar="FILE")
    parser.add_argument("size", metavar="[+|-]SIZE", type=_size)


def run(arguments: Arguments) -> None:
    """Resize the image that the arguments name."""
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
    """Return what makes the new size of the old one."""
    sign = text[:1] if text[:1] in ("+", "-") else ""
    try:
        size = parse_size(text[len(sign) :])
    except ValueError as error:
        from argparse import ArgumentTypeError  # only here: the common form does without argparse

        raise ArgumentTypeError(str(error)) from None
    if sign == "+":
        return lambda old: old + size
    return (lambda old: old - size) if sign else (lambda _: size)
