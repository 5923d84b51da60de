# SPDX-License-Identifier: MIT
"""pydiskimg map: list where the bytes of a virtual disk are stored, as `qemu-img map` does."""

from __future__ import annotations

import sys
from itertools import chain, compress

from pydiskimg.cli.arguments import open_source, require_file_name, size_argument
from pydiskimg.cli.options import add_force_share_option, add_format_option, add_output_option
from pydiskimg.cli.references import add_references_option, references
from pydiskimg.errors import UnsupportedImageError
from pydiskimg.startup import TYPE_CHECKING
from pydiskimg.text import printable

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence
    from typing import Any

    from pydiskimg.cli import Arguments, Parser
    from pydiskimg.images.map import RowColumns

_MOST_KEPT = 1024
_BETWEEN = ",\n"
_CHARACTERS = 64 << 10  # printed at a time: larger amounts would be memory that the system allocates anew each time
_EXAMPLES = """\
pydiskimg map disk.qcow2
pydiskimg map --output json --start-offset 1M --max-length 64M disk.raw
"""


def add_parser(subparsers: Any) -> None:
    """Declare the subcommand."""
    parser = subparsers.add_parser(
        "map",
        description="List the ranges of the virtual disk that hold data, with the file of the backing chain that has "
        "each and the offset there.",
        examples=_EXAMPLES,
    )
    declare_common(parser)
    add_references_option(parser)
    parser.set_defaults(run=run, reads_descriptions=True)


def declare_common(parser: Parser) -> None:
    """Declare the options of the common form."""
    add_format_option(parser)
    add_force_share_option(parser)
    parser.add_argument("-s", "--start-offset", type=size_argument, default=0, metavar="N", help="start at byte N")
    parser.add_argument("-l", "--max-length", type=size_argument, metavar="N", help="list N bytes at most")
    add_output_option(parser)
    parser.add_argument("file", metavar="FILE", help="image file or block device")


def run(arguments: Arguments) -> None:
    """Print the map of the image in the arguments."""
    from pydiskimg.images.map import map_columns  # imported here: it would slow --help down

    require_file_name(arguments.file)
    with (
        references(arguments) as policy,
        open_source(arguments.file, format=arguments.format, references=policy) as source,
    ):
        start = min(arguments.start_offset, source.size)
        length = source.size - start
        if arguments.max_length is not None:
            length = min(length, arguments.max_length)
        files, found = map_columns(source, start, length)
        if arguments.output == "json":
            _print(_json(found, arguments.start_offset))
        else:
            _print(_table(found, files, source.name))


def _print(texts: Iterator[str]) -> None:
    some, size = [], 0
    for text in texts:
        some.append(text)
        size += len(text)
        if size >= _CHARACTERS:
            sys.stdout.write("".join(some))
            some, size = [], 0
    sys.stdout.write("".join(some))


def _json(found: Iterable[RowColumns], beginning: int) -> Iterator[str]:
    """Yield the rows; if there are none, one of no bytes at the beginning, as qemu-img does."""
    from pydiskimg.images.qcow2.host_offsets import HAS_OFFSET

    words = _flags_as_json()

    def row(length: int, depth: int, flags: int) -> str:
        # without its numbers, the start and the offset; the offset is not shown if there is none
        offset = ', "offset": %d' if flags & HAS_OFFSET else "%.0s"
        return f'{{ "start": %d, "length": {length}, "depth": {depth}, {words[flags]}{offset}}}'

    between, rows = "[", _Kept(row)
    for starts, lengths, depths, flags, hosts in found:
        lines = _BETWEEN.join(map(rows.__getitem__, zip(lengths, depths, flags, strict=True)))
        yield between + lines % tuple(chain.from_iterable(zip(starts, hosts, strict=True)))
        between = _BETWEEN
    if between == "[":
        yield f'[{{ "start": {beginning}, "length": 0, "depth": 0, {words[0]}}}'
    yield "]\n"


class _Kept(dict):  # type: ignore[type-arg] # Any is not imported
    """The results of make(*key), made once for each key while there are few of them."""

    def __init__(self, make: Callable[..., str]) -> None:
        super().__init__()
        self._make = make

    def __missing__(self, key: tuple[Any, ...]) -> str:
        if len(self) >= _MOST_KEPT:
            self.clear()
        self[key] = made = self._make(*key)
        return made


def _flags_as_json() -> list[str]:
    """The flags of a row as JSON, for each combination of them."""
    from pydiskimg.images.map import IS_PRESENT
    from pydiskimg.images.qcow2.host_offsets import IS_COMPRESSED, IS_DATA, IS_ZERO

    words = {"present": IS_PRESENT, "zero": IS_ZERO, "data": IS_DATA, "compressed": IS_COMPRESSED}
    return [
        ", ".join(f'"{word}": {"true" if flags & flag else "false"}' for word, flag in words.items())
        for flags in range(1 << 5)
    ]


def _table(found: Iterable[RowColumns], files: Sequence[str], name: str) -> Iterator[str]:
    from pydiskimg.images.qcow2.host_offsets import IS_DATA, IS_ZERO

    is_stored = bytes(flags & (IS_DATA | IS_ZERO) == IS_DATA for flags in range(256))
    yield f"{'Offset':<16}{'Length':<16}{'Mapped to':<16}File\n"
    shown = [printable(file).replace("%", "%%") for file in files]

    def row(length: int, depth: int, has_start: bool, has_offset: bool) -> str:
        return _table_row(length, shown[depth], has_start, has_offset)

    kept = _Kept(row)
    for columns in found:
        some = _stored(columns, name, is_stored)
        starts, lengths, depths, _, hosts = some
        rows = map(kept.__getitem__, zip(lengths, depths, map(bool, starts), map(bool, hosts), strict=True))
        if starts:
            yield "".join(rows) % tuple(chain.from_iterable(zip(starts, hosts, strict=True)))


def _stored(columns: RowColumns, name: str, is_stored: bytes) -> RowColumns:
    """The rows that are data and not zero, which is_stored[flags] tells."""
    from pydiskimg.images.qcow2.host_offsets import HAS_OFFSET, IS_DATA

    starts, lengths, depths, flags, hosts = columns
    if any(number & (IS_DATA | HAS_OFFSET) == IS_DATA for number in set(flags)):
        at, length = next(
            row[:2] for row in zip(starts, lengths, flags, strict=True) if row[2] & (IS_DATA | HAS_OFFSET) == IS_DATA
        )
        raise UnsupportedImageError(
            f"{name}: guest bytes {at} to {at + length} are compressed, which this table cannot show; use --output json"
        )
    wanted = bytes(flags).translate(is_stored)
    starts, lengths, depths, flags, hosts = (list(compress(column, wanted)) for column in columns)
    return starts, lengths, depths, flags, hosts


def _table_row(length: int, file: str, *has_digits: bool) -> str:
    """A line without its numbers, the start and the offset; C's %#x writes 0 without the 0x."""
    start, offset = ("%-#16x" if has else "%-16d" for has in has_digits)
    return f"{start}{hex(length):<16}{offset}{file}\n"
