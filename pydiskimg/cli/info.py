# SPDX-License-Identifier: MIT
"""pydiskimg info: what an image is, with the field names of `qemu-img info --output=json`."""

from __future__ import annotations

from pydiskimg.cli.description import describe, describe_lines
from pydiskimg.cli.output import show

TYPE_CHECKING = False
if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterable, Iterator, Sequence
    from typing import Any

FORMATS = ("raw", "qcow2")


def run_common_form(words: Sequence[str]) -> bool:
    """Do what `info [-f FMT] [--output FORM] [-U] FILE` asks for; return False when the words are anything else.

    argparse takes as long to import as all of the rest: it is left for what is rare and for what is wrong.
    """
    format_name, output, files = None, "human", []
    rest = iter(words)
    for word in rest:
        if word == "-f":
            format_name = next(rest, "")
            if format_name not in FORMATS:
                return False
        elif word in ("--output=json", "--output=human"):
            output = word.partition("=")[2]
        elif word == "--output":
            output = next(rest, "")
            if output not in ("json", "human"):
                return False
        elif not word.startswith("-"):
            files.append(word)
        elif word != "-U":
            return False
    if len(files) != 1 or files[0] in ("", "-"):
        return False
    _show([describe(files[0], format_name)], output, chain=False)
    return True


def add_parser(subparsers: Any) -> None:
    """Declare the subcommand."""
    from pydiskimg.cli.output import add_output_option
    from pydiskimg.cli.references import add_references_option

    parser = subparsers.add_parser(
        "info",
        help="describe an image",
        description="Tell the format, the sizes and the features of an image. Files that it names are not opened "
        "without --backing-chain, and with it only those that --allow-references allows.",
    )
    parser.add_argument("-f", dest="format", choices=FORMATS, help="format (default: by the contents)")
    parser.add_argument("--backing-chain", action="store_true", help="describe the backing files too")
    parser.add_argument("-U", "--force-share", action="store_true", help="accepted as by qemu-img: nothing is locked")
    add_output_option(parser)
    add_references_option(parser)
    parser.add_argument("file", metavar="FILE")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> None:
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
