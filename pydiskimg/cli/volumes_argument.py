# SPDX-License-Identifier: MIT
"""The image or disk for filesystems, df, grow and shrink."""

from __future__ import annotations

from contextlib import contextmanager

from pydiskimg.cli.arguments import open_source, require_file_name
from pydiskimg.cli.options import add_format_option, add_output_option, add_quiet_option
from pydiskimg.cli.references import add_references_option, references
from pydiskimg.startup import TYPE_CHECKING

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable, Iterator
    from typing import Any

    from pydiskimg.protocols import ImageSource
    from pydiskimg.volumes.find import Volume


def add_volumes_arguments(parser: argparse.ArgumentParser, **operands: Any) -> None:
    """Add -f, --allow-references and IMAGE, or several with nargs and dest."""
    add_format_option(parser)
    add_references_option(parser)
    parser.add_argument(operands.pop("dest", "image"), metavar="IMAGE", help="disk image or block device", **operands)


def add_changed_disk_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the common options of grow and shrink: -f, -q, --output, --allow-references, DISK."""
    add_format_option(parser)
    add_quiet_option(parser)
    add_output_option(parser)
    add_references_option(parser)
    parser.add_argument("disk", metavar="DISK", help="disk image or block device")


@contextmanager
def volumes_argument(
    image: str, arguments: argparse.Namespace, unclear: Callable[[str], object]
) -> Iterator[tuple[ImageSource, list[Volume]]]:
    """Give the image of this name, opened as the arguments request, and its volumes.

    unclear is called with a sentence on each volume whose contents are unclear.
    """
    from pydiskimg.volumes.find import find_volumes  # imported here: it would slow --help down

    require_file_name(image)
    with (
        references(arguments) as policy,
        open_source(image, format=arguments.format, references=policy) as source,
    ):
        yield source, find_volumes(source, unclear)


def volume_name(number: int) -> str:
    """Return the virt-* tools' name for a partition, or for the disk (0)."""
    return f"/dev/sda{number or ''}"
