# SPDX-License-Identifier: MIT
"""pydiskimg measure: compute how large the file of a new image will be."""

from __future__ import annotations

from pydiskimg.cli.arguments import open_source, require_file_name, size_argument
from pydiskimg.cli.image_options import add_image_options, image_options
from pydiskimg.cli.options import add_force_share_option, add_format_option, add_output_option
from pydiskimg.cli.output import in_qemus_order, show
from pydiskimg.cli.references import add_references_option, references
from pydiskimg.images import FORMATS
from pydiskimg.startup import TYPE_CHECKING

if TYPE_CHECKING:
    from typing import Any

    from pydiskimg.cli import Arguments, Parser
    from pydiskimg.cli.image_options import ImageOptions
    from pydiskimg.protocols import ImageSource
_EXAMPLES = """\
pydiskimg measure -O qcow2 disk.raw
pydiskimg measure -O qcow2 -o cluster_size=2M --size 10G
"""


def add_parser(subparsers: Any) -> None:
    """Declare the subcommand."""
    parser = subparsers.add_parser(
        "measure",
        description="Compute how large the file of a new image becomes: at most when FILE is converted to it, or when "
        "it is an empty one of --size; and when every byte of the disk has been written. The numbers are those "
        "of qemu-img measure.",
        examples=_EXAMPLES,
    )
    _declare_options(parser)
    add_image_options(parser, empty=True)
    parser.add_argument("--size", type=size_argument, metavar="SIZE", help="measure an empty image of this size")
    parser.add_argument("-l", dest="snapshot", metavar="SNAPSHOT", help="measure a copy of this internal snapshot")
    add_references_option(parser)
    parser.add_argument("file", metavar="FILE", nargs="?", help="image to be copied")
    parser.set_defaults(run=run, reads_descriptions=True)


def declare_common(parser: Parser) -> None:
    """Declare the options of the common form: measuring an image."""
    _declare_options(parser)
    parser.add_argument("file", metavar="FILE")


def _declare_options(parser: Parser) -> None:
    parser.add_argument(
        "-O", dest="output_format", choices=FORMATS, default="raw", help="format of the new image (default: raw)"
    )
    add_format_option(parser, of="FILE")
    add_force_share_option(parser)
    add_output_option(parser)
    parser.set_defaults(usage_error=parser.error)


def run(arguments: Arguments) -> None:
    """Print the size of the image that the arguments describe."""
    options = image_options(arguments, empty=True)
    size = options.size if arguments.size is None else arguments.size
    if (arguments.file is None) == (size is None):
        arguments.usage_error("either FILE or --size is measured; give one of them")
    if not FORMATS[arguments.output_format].has_options and options.given:
        arguments.usage_error("-o is for qcow2 images: add -O qcow2")
    if arguments.file is None:
        assert size is not None  # usage_error() does not return
        _show(arguments, _facts(arguments, options, size, None))
        return
    require_file_name(arguments.file)
    facts = _facts_of_file(arguments, options)
    _show(arguments, facts)


def _facts_of_file(arguments: Arguments, options: ImageOptions) -> dict[str, int]:
    form = getattr(arguments.file, "image_format", arguments.format)
    snapshot = arguments.snapshot
    if snapshot is not None:
        from pydiskimg.cli.snapshot_choice import chosen_snapshot

        snapshot = chosen_snapshot(arguments.file, form, snapshot)
    with references(arguments) as policy:
        opened = open_source(arguments.file, format=form, references=policy, snapshot=snapshot)
    with opened as source:
        facts = _facts(arguments, options, source.size, source)
        if arguments.output_format == "qcow2" and options.version >= 3 and source.format == "qcow2":
            facts |= _bitmap_facts(source, options.cluster_size)
    return facts


def _bitmap_facts(source: ImageSource, cluster_size: int) -> dict[str, int]:
    """The bytes of the source's bitmaps in an image with such clusters; empty if it cannot have any."""
    from pydiskimg.images.measure_qcow2 import bitmaps_size
    from pydiskimg.images.qcow2.reader import Qcow2Source

    if not isinstance(source, Qcow2Source) or source.header.version < 3:
        return {}
    return {"bitmaps": bitmaps_size(source.file, source.header, cluster_size)}


def _facts(arguments: Arguments, options: ImageOptions, size: int, source: ImageSource | None) -> dict[str, int]:
    from pydiskimg.images.measure import measure  # imported here: it would slow --help down

    measured = measure(
        size,
        format=arguments.output_format,
        source=source,
        # The bytes that a new backing file will hide are not known.
        is_preallocated=options.preallocation in ("falloc", "full")
        or (options.backing_file is not None and source is not None),
        **options.of_qcow2(),
    )
    return {"required": measured.required, "fully-allocated": measured.fully_allocated}


def _show(arguments: Arguments, facts: dict[str, int]) -> None:
    lines = [f"required size: {facts['required']}", f"fully allocated size: {facts['fully-allocated']}"]
    if "bitmaps" in facts:
        lines.append(f"bitmaps size: {facts['bitmaps']}")
    show(in_qemus_order(facts), lines, arguments.output)
