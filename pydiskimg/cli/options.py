# SPDX-License-Identifier: MIT
"""Options that several subcommands have, each declared once, and numbers of partitions."""

from __future__ import annotations

from pydiskimg.images import FORMATS
from pydiskimg.startup import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Collection

    from pydiskimg.cli import Parser

CACHE_MODES = ("none", "off", "writeback", "writethrough", "directsync", "unsafe")
"""The values that qemu-img accepts for -t and -T; off is an older word for none."""
_DIGITS = 9  # in the number of a partition


def add_format_option(
    parser: Parser,
    *names: str,
    of: str = "",
    dest: str = "format",
    choices: Collection[str] = FORMATS,
    note: str = "",
) -> None:
    """Add -f and --format, or an option of other names, for the format of an image that is read."""
    names = names or ("-f", "--format")
    text = note or f"format{of and f' of {of}'} (default: by {'its' if of else 'the'} contents)"
    parser.add_argument(*names, dest=dest, choices=choices, help=text)


def add_progress_option(parser: Parser, note: str = "") -> None:
    """Add -p."""
    parser.add_argument("-p", dest="progress", action="store_true", help=f"show progress{note}")


def add_quiet_option(parser: Parser, text: str = "print nothing but errors") -> None:
    """Add -q and --quiet."""
    parser.add_argument("-q", "--quiet", dest="quiet", action="store_true", help=text)


def add_force_share_option(parser: Parser, text: str = "accepted as by qemu-img; reading takes no lock") -> None:
    """Add -U and --force-share."""
    parser.add_argument("-U", "--force-share", action="store_true", help=text)


def add_cache_option(parser: Parser, *names: str) -> None:
    """Add qemu-img's cache modes of source or target, which have no effect here."""
    text = f"accepted as by qemu-img, without effect: {', '.join(CACHE_MODES)}"
    for name in names:
        parser.add_argument(name, dest="cache", choices=CACHE_MODES, metavar="CACHE", help=text)


def add_rate_option(parser: Parser) -> None:
    """Add -r, which limits the rate of writing."""
    from pydiskimg.cli.arguments import size_argument  # imported here: cat and ls need no sizes

    text = "write RATE bytes a second on average, and no more; 0 (default): no limit"
    parser.add_argument("-r", dest="rate", type=size_argument, metavar="RATE", help=text)


def add_human_readable_option(parser: Parser, note: str = "") -> None:
    """Add -h, which ls, df and the virt-* tools use for sizes; --help has no short form then."""
    parser.add_argument("-h", "--human-readable", action="store_true", help=f"{note}sizes such as 1.5K and 10G")


def add_output_option(parser: Parser) -> None:
    """Add --output human|json."""
    parser.add_argument("--output", choices=("human", "json"), default="human", help="form of the result")


def partition_number(text: str) -> int:
    """Return the number of a partition, as a type for argparse."""
    return _number(text, "1, 2, 3 or more", lowest=1)


def volume_number(text: str) -> int:
    """Return the number of a partition, where 0 is the whole disk, as a type for argparse."""
    return _number(text, "0, 1, 2 or more", lowest=0)


def _number(text: str, expected: str, *, lowest: int) -> int:
    if not (text.isascii() and text.isdecimal()) or len(text) > _DIGITS or int(text) < lowest:
        from argparse import ArgumentTypeError  # imported here: the common forms do not use argparse

        raise ArgumentTypeError(f"{text[:20]!r} is not the number of a partition; expected {expected}")
    return int(text)
