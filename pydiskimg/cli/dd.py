# SPDX-License-Identifier: MIT
"""pydiskimg dd: copy a part of an image to a new one, with dd's operands."""

from __future__ import annotations

import os

from pydiskimg.cli.arguments import open_source, require_file_name, without_protocol
from pydiskimg.cli.options import add_force_share_option, add_format_option
from pydiskimg.cli.output import tell
from pydiskimg.cli.references import add_references_option, references
from pydiskimg.images import FORMATS
from pydiskimg.startup import TYPE_CHECKING
from pydiskimg.units import parse_size

if TYPE_CHECKING:
    import argparse
    from collections.abc import Sequence
    from typing import Any

    from pydiskimg.protocols import Source

_BLOCK_SIZE = 512
_LARGEST_BLOCK = (1 << 31) - 1
_NUMBERS = ("bs", "count", "skip")
_NAMES = ("if", "of")
_EXAMPLES = """\
pydiskimg dd if=disk.raw of=first.raw bs=1M count=1
pydiskimg dd -O qcow2 if=disk.qcow2 of=rest.qcow2 bs=1M skip=1
"""


def add_parser(subparsers: Any) -> None:
    """Declare the subcommand."""
    parser = subparsers.add_parser(
        "dd",
        description="Copy a part of the image INPUT to the new image OUTPUT: from block SKIP (default: 0) to block "
        "COUNT (default: the end), in blocks of BS bytes (default: 512). COUNT is counted from the start of INPUT, "
        "as by qemu-img and not by dd. If SKIP is beyond the end, OUTPUT is empty. OUTPUT has the size of the "
        "copied part, rounded up to 512 bytes; a block device keeps its own.",
        examples=_EXAMPLES,
    )
    add_format_option(parser, of="INPUT")
    parser.add_argument(
        "-O", dest="output_format", choices=FORMATS, default="raw", help="format of OUTPUT (default: raw)"
    )
    parser.add_argument("-p", dest="progress", action="store_true", help="show progress on standard error")
    add_force_share_option(parser)
    add_references_option(parser)
    parser.add_argument(
        "operand",
        metavar="if=INPUT of=OUTPUT [bs=BS] [count=COUNT] [skip=SKIP]",
        help="the images, and the part, in any order",
    )
    parser.set_defaults(run=run, more_operands="more", more=())


def run(arguments: argparse.Namespace) -> None:
    """Copy the part in the operands."""
    from pydiskimg.cli.convert_target import refuse_own_file, written_disk  # imported here: they would slow --help down
    from pydiskimg.cli.image_options import ImageOptions
    from pydiskimg.cli.progress import progress
    from pydiskimg.disks.fits import check_size_fits
    from pydiskimg.images.qcow2.sizes import round_size
    from pydiskimg.regions.region import SourceRegion
    from pydiskimg.transfer.copy import copy
    from pydiskimg.transfer.joined import JoinedSource

    names, numbers = _operands(arguments, [arguments.operand, *arguments.more])
    output = without_protocol(names["of"])
    require_file_name(output)
    name = _input(arguments, names["if"])
    with references(arguments) as policy:
        # Whole sectors, as in QEMU.
        source = JoinedSource([open_source(name, format=arguments.format, references=policy)])
    with source:
        refuse_own_file(source, output, named=[name])
        start, length = _range(source, numbers)
        size = round_size(length)
        with written_disk(output, size, format=arguments.output_format, options=ImageOptions()) as disk:
            check_size_fits("to be copied", size, disk)
            with progress(os.path.basename(source.name), shown=arguments.progress) as callback:
                copy(SourceRegion(source, start, length), disk, unit=disk.unit, progress=callback)


def _input(arguments: argparse.Namespace, name: str) -> str:
    from pydiskimg.cli.image_description import JSON, described_image

    if not arguments.image_opts and not name.startswith(JSON):
        name = without_protocol(name)
        require_file_name(name)
        return name
    if arguments.format is not None:
        arguments.parser.error("-f is for a named image; a described one has driver= for that")
    return described_image(name, by_options=arguments.image_opts)


def _operands(arguments: argparse.Namespace, words: Sequence[str]) -> tuple[dict[str, str], dict[str, int]]:
    """Return the names, by if and of, and the numbers; the last of each kind is used."""
    names: dict[str, str] = {}
    numbers: dict[str, int] = {}
    for word in words:
        key, equals, value = word.partition("=")
        if equals and key in _NAMES:
            names[key] = value
        elif equals and key in _NUMBERS:
            try:
                numbers[key] = parse_size(value)
            except ValueError as error:
                arguments.parser.error(f"{word}: {error}")
        else:
            arguments.parser.error(f"{word!r} is not an operand; expected if=, of=, bs=, count= or skip=")
    if not 1 <= numbers.get("bs", _BLOCK_SIZE) <= _LARGEST_BLOCK:
        arguments.parser.error(f"bs={numbers['bs']}: expected 1 to {_LARGEST_BLOCK} bytes")
    if len(names) < len(_NAMES):
        arguments.parser.error("both if=INPUT and of=OUTPUT are needed")
    return names, numbers


def _range(source: Source, numbers: dict[str, int]) -> tuple[int, int]:
    """Return the start of the part in source, and its length (bytes)."""
    block = numbers.get("bs", _BLOCK_SIZE)
    end = min(source.size, numbers["count"] * block) if "count" in numbers else source.size
    start = numbers.get("skip", 0) * block
    if start > end:
        tell(f"{source.name}: warning: block {start // block} is beyond the end; nothing is copied")
        return end, 0
    return start, end - start
