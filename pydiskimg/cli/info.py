# SPDX-License-Identifier: MIT
"""pydiskimg info: describe an image, in the words and with the field names of `qemu-img info`."""

from __future__ import annotations

from pydiskimg.cli.options import add_force_share_option, add_format_option, add_output_option
from pydiskimg.cli.output import in_qemus_order, nested_lines, show
from pydiskimg.images import FORMATS, detect_image
from pydiskimg.images.raw import open_image_file
from pydiskimg.startup import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from typing import Any

    from pydiskimg.cli import Arguments, Parser
    from pydiskimg.protocols import ImageBytes

Facts = dict[str, object]
_EXAMPLES = """\
pydiskimg info disk.qcow2
pydiskimg info --output json --backing-chain --allow-references . top.qcow2
"""


def add_parser(subparsers: Any) -> None:
    """Declare the subcommand."""
    from pydiskimg.cli.references import add_references_option

    parser = subparsers.add_parser(
        "info",
        description="Print the format, sizes and features of an image. Files that the image names are opened only with "
        "--backing-chain, and then only those that --allow-references allows.",
        examples=_EXAMPLES,
    )
    declare_common(parser)
    parser.add_argument("--backing-chain", action="store_true", help="describe the backing files too")
    add_references_option(parser)
    parser.set_defaults(run=run, reads_parts=True, opens_described_data_file=False)


def declare_common(parser: Parser) -> None:
    """Declare the options of the common form."""
    add_format_option(parser)
    add_force_share_option(parser)
    add_output_option(parser)
    parser.add_argument("file", metavar="FILE", help="image file or block device")


def run(arguments: Arguments) -> None:
    """Describe the image in the arguments, and its backing files if requested."""
    if arguments.file in ("", "-"):
        from pydiskimg.cli.arguments import require_file_name

        require_file_name(arguments.file)
    if not arguments.backing_chain:
        _show([describe(arguments.file, arguments.format)], arguments.output, chain=False)
        return
    from pydiskimg.cli.arguments import require_whole
    from pydiskimg.cli.backing_chain import describe_chain

    require_whole(arguments.file, "--backing-chain")
    for _ in describe_chain(arguments):  # errors in any of them are found before the first one is shown
        pass
    _show(describe_chain(arguments), arguments.output, chain=True)


def _show(images: Iterable[dict[str, object]], output: str, *, chain: bool) -> None:
    """Print one object, or with chain a list of them, each when it is known."""
    show(in_qemus_order(images if chain else next(iter(images))), _lines(images), output)


def _lines(images: Iterable[dict[str, object]]) -> Iterator[str]:
    for number, facts in enumerate(images):
        if number:
            yield ""
        yield from describe_lines(facts)


def describe(path: str, format_name: str | None = None) -> Facts:
    """Return the facts about the image at path, in the given format or detected by its first bytes.

    Snapshots and bitmaps, of which there may be thousands, are iterators: they can be printed once.
    Raises StorageError, InvalidImageError and UnsupportedImageError as open_image() does.
    """
    if type(path) is not str:
        return _describe_part(path, format_name)
    with open_image_file(path) as file:
        return describe_file(file, file.name, format_name)


def _describe_part(image: str, format_name: str | None) -> Facts:
    """Return the facts about a described part of a file or of another image's disk."""
    from pydiskimg.cli.described import open_described_file

    with open_described_file(image) as file:
        return describe_file(file, getattr(image, "text", file.name), format_name)


def describe_file(file: ImageBytes, path: str, format_name: str | None) -> Facts:
    """Return the facts about the image in an open file, which stays open; path is shown as its name."""
    return FORMATS[format_name or detect_image(file)].facts(file, path)


def describe_lines(facts: Facts) -> Iterator[str]:
    """Yield the lines of `qemu-img info` with the same facts, for people."""
    from pydiskimg.units import qemu_size

    virtual, actual = facts["virtual-size"], facts.get("actual-size")
    assert isinstance(virtual, int)
    yield f"image: {facts['filename']}"
    yield f"file format: {facts['format']}"
    yield f"virtual size: {qemu_size(virtual)} ({virtual} bytes)"
    yield f"disk size: {qemu_size(actual) if isinstance(actual, int) else 'unavailable'}"
    if "encrypted" in facts:
        yield "encrypted: yes"
    if "cluster-size" in facts:
        yield f"cluster_size: {facts['cluster-size']}"
    if facts["dirty-flag"]:
        yield "cleanly shut down: no"
    if "backing-filename" in facts:
        yield from _backing_lines(facts)
    if "snapshots" in facts:
        from pydiskimg.cli.snapshot import snapshot_lines

        snapshots: Any = facts["snapshots"]
        yield from snapshot_lines(snapshots)
    specific = facts.get("format-specific")
    if isinstance(specific, dict):
        yield "Format specific information:"
        yield from nested_lines(specific["data"], "    ")


def _backing_lines(facts: Facts) -> Iterator[str]:
    name, full = facts["backing-filename"], facts.get("full-backing-filename")
    if full is None:
        yield f"backing file: {name} (cannot determine actual path)"
    else:
        yield f"backing file: {name}" + (f" (actual path: {full})" if full != name else "")
    if "backing-filename-format" in facts:
        yield f"backing file format: {facts['backing-filename-format']}"
