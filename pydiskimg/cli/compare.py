# SPDX-License-Identifier: MIT
"""pydiskimg compare: compare the contents of two images."""

from __future__ import annotations

import os

from pydiskimg.cli.arguments import open_source, require_file_name
from pydiskimg.cli.options import (
    add_cache_option,
    add_force_share_option,
    add_format_option,
    add_output_option,
    add_progress_option,
    add_quiet_option,
)
from pydiskimg.cli.output import show, tell
from pydiskimg.cli.references import add_references_option, references
from pydiskimg.errors import DiskImageError
from pydiskimg.protocols import Source
from pydiskimg.startup import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

    from pydiskimg.cli import Arguments, Parser
    from pydiskimg.extents import Extent
    from pydiskimg.protocols import ImageSource, KindColumn, WritableBuffer
    from pydiskimg.transfer.compare import Comparison

SAME, DIFFERENT, NOT_OPENED, NOT_MAPPED, NOT_READ = 0, 1, 2, 3, 4
_SECTOR = 512
_EXAMPLES = """\
pydiskimg compare disk.raw disk.qcow2
pydiskimg compare -f raw -F qcow2 /dev/vg/disk disk.qcow2
"""


def add_parser(subparsers: Any) -> None:
    """Declare the subcommand."""
    parser = subparsers.add_parser(
        "compare",
        description="Compare the contents of two images; the shorter one counts as continued with zeros. Exit status: "
        "0 the same, 1 different, 2 an image cannot be opened or the usage is wrong, 3 the tables of an image "
        "cannot be read, 4 its data cannot be read.",
        examples=_EXAMPLES,
    )
    declare_common(parser)
    add_references_option(parser)
    parser.set_defaults(run=run, reads_descriptions=True)


def declare_common(parser: Parser) -> None:
    """Declare the options of the common form."""
    add_format_option(parser, of="FILE1")
    add_format_option(parser, "-F", of="FILE2", dest="other_format")
    parser.add_argument("-s", dest="strict", action="store_true", help="sizes and allocation must be the same, too")
    add_progress_option(parser)
    add_quiet_option(parser)
    add_cache_option(parser, "-T")
    add_force_share_option(parser)
    add_output_option(parser)
    parser.add_argument("file", metavar="FILE1", help="image file or block device")
    parser.add_argument("other_file", metavar="FILE2", help="image file or block device")


Item = TypeVar("Item")


class _Mapped(Source):
    """source, for comparing; failed is True if its extents could not be determined."""

    name: str
    size: int

    def __init__(self, source: ImageSource) -> None:
        self.name, self.size = source.name, source.size
        self.failed = False
        self._source = source

    def extents(self) -> Iterator[Extent]:
        return self.coarse_extents(1)

    def coarse_extents(self, unit: int) -> Iterator[Extent]:
        return self._noted(self._source.coarse_extents(unit))

    def kind_columns(self) -> Iterator[KindColumn] | None:
        columns = self._source.kind_columns()
        return None if columns is None else self._noted(columns)

    def _noted(self, items: Iterator[Item]) -> Iterator[Item]:
        """Yield the items, and note when that fails."""
        try:
            yield from items
        except DiskImageError:
            self.failed = True
            raise

    def read_into(self, offset: int, buffer: WritableBuffer) -> None:
        self._source.read_into(offset, buffer)


def run(arguments: Arguments) -> int:
    """Compare the images in the arguments; return the exit status."""
    try:
        opened = _opened(arguments)
    except DiskImageError as error:
        tell(str(error))
        return NOT_OPENED
    with opened[0], opened[1]:
        a, b = (_Mapped(source) for source in opened)
        try:
            found = _compared(a, b, arguments)
        except DiskImageError as error:
            tell(str(error))
            return NOT_MAPPED if a.failed or b.failed else NOT_READ
    if not arguments.quiet:
        show(_facts(found), _lines(found, min(a.size, b.size)), arguments.output)
    return SAME if found.identical else DIFFERENT


def _opened(arguments: Arguments) -> tuple[ImageSource, ImageSource]:
    """Open both images; neither stays open after an error."""
    require_file_name(arguments.file)
    require_file_name(arguments.other_file)
    with references(arguments) as policy:
        a = open_source(arguments.file, format=arguments.format, references=policy)
        try:
            return a, open_source(arguments.other_file, format=arguments.other_format, references=policy)
        except BaseException:
            a.close()
            raise


def _compared(a: Source, b: Source, arguments: Arguments) -> Comparison:
    from pydiskimg.transfer.compare import compare  # imported here: it would slow --help down

    if arguments.quiet or not arguments.progress:
        return compare(a, b, strict=arguments.strict)
    from pydiskimg.cli.progress import progress

    with progress(os.path.basename(a.name), shown=True, as_qemu_img=True) as callback:
        return compare(a, b, strict=arguments.strict, progress=callback)


def _facts(found: Comparison) -> dict[str, object]:
    facts: dict[str, object] = {"identical": found.identical, "sizes-differ": found.sizes_differ}
    if not found.identical:
        facts |= {"difference": found.difference, "offset": found.offset}
    return facts


def _lines(found: Comparison, shorter: int) -> Iterator[str]:
    """Yield the lines of `qemu-img compare`, whose offsets are whole sectors; shorter is the smaller size in bytes."""
    if found.difference == "size":
        yield "Strict mode: Image size mismatch!"
        return
    if found.sizes_differ and (found.offset is None or found.offset >= shorter):
        yield "Warning: Image size mismatch!"
    if found.offset is None:
        yield "Images are identical."
    elif found.difference == "allocation":
        yield f"Strict mode: Offset {found.offset} block status mismatch!"
    else:
        yield f"Content mismatch at offset {found.offset - found.offset % _SECTOR}!"
