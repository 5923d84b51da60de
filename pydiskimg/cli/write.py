# SPDX-License-Identifier: MIT
"""pydiskimg write: write an image to a device after checks and a question, and read it back, as bmaptool copy does."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Iterator
from typing import Any

from pydiskimg.cli.arguments import require_file_name
from pydiskimg.cli.options import add_format_option, add_progress_option, add_quiet_option
from pydiskimg.cli.output import tell
from pydiskimg.cli.progress import progress
from pydiskimg.cli.references import add_references_option, references
from pydiskimg.errors import DiskImageError, DoesNotFitError, PartitionError, UnsupportedImageError, storage_error
from pydiskimg.files.tar.write_packed import write_packed
from pydiskimg.images.contents import Sort, file_contents
from pydiskimg.images.open import open_image
from pydiskimg.images.open_disk import open_disk
from pydiskimg.images.raw import open_raw
from pydiskimg.protocols import Disk, Progress
from pydiskimg.transfer.bmap import MAX_SIZE, BlockMap, check_by_bmap, parse_bmap
from pydiskimg.transfer.copy import copy
from pydiskimg.units import format_size
from pydiskimg.volumes.find import find_volumes

_COMPRESSED = ("gz", "xz", "bz2", "zst")


class NotConfirmedError(DiskImageError):
    """The user has not confirmed that the disk may be overwritten."""


_EXAMPLES = """\
pydiskimg write image.raw.xz /dev/sdX
pydiskimg write --yes --bmap disk.bmap disk.qcow2 /dev/vg/disk
"""


def add_parser(subparsers: Any) -> None:
    """Declare the subcommand."""
    parser = subparsers.add_parser(
        "write",
        description="Write IMAGE (raw, qcow2, or raw compressed with gzip, xz, bzip2 or zstd) to DEVICE, sparsely and "
        "durably, and read it back past the cache. On a terminal the contents of DEVICE are shown and a "
        "confirmation is asked for; without a terminal --yes is needed. A device that is mounted, held or "
        "used by a virtual machine is refused. The checksums of a block map (IMAGE.bmap or --bmap) are "
        "compared with the written device. DEVICE may also be a file.",
        examples=_EXAMPLES,
    )
    add_format_option(parser)
    parser.add_argument("--bmap", metavar="FILE", help="block map of IMAGE (default: IMAGE.bmap, if it exists)")
    parser.add_argument("--nobmap", action="store_true", help="use no block map")
    parser.add_argument("--no-verify", action="store_true", help="do not read back what was written")
    parser.add_argument("-y", "--yes", action="store_true", help="do not ask for a confirmation")
    add_progress_option(parser)
    add_quiet_option(parser)
    add_references_option(parser)
    parser.add_argument("image", metavar="IMAGE", help="disk image, compressed or not")
    parser.add_argument("device", metavar="DEVICE", help="block device, or existing file")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> None:
    """Write the image in the arguments."""
    require_file_name(arguments.image)
    require_file_name(arguments.device)
    block_map = None if arguments.nobmap else _block_map(arguments)
    with open_disk(arguments.device, writable=True) as disk:
        if block_map is not None and block_map.image_size > disk.size:
            raise DoesNotFitError(
                f"{disk.name}: has {disk.size} bytes, and the image {block_map.image_size} by its block map",
                needed=block_map.image_size,
                available=disk.size,
            )
        if not arguments.yes:
            _ask(disk)
        with progress(os.path.basename(arguments.image), shown=arguments.progress) as callback:
            size = _written(arguments, disk, block_map, callback)
        checked = "" if arguments.no_verify else ", read back and compared"
        if block_map is not None:
            check_by_bmap(disk, block_map)
            checked += f"; {len(block_map.ranges)} ranges have the checksums of the block map"
    if not arguments.quiet:
        print(f"{arguments.device}: {format_size(size)} were written{checked}")


def _written(arguments: argparse.Namespace, disk: Disk, block_map: BlockMap | None, callback: Progress | None) -> int:
    """Write the image and return its size (bytes)."""
    if arguments.format is None and _is_compressed(arguments.image):
        return write_packed(arguments.image, disk, verify=not arguments.no_verify, progress=callback)
    with (
        references(arguments) as policy,
        open_image(arguments.image, format=arguments.format, references=policy) as source,
    ):
        if block_map is not None and block_map.image_size != source.size:
            raise UnsupportedImageError(
                f"{arguments.image}: has {source.size} bytes, and its block map is for {block_map.image_size}"
            )
        copy(source, disk, verify=not arguments.no_verify, progress=callback)
        return source.size


def _is_compressed(path: str) -> bool:
    with open_raw(path) as file:
        contents = file_contents(file)
    return contents is not None and contents.sort is Sort.COMPRESSED


def _block_map(arguments: argparse.Namespace) -> BlockMap | None:
    name = arguments.bmap or next(filter(os.path.exists, _names(arguments.image)), None)
    if name is None:
        return None
    try:
        with open(name, "rb") as file:
            return parse_bmap(file.read(MAX_SIZE + 1), name)
    except OSError as error:
        raise storage_error(error, name, "cannot read the block map") from error


def _names(image: str) -> Iterator[str]:
    """Yield the possible paths of a block map, as bmaptool does: image.bmap, also without a compression ending."""
    yield f"{image}.bmap"
    name, _, ending = image.rpartition(".")
    if ending in _COMPRESSED:
        yield f"{name}.bmap"
        image = name
    yield f"{os.path.splitext(image)[0]}.bmap"


def _ask(disk: Disk) -> None:
    """Show the disk's contents and ask whether they may be overwritten. Raises NotConfirmedError."""
    tell(f"{disk.name} ({format_size(disk.size)}) will be overwritten. It holds: {'; '.join(_held(disk))}")
    if not sys.stdin.isatty():
        raise NotConfirmedError(
            f"{disk.name}: nothing was written: standard input is not a terminal; use --yes to overwrite it"
        )
    print("Overwrite it? [y/N] ", end="", file=sys.stderr, flush=True)
    if sys.stdin.readline().strip().lower() not in ("y", "yes"):
        raise NotConfirmedError(f"{disk.name}: nothing was written")


def _held(disk: Disk) -> Iterator[str]:
    unclear: list[str] = []
    try:
        volumes = find_volumes(disk, unclear.append)
    except PartitionError as error:
        yield str(error)
        return
    for volume in volumes:
        content = volume.content
        label = f" '{content.label}'" if content and content.label else ""
        what = f"{content.type}{label}" if content else "nothing known"
        yield f"{volume.location}, {format_size(volume.partition.length)}: {what}"
    yield from unclear
