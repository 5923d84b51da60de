# SPDX-License-Identifier: MIT
"""What pydiskimg write does: write an image to a device after a question, and read it back, as bmaptool copy does."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Iterator
from contextlib import ExitStack

from pydiskimg.cli.arguments import require_file_name, require_name
from pydiskimg.cli.convert_target import refuse_own_file
from pydiskimg.cli.disk_argument import image_noun
from pydiskimg.cli.interruption import after_interruption
from pydiskimg.cli.output import show, tell
from pydiskimg.cli.progress import progress
from pydiskimg.cli.references import references
from pydiskimg.disks.fits import check_fits
from pydiskimg.errors import (
    ArchiveError,
    DiskImageError,
    DoesNotFitError,
    InvalidImageError,
    PartitionError,
    StorageError,
    UnsupportedImageError,
    VerificationError,
    storage_error,
)
from pydiskimg.files.tar.write_packed import write_packed
from pydiskimg.images import looks_like
from pydiskimg.images.contents import Sort, file_contents
from pydiskimg.images.open import open_image
from pydiskimg.images.open_disk import open_disk
from pydiskimg.images.raw import open_raw
from pydiskimg.images.references import AllowedDirectory
from pydiskimg.protocols import Disk, Progress, Source
from pydiskimg.text import is_address
from pydiskimg.transfer.bmap import MAX_SIZE, BlockMap, check_by_bmap, parse_bmap
from pydiskimg.transfer.copy import copy
from pydiskimg.units import format_size
from pydiskimg.volumes.find import find_volumes

_COMPRESSED = ("gz", "xz", "bz2", "zst")


class NotConfirmedError(DiskImageError):
    """The user has not confirmed that the disk may be overwritten."""


def write_image(arguments: argparse.Namespace) -> None:
    """Write the image in the arguments."""
    require_file_name(arguments.image)
    require_file_name(arguments.device)
    if arguments.bmap is not None:
        require_name(arguments.bmap, "block map")
    if is_address(arguments.image):
        raise UnsupportedImageError(
            f"{arguments.image}: write reads files and devices; use pydiskimg convert ADDRESS DEVICE, or download it"
        )
    block_map = None if arguments.nobmap else _block_map(arguments)
    with references(arguments) as policy, ExitStack() as stack:
        source = _opened(stack, arguments, policy)
        disk = stack.enter_context(open_disk(arguments.device, writable=True))
        if block_map is not None:
            _check_sizes(block_map, source, disk)
        if source is not None:
            check_fits(source, disk)
        if not arguments.yes:
            _ask(disk)
        later = block_map.checked_bytes if block_map is not None else 0
        with (
            after_interruption(f"{disk.name} has a part of the image; give the command again to write all of it"),
            progress(os.path.basename(arguments.image), shown=arguments.progress) as callback,
        ):
            passes = _Passes(callback, later)
            size = _written(arguments, source, disk, passes.first if callback else None)
            if block_map is not None:
                _check_by_bmap(disk, size, block_map, passes.second if callback else None)
    checked = "" if arguments.no_verify else ", read back and compared"
    if block_map is not None:
        checked += f"; {_by_checksums(block_map)}"
    if not arguments.quiet:
        facts = {
            "filename": arguments.image,
            "device": arguments.device,
            "size": size,
            "verified": not arguments.no_verify,
            "block-map-ranges": None if block_map is None else block_map.checked_ranges,
        }
        show(facts, [f"{arguments.device}: {format_size(size)} were written{checked}"], arguments.output)


def _by_checksums(block_map: BlockMap) -> str:
    if not block_map.checked_ranges:
        return "the block map has no checksums"
    ranges = "1 range has" if block_map.checked_ranges == 1 else f"{block_map.checked_ranges} ranges have"
    return f"{ranges} the checksums of the block map"


class _Passes:
    """One progress for the writing and the later check of bytes by a block map."""

    def __init__(self, progress: Progress | None, later: int) -> None:
        self._progress = progress
        self._later = later
        self._total = 0

    def first(self, done: int, total: int) -> None:
        self._total = total
        self._report(done)

    def second(self, done: int, _: int) -> None:
        self._report(self._total + done)

    def _report(self, done: int) -> None:
        if self._progress is not None:
            self._progress(done, self._total + self._later)


def _written(arguments: argparse.Namespace, source: Source | None, disk: Disk, callback: Progress | None) -> int:
    """Write the image, compressed without a source, and return its size (bytes)."""
    verify = not arguments.no_verify
    try:
        if source is None:
            return write_packed(arguments.image, disk, verify=verify, progress=callback)
        copy(source, disk, verify=verify, progress=callback)
    except (ArchiveError, InvalidImageError, StorageError) as error:
        error.add_what_is_left(f"{disk.name} is not complete")
        raise
    return source.size


def _opened(stack: ExitStack, arguments: argparse.Namespace, policy: AllowedDirectory | None) -> Source | None:
    """Return the image, or None for a compressed one; raises UnsupportedImageError for a file that is not an image."""
    with open_raw(arguments.image) as file:
        contents = file_contents(file) if arguments.format is None else None
        refuse_own_file(file, arguments.device, named=[arguments.image])
        if not file.size:
            raise UnsupportedImageError(f"{file.name}: is empty; nothing was written")
    if contents is not None and contents.sort is Sort.COMPRESSED:
        return None
    # For an image format that is not read, the error of open_image() says what to do.
    if contents is not None and contents.sort not in (Sort.QCOW2, Sort.IMAGE):
        raise UnsupportedImageError(
            f"{arguments.image}: is {contents.what}, not a disk image; -f raw writes it as it is; nothing was written"
        )
    source = stack.enter_context(open_image(arguments.image, format=arguments.format, references=policy))
    refuse_own_file(source, arguments.device, named=[arguments.image])
    return source


def _check_sizes(block_map: BlockMap, source: Source | None, disk: Disk) -> None:
    """Raise DoesNotFitError or UnsupportedImageError if the map is for another size."""
    size = block_map.image_size
    if source is not None and size != source.size:
        raise UnsupportedImageError(f"{source.name}: has {source.size} bytes, and its block map is for {size}")
    if size > disk.size:
        raise DoesNotFitError(
            f"{disk.name}: has {disk.size} bytes, and the image {size} by its block map; nothing was written",
            needed=size,
            available=disk.size,
        )


def _check_by_bmap(disk: Disk, size: int, block_map: BlockMap, progress: Progress | None) -> None:
    if size != block_map.image_size:
        raise VerificationError(
            f"{disk.name}: {size} bytes were written, and the block map is for an image of {block_map.image_size}: the "
            "image is not complete, or is another one",
            offset=min(size, block_map.image_size),
        )
    check_by_bmap(disk, block_map, progress=progress)


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
    tell(f"{disk.name} ({format_size(disk.size)}) will be overwritten. It holds:")
    for text in _held(disk):
        tell(f"  {text}")
    if not sys.stdin.isatty():
        raise NotConfirmedError(
            f"{disk.name}: nothing was written: standard input is not a terminal; use --yes to overwrite it"
        )
    with after_interruption("nothing was written"):
        print("Overwrite it? [y/N] ", end="", file=sys.stderr, flush=True)
        answer = sys.stdin.readline()
        if not answer.endswith("\n"):  # Ctrl-D leaves the cursor after the question
            print(file=sys.stderr)
    if answer.strip().lower() not in ("y", "yes"):
        raise NotConfirmedError(f"{disk.name}: nothing was written")


def _held(disk: Disk) -> Iterator[str]:
    image = looks_like(disk)
    if image is not None:
        yield image_noun(image)
        return
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
