# SPDX-License-Identifier: MIT
"""Options of qemu-img convert that few conversions need; some of them are refused with a sentence."""

from __future__ import annotations

import argparse

from pydiskimg.cli.arguments import size_argument
from pydiskimg.cli.options import add_format_option, add_rate_option
from pydiskimg.images import FORMATS
from pydiskimg.startup import TYPE_CHECKING
from pydiskimg.units import format_size

if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any, NoReturn

    from pydiskimg.cli.image_options import ImageOptions

_SECTOR = 512
_LARGEST_RUN = 16 << 20  # qemu-img's limit
_LARGEST_UNIT = 2 << 20  # in which zeros are looked for

_REFUSED = {
    "-s": ("SNAPSHOT", "a snapshot is chosen by -l"),
    "--object": ("OBJECT", "no secrets are taken, since encrypted images are not read"),
}


def add_uncommon_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of convert that the common form does not have."""
    parser.add_argument(
        "-C",
        dest="offload",
        action="store_true",
        help="share blocks with SRC where it and DST are files in one XFS or btrfs; zeros in its data stay stored",
    )
    parser.add_argument(
        "--target-is-zero",
        dest="is_zero",
        action="store_true",
        help="with -n: DST reads as zero already, so do not zero it",
    )
    parser.add_argument(
        "-B",
        dest="backing",
        metavar="BACKING",
        help="make BACKING the backing file of the qcow2 DST (the name is relative to DST's directory), and write only "
        "the clusters that differ from it",
    )
    add_format_option(parser, "-F", dest="backing_format", note="format of BACKING, which is not guessed")
    parser.add_argument(
        "-S",
        dest="sparse_unit",
        type=_sparse_unit,
        metavar="SIZE",
        help="leave out zeros in pieces of SIZE, rounded down to a power of two (default: 4k; 64k on a target that may "
        "hold old data; always whole clusters in a qcow2); 0 leaves out none and stores all of DST",
    )
    add_rate_option(parser)
    parser.add_argument(
        "--salvage",
        action="store_true",
        help="write zeros where SRC cannot be read, with a warning that says where, and do not fail",
    )
    parser.add_argument(
        "--target-image-opts", action="store_true", help="with -n: DST is described, as SRC is with --image-opts"
    )
    parser.add_argument(
        "--bitmaps", action="store_true", help="copy the dirty bitmaps of SRC, too; SRC and DST are qcow2"
    )
    parser.add_argument(
        "--skip-broken-bitmaps",
        action="store_true",
        help="with --bitmaps: leave out bitmaps that are marked in use, with a warning",
    )
    _add_refused_options(parser)


def check_uncommon_options(arguments: Any, options: ImageOptions, *, from_pipe: bool, to_pipe: bool) -> None:
    """End with a usage error for combinations that are not possible; the backing file in -o is that of -B."""
    if arguments.backing is None:
        arguments.backing = options.backing_file
    if arguments.backing_format is None:
        arguments.backing_format = options.backing_format
    for is_given, words in (
        (arguments.more, "several sources"),
        (arguments.salvage, "--salvage"),
        (arguments.backing is not None, "-B"),
        (arguments.rate, "-r"),
        (arguments.sparse_unit == 0, "-S 0"),
        (arguments.bitmaps, "--bitmaps"),
    ):
        if is_given and (from_pipe or (to_pipe and words in ("-B", "-r", "-S 0", "--bitmaps"))):
            arguments.usage_error(f"{words}: not with a pipe; convert to or from a file")
    for problem in _problems(arguments):
        arguments.usage_error(problem)


def _problems(arguments: Any) -> Iterator[str]:
    has_backing = arguments.backing is not None
    if arguments.more and arguments.snapshot is not None:
        yield "-l chooses a snapshot of one image, but several are given"
    if arguments.offload and (arguments.salvage or arguments.compress or arguments.sparse_unit is not None):
        yield "-C lets the kernel copy, which cannot be combined with -c, -S or --salvage"
    if not has_backing and arguments.backing_format is not None:
        yield "-F is the format of the file of -B, which is missing"
    if has_backing and not FORMATS[arguments.output_format].has_options:
        yield "-B is for a qcow2 image: add -O qcow2"
    if has_backing and arguments.more:
        yield "-B is for one source: several sources cannot share a backing file"
    if has_backing and arguments.backing_format is None and not arguments.in_place:
        yield "-B needs -F: the format of a backing file is not guessed"
    if arguments.bitmaps and arguments.more:
        yield "--bitmaps is for one source: the bitmaps of several cannot be joined"
    if arguments.skip_broken_bitmaps and not arguments.bitmaps:
        yield "--skip-broken-bitmaps is for --bitmaps"
    if has_backing and arguments.is_zero:
        yield "--target-is-zero: not with -B, as DST shows its backing file"


def _add_refused_options(parser: argparse.ArgumentParser) -> None:
    """Add options that qemu-img has, refused with the reason instead of as unknown."""
    for option, (value, reason) in _REFUSED.items():
        parser.add_argument(option, dest="ignored", type=_refusal(reason), metavar=value, help=argparse.SUPPRESS)


def _sparse_unit(text: str) -> int:
    """Return the unit (bytes) for copy() that -S requests; 0 leaves out no zeros."""
    size = size_argument(text)
    if size % _SECTOR or size > _LARGEST_RUN:
        raise argparse.ArgumentTypeError(f"{text} is not a multiple of 512 bytes up to {format_size(_LARGEST_RUN)}")
    return min(1 << size.bit_length() - 1, _LARGEST_UNIT) if size else 0


def _refusal(reason: str) -> Any:
    def refuse(_: str) -> NoReturn:
        raise argparse.ArgumentTypeError(reason)

    return refuse
