# SPDX-License-Identifier: MIT
"""pydiskimg map: where the bytes of a virtual disk are, as `qemu-img map` tells it."""

from __future__ import annotations

import argparse
import sys
from itertools import islice

from pydiskimg.cli.arguments import open_source, require_file_name, size_argument
from pydiskimg.cli.output import add_output_option
from pydiskimg.cli.references import add_references_option, references
from pydiskimg.errors import UnsupportedImageError
from pydiskimg.images import FORMATS
from pydiskimg.images.map import IS_PRESENT, Row, map_rows
from pydiskimg.images.qcow2.host_offsets import HAS_OFFSET, IS_COMPRESSED, IS_DATA, IS_ZERO
from pydiskimg.startup import TYPE_CHECKING
from pydiskimg.text import printable

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from typing import Any

_LINES = 512  # printed at a time: more would be memory that the system hands out anew each time

_WORDS = {"present": IS_PRESENT, "zero": IS_ZERO, "data": IS_DATA, "compressed": IS_COMPRESSED}
# The flags of an entry as JSON, for all of them.
_FLAGS = [
    ", ".join(f'"{word}": {"true" if flags & flag else "false"}' for word, flag in _WORDS.items())
    for flags in range(1 << 5)
]


def add_parser(subparsers: Any) -> None:
    """Declare the subcommand."""
    parser = subparsers.add_parser(
        "map",
        description="Tell in which file of the backing chain the bytes of the virtual disk are, and where in it.",
    )
    parser.add_argument("-f", dest="format", choices=FORMATS, help="format (default: by the contents)")
    parser.add_argument("-U", "--force-share", action="store_true", help="accepted as by qemu-img: nothing is locked")
    parser.add_argument("-s", "--start-offset", type=size_argument, default=0, metavar="N", help="begin at byte N")
    parser.add_argument("-l", "--max-length", type=size_argument, metavar="N", help="tell of N bytes at most")
    add_output_option(parser)
    add_references_option(parser)
    parser.add_argument("file", metavar="FILE")
    parser.set_defaults(run=run, reads_descriptions=True)


def run(arguments: argparse.Namespace) -> None:
    """Print the map of the image that the arguments name."""
    require_file_name(arguments.file)
    with (
        references(arguments) as policy,
        open_source(arguments.file, format=arguments.format, references=policy) as source,
    ):
        start = min(arguments.start_offset, source.size)
        length = source.size - start
        if arguments.max_length is not None:
            length = min(length, arguments.max_length)
        files, rows = map_rows(source, start, length)
        if arguments.output == "json":
            _print(_json_lines(rows, arguments.start_offset))
        else:
            _print(_table(rows, files, source.name))


def _print(lines: Iterator[str]) -> None:
    while some := list(islice(lines, _LINES)):
        sys.stdout.write("".join(some))


def _json_lines(rows: Iterable[Row], beginning: int) -> Iterator[str]:
    """Yield the lines; where there are no rows, one of no bytes at the beginning, as qemu-img has it."""
    separator, words = "[", _FLAGS
    for start, length, depth, flags, host in rows:
        offset = f', "offset": {host}' if flags & HAS_OFFSET else ""
        yield f'{separator}{{ "start": {start}, "length": {length}, "depth": {depth}, {words[flags]}{offset}}}'
        separator = ",\n"
    if separator == "[":
        yield f'[{{ "start": {beginning}, "length": 0, "depth": 0, {words[0]}}}'
    yield "]\n"


def _table(rows: Iterable[Row], files: Sequence[str], name: str) -> Iterator[str]:
    yield f"{'Offset':<16}{'Length':<16}{'Mapped to':<16}File\n"
    shown = [printable(file) for file in files]
    for start, length, depth, flags, host in rows:
        if not flags & IS_DATA:
            continue
        if not flags & HAS_OFFSET:
            raise UnsupportedImageError(
                f"{name}: guest bytes {start} to {start + length} are compressed, and have no place "
                "that this table could tell; use --output json"
            )
        if not flags & IS_ZERO:
            yield f"{_hexadecimal(start):<16}{hex(length):<16}{_hexadecimal(host):<16}{shown[depth]}\n"


def _hexadecimal(number: int) -> str:
    """Return number as C's %#x writes it."""
    return hex(number) if number else "0"
