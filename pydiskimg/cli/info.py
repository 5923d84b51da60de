# SPDX-License-Identifier: MIT
"""pydiskimg info: what an image is, with the field names of `qemu-img info --output=json`."""

from __future__ import annotations

from pydiskimg.cli.description import describe, describe_lines
from pydiskimg.cli.output import add_output_option, show
from pydiskimg.cli.quick_parser import run_quickly

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from typing import Any

    from pydiskimg.cli.quick_parser import Arguments, Parser

FORMATS = ("raw", "qcow2")


def run_common_form(words: Sequence[str]) -> bool:
    """Do what words ask for; return False when they are not of a common form."""
    return run_quickly(words, _declare_common, run)


def add_parser(subparsers: Any) -> None:
    """Declare the subcommand."""
    from pydiskimg.cli.references import add_references_option

    parser = subparsers.add_parser(
        "info",
        help="describe an image",
        description="Tell the format, the sizes and the features of an image. Files that it names are not opened "
        "without --backing-chain, and with it only those that --allow-references allows.",
    )
    _declare_common(parser)
    parser.add_argument("--backing-chain", action="store_true", help="describe the backing files too")
    add_references_option(parser)
    parser.set_defaults(run=run)


def _declare_common(parser: Parser) -> None:
    parser.add_argument("-f", dest="format", choices=FORMATS, help="format (default: by the contents)")
    parser.add_argument("-U", "--force-share", action="store_true", help="accepted as by qemu-img: nothing is locked")
    add_output_option(parser)
    parser.add_argument("file", metavar="FILE")


def run(arguments: Arguments) -> None:
    """Describe the image that the arguments name, and its backing files when they are asked for."""
    from pydiskimg.cli.names import require_file_name

    require_file_name(arguments.file)
    if not arguments.backing_chain:
        _show([describe(arguments.file, arguments.format)], arguments.output, chain=False)
        return
    from pydiskimg.cli.backing_chain import describe_chain

    for _ in describe_chain(arguments):  # what is wrong with any of them is found before the first is shown
        pass
    _show(describe_chain(arguments), arguments.output, chain=True)


def _show(images: Iterable[dict[str, object]], output: str, *, chain: bool) -> None:
    """Print one object, or with chain a list of them, each as it comes."""
    show(images if chain else next(iter(images)), _lines(images), output)


def _lines(images: Iterable[dict[str, object]]) -> Iterator[str]:
    for number, facts in enumerate(images):
        if number:
            yield ""
        yield from describe_lines(facts)
