# SPDX-License-Identifier: MIT
"""pydiskimg create: make a new, empty image."""

from __future__ import annotations

import os

from pydiskimg.cli.arguments import require_name, size_argument, without_protocol
from pydiskimg.cli.image_options import ImageOptions, add_image_options, image_options, option_pairs
from pydiskimg.cli.options import add_format_option, add_quiet_option
from pydiskimg.errors import InUseError, UnsupportedImageError
from pydiskimg.images import FORMATS
from pydiskimg.startup import TYPE_CHECKING
from pydiskimg.text import LINE, is_address, printable, shown_name

if TYPE_CHECKING:
    import argparse
    from typing import Any

_DEVICE_IS_RAW = "it already is a raw disk, so there is nothing to make"
_DEVICE_HAS_NO_BACKING = "an image with a backing file must be a file"
_EXAMPLES = """\
pydiskimg create empty.raw 10G
pydiskimg create -f qcow2 -o cluster_size=1M,lazy_refcounts=on empty.qcow2 10G
pydiskimg create -f qcow2 -b disk.qcow2 -F qcow2 overlay.qcow2
"""


def add_parser(subparsers: Any) -> None:
    """Declare the subcommand."""
    parser = subparsers.add_parser(
        "create",
        description="Make an empty image FILE of SIZE, such as 10G, rounded up to 512 bytes. An existing file of that "
        "name is replaced when the new one is complete. An image with a backing file shows the contents of "
        "that file until it is written to, and has its size if SIZE is left out.",
        examples=_EXAMPLES,
    )
    parser.add_argument("-f", dest="format", choices=FORMATS, default="raw", help="format (default: raw)")
    add_image_options(parser, empty=True)
    parser.add_argument("-b", dest="backing", metavar="BACKING", help="backing file; relative to FILE's directory")
    add_format_option(parser, "-F", dest="backing_format", note="format of BACKING, which is not guessed")
    parser.add_argument("-u", dest="unsafe", action="store_true", help="do not open BACKING, which may be missing")
    add_quiet_option(parser)
    parser.add_argument("file", metavar="FILE", help="new image")
    parser.add_argument("size", metavar="SIZE", nargs="?", type=size_argument, help="size of the virtual disk")
    parser.set_defaults(run=run, usage_error=parser.error, optional_operand="size")


def run(arguments: argparse.Namespace) -> None:
    """Make the image that the arguments describe."""
    from pydiskimg.images.qcow2.sizes import round_size  # imported here: it would slow --help down

    options = image_options(arguments, empty=True)
    if arguments.backing is None:
        arguments.backing = options.backing_file
    if arguments.backing_format is None:
        arguments.backing_format = options.backing_format
    named, arguments.file = arguments.file, without_protocol(arguments.file)
    _check_usage(arguments, options)
    if arguments.size is None:
        arguments.size = options.size
    if arguments.backing is not None:
        require_name(arguments.backing, "backing file")
    size: int | None = arguments.size
    if arguments.backing is not None and not arguments.unsafe:
        backing_size = _backing_size(arguments.file, arguments.backing, arguments.backing_format)
        size = backing_size if size is None else size
    assert size is not None
    formatting = _formatting_line(arguments, options, size, named)
    size = round_size(size)
    if arguments.backing is None:
        _create(arguments, options, size)
    else:
        _create_overlay(arguments, options, size)
    if not arguments.quiet:
        print(printable(formatting, limit=LINE))


def _check_usage(arguments: argparse.Namespace, options: ImageOptions) -> None:
    from pydiskimg.linux.blockdev import is_block_device

    problem = None
    if arguments.file.startswith("json:"):
        problem = "json: describes an image that exists; name a new one by its path"
    elif not FORMATS[arguments.format].has_options and (options.given or arguments.backing is not None):
        problem = "-o and -b are for qcow2 images: add -f qcow2"
    elif arguments.backing is not None and options.preallocation != "off" and not options.extended_l2:
        problem = (
            f"-b and preallocation={options.preallocation}: preallocated clusters would hide the backing file; add "
            "extended_l2=on"
        )
    elif arguments.backing is not None and arguments.backing_format is None:
        problem = "-b needs -F: the format of a backing file is not guessed"
    elif (arguments.format == "raw" or arguments.backing is not None) and is_block_device(arguments.file):
        problem = _DEVICE_IS_RAW if arguments.format == "raw" else _DEVICE_HAS_NO_BACKING
        problem = f"{arguments.file} is a block device: {problem}"
    elif arguments.backing is None and (arguments.backing_format is not None or arguments.unsafe):
        problem = "-F and -u need -b"
    elif arguments.size is not None and options.size is not None:
        problem = "SIZE and -o size are the same: give one of them"
    elif arguments.size is None and options.size is None and (arguments.backing is None or arguments.unsafe):
        problem = "SIZE is missing"
    if problem is not None:
        arguments.usage_error(problem)


def _backing_size(path: str, backing: str, format_name: str) -> int:
    """Return the size of the virtual disk in the backing file. The administrator named it, so it is opened."""
    if is_address(backing):
        return _size_at_address(backing, format_name)
    if ":" in backing.partition("/")[0]:
        raise UnsupportedImageError(
            f"{backing}: is the name of a protocol to QEMU, and only files and http:// or https:// addresses are "
            "opened; record it unopened with -u and SIZE"
        )
    from pydiskimg.images.raw import open_raw

    name = os.path.join(os.path.dirname(path), backing)
    with open_raw(name) as file:
        if os.path.exists(path) and os.path.samefile(path, name):
            raise InUseError(f"{name}: is the backing file and the new image at once", errno=None, filename=name)
        header = FORMATS[format_name].header(file)
        return file.size if header is None else header.size


def _size_at_address(backing: str, format_name: str) -> int:
    from pydiskimg.images.raw import open_image_file
    from pydiskimg.web.address import parse_address

    if parse_address(backing).authorization:
        raise UnsupportedImageError(
            f"{shown_name(backing)}: everyone who can read the new image could read the password; leave it out, and "
            "give it to the program that reads the image"
        )
    with open_image_file(backing) as file:
        header = FORMATS[format_name].header(file)
        return file.size if header is None else header.size


def _create(arguments: argparse.Namespace, options: ImageOptions, size: int) -> None:
    from pydiskimg.images.create import new_image

    with new_image(
        arguments.file,
        size,
        format=arguments.format,
        **(options.of_qcow2() if FORMATS[arguments.format].has_options else {}),
        preallocation=options.preallocation,
    ):
        pass


def _create_overlay(arguments: argparse.Namespace, options: ImageOptions, size: int) -> None:
    from pydiskimg.images.create import new_overlay

    new_overlay(
        arguments.file,
        size,
        backing_file=os.fsencode(arguments.backing),
        backing_format=arguments.backing_format.encode(),
        preallocation=options.preallocation,
        **options.of_qcow2(),
    )


def _formatting_line(arguments: argparse.Namespace, options: ImageOptions, size: int, named: str) -> str:
    """Return the line that qemu-img create prints: the options that are given or have a default, in its order."""
    given = dict(pair for text in arguments.image_options or () for pair in option_pairs(text))
    shown = {
        "encryption": given.get("encryption"),
        "cluster_size": options.cluster_size,
        "extended_l2": given.get("extended_l2", "off"),
        "preallocation": given.get("preallocation"),
        "compression_type": options.compression_type,
        "size": size,
        "compat": given.get("compat"),
        "backing_file": arguments.backing,
        "backing_fmt": arguments.backing_format,
        "data_file": given.get("data_file"),
        "data_file_raw": given.get("data_file_raw"),
        "lazy_refcounts": given.get("lazy_refcounts", "off"),
        "refcount_bits": options.refcount_bits,
        "nocow": given.get("nocow"),
        "extent_size_hint": given.get("extent_size_hint"),
    }
    if not FORMATS[arguments.format].has_options:
        shown = {key: shown[key] for key in ("size", "nocow", "preallocation", "extent_size_hint")}
    words = [f"{key}={str(value).replace(',', ',,')}" for key, value in shown.items() if value is not None]
    return f"Formatting '{named}', fmt={arguments.format} {' '.join(words)}"
