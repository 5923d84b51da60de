# SPDX-License-Identifier: MIT
"""pydiskimg info: what an image is, with the facts and field names of `qemu-img info --output=json`.

Nothing that the image names is opened: an image with references is described from its own bytes alone, and so is one
that is corrupt or encrypted. What only some images have is imported for those.
"""

from __future__ import annotations

import os

from pydiskimg.cli.output import add_output_option, nested_lines, show, word
from pydiskimg.cli.quick_parser import run_quickly
from pydiskimg.images.detect import detect_image
from pydiskimg.images.qcow2 import layout
from pydiskimg.images.qcow2.header import read_header
from pydiskimg.images.raw import open_raw

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from typing import Any

    from pydiskimg.cli.quick_parser import Arguments, Parser
    from pydiskimg.images.qcow2.header import Header
    from pydiskimg.images.raw import RawSource
    from pydiskimg.protocols import Source

Facts = dict[str, object]
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
    from pydiskimg.cli.arguments import require_file_name

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


def describe(path: str, format_name: str | None = None) -> Facts:
    """Return the facts about the image at path, in the format of that name or in what its first bytes say.

    Of snapshots and bitmaps, of which there may be thousands, there are iterators: they can be printed once.
    Raises StorageError, InvalidImageError and UnsupportedImageError as open_image() does.
    """
    with open_raw(path) as file:
        return describe_file(file, path, format_name)


def describe_file(file: RawSource, path: str, format_name: str | None) -> Facts:
    """Return the facts about the image in an open file, which stays open; path is shown as its name."""
    found = format_name or detect_image(file)
    if found == "qcow2":
        header = read_header(file)
        facts = {"virtual-size": header.size, "filename": path, "cluster-size": header.cluster_size}
        facts |= {"format": found, "actual-size": file.stored(), "dirty-flag": header.dirty}
        return facts | _qcow2_facts(file, header, path)
    return {
        "virtual-size": file.size,
        "filename": path,
        "format": found,
        "actual-size": file.stored(),
        "dirty-flag": False,
    }


def describe_lines(facts: Facts) -> Iterator[str]:
    """Yield the lines that tell a person the same."""
    from pydiskimg.units import format_bytes, format_size

    rest = dict(facts)
    virtual, actual = rest.pop("virtual-size"), rest.pop("actual-size")
    assert isinstance(virtual, int)
    assert isinstance(actual, int)
    yield f"image: {rest.pop('filename')}"
    yield f"file format: {rest.pop('format')}"
    yield f"virtual size: {format_bytes(virtual)}"
    yield f"disk size: {format_size(actual)}"
    dirty, specific = rest.pop("dirty-flag"), rest.pop("format-specific", None)
    snapshots: Any = rest.pop("snapshots", None)
    for name, value in rest.items():
        yield f"{name.replace('-', ' ')}: {word(value)}"
    if dirty:
        yield "dirty: yes (the reference counts need a repair; reading is not affected)"
    if snapshots is not None:
        from pydiskimg.cli.snapshot import snapshot_lines

        yield "snapshots:"
        yield from snapshot_lines(snapshots)
    if isinstance(specific, dict):
        yield "format specific information:"
        yield from nested_lines(specific["data"], "    ")


def full_backing_filename(path: str, backing: str) -> str:
    """Return where the backing file of the image at path is: relative to the image, unless the name is absolute.

    A name with a protocol (nbd://host, json:{...}) is absolute too.
    """
    has_protocol = ":" in backing.partition("/")[0]
    if has_protocol or backing.startswith("/"):
        return backing
    return path[: path.rfind("/") + 1] + backing


def _qcow2_facts(file: Source, header: Header, path: str) -> Facts:
    facts: Facts = {}
    if header.crypt_method != layout.CRYPT_NONE:
        facts["encrypted"] = True
    if header.backing_file:
        facts["backing-filename"] = backing = os.fsdecode(header.backing_file)
        facts["full-backing-filename"] = full_backing_filename(path, backing)
        if header.backing_format:
            facts["backing-filename-format"] = os.fsdecode(header.backing_format)
    if header.nb_snapshots:
        from pydiskimg.cli.snapshot import snapshot_facts

        facts["snapshots"] = snapshot_facts(file, header)
    facts["format-specific"] = {"type": "qcow2", "data": _format_data(file, header)}
    return facts


def _format_data(file: Source, header: Header) -> Facts:
    data: Facts = {"compat": "1.1" if header.version == 3 else "0.10", "compression-type": header.compression_type}
    if header.version == 3:
        data["lazy-refcounts"] = header.lazy_refcounts
    if header.has_bitmaps:
        from pydiskimg.images.qcow2.bitmaps import read_bitmaps

        if bitmaps := read_bitmaps(file, header):
            data["bitmaps"] = ({"flags": b.flags, "name": b.name, "granularity": b.granularity} for b in bitmaps)
    data["refcount-bits"] = header.refcount_bits
    if header.has_data_file:
        if header.data_file:
            data["data-file"] = os.fsdecode(header.data_file)
        data["data-file-raw"] = header.data_file_raw
    if header.crypt_method != layout.CRYPT_NONE:
        from pydiskimg.cli.encryption import encryption_facts

        data["encrypt"] = encryption_facts(file, header)
    if header.version == 3:
        data["corrupt"] = header.corrupt
        data["extended-l2"] = header.extended_l2
    return data
