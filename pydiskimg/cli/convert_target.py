# SPDX-License-Identifier: MIT
"""The target of convert and dd: a new file, a block device, or with -n an existing image."""

from __future__ import annotations

import os
from contextlib import ExitStack, contextmanager

from pydiskimg.cli.references import references
from pydiskimg.errors import DiskImageError, InUseError
from pydiskimg.linux.blockdev import is_block_device
from pydiskimg.startup import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from contextlib import AbstractContextManager
    from typing import Any

    from pydiskimg.cli import Arguments
    from pydiskimg.cli.image_options import ImageOptions
    from pydiskimg.disks.open import OpenDisk
    from pydiskimg.images.create import Backing
    from pydiskimg.images.references import AllowedDirectory
    from pydiskimg.protocols import Disk, Source


@contextmanager
def writing(
    arguments: Arguments, options: ImageOptions, size: int | None, *, backing: Backing | None = None
) -> Iterator[Disk]:
    """Give the Disk that convert writes to; size None is that of a raw stream, not known yet."""
    path, form, compress = arguments.destination, arguments.output_format, arguments.compress
    with ExitStack() as stack:
        if arguments.in_place:
            with references(arguments) as policy:
                opened = existing_disk(
                    path, format=form, references=policy, is_zero=arguments.is_zero, compress=compress
                )
                disk = stack.enter_context(opened)
        else:
            opened = written_disk(path, size, format=form, options=options, compress=compress, backing=backing)
            disk = stack.enter_context(opened)
        if disk.format == "qcow2" and arguments.sparse_unit == 0:
            from pydiskimg.images.qcow2.write.disk import Qcow2Disk

            assert isinstance(disk, Qcow2Disk)
            disk.keep_zeros()
        yield disk


def paced(disk: Disk, rate: int | None) -> Disk:
    """Return disk, limited to rate bytes per second if rate is given."""
    if not rate:
        return disk
    from pydiskimg.transfer.paced import PacedDisk

    return PacedDisk(disk, rate)


def bitmaps_of_source(arguments: Arguments, disk: Disk) -> AbstractContextManager[None]:
    """While the context lasts, writes to disk are the copy; its bitmaps are the source's if requested."""
    if not getattr(arguments, "bitmaps", False):  # the common form has no such option
        from contextlib import nullcontext

        return nullcontext()
    from pydiskimg.cli.convert_bitmaps import copied_bitmaps

    return copied_bitmaps(arguments, disk)


@contextmanager
def written_disk(
    path: str,
    size: int | None,
    *,
    format: str,  # noqa: A002  qemu-img's word
    options: ImageOptions,
    compress: bool = False,
    backing: Backing | None = None,
) -> Iterator[Disk]:
    """Give the Disk of a new image, or of the device, at path; size None is that of a raw stream, not known yet.

    An error's text says so if it leaves a device incomplete.
    """
    is_device = is_block_device(path)
    if is_device and format == "raw":
        target: AbstractContextManager[Disk] = existing_disk(path, format=format)
    elif format == "raw" and size is None:
        target = _growing_file(path)
    else:
        target = _new(path, size or 0, format, options, compress=compress, backing=backing)
    with told_when_incomplete(path, target, at_all=is_device) as disk:
        yield disk


@contextmanager
def existing_disk(
    path: str,
    *,
    format: str,  # noqa: A002  qemu-img's word
    references: AllowedDirectory | None = None,
    is_zero: bool = False,
    compress: bool = False,
) -> Iterator[Disk]:
    """Give the Disk of an existing image, which is written in place; references are the files that it may name."""
    from pydiskimg.images.open_disk import open_disk

    how: dict[str, Any] = {"format": format, "references": references, "is_zero": is_zero, "compress": compress}
    opened: OpenDisk[Any] = open_disk(path, writable=True, **how)
    with told_when_incomplete(path, opened, at_all=True) as disk:
        yield disk if type(path) is str else _part(disk, path)


def _part(disk: Disk, path: str) -> Disk:
    """The described part of disk."""
    from pydiskimg.cli.described import part_of_disk

    return part_of_disk(disk, path)


def _new(
    path: str, size: int, form: str, options: ImageOptions, *, compress: bool, backing: Backing | None
) -> AbstractContextManager[Disk]:
    if form == "raw":
        from pydiskimg.disks.new_file import new_disk_file

        return new_disk_file(path, size)
    from pydiskimg.images.create import new_image, new_qcow2

    how: dict[str, Any] = {**options.of_qcow2(), "preallocation": options.preallocation, "compress": compress}
    if backing is not None:
        return new_qcow2(path, size, backing=backing, **how)
    return new_image(path, size, format=form, **how)


@contextmanager
def told_when_incomplete(path: str, target: AbstractContextManager[Disk], *, at_all: bool) -> Iterator[Disk]:
    """Give the target; if at_all, the text of an error after it was opened says that path is not complete."""
    begun = False
    try:
        with target as disk:
            begun = at_all
            yield disk
    except DiskImageError as error:
        if begun:
            error.add_what_is_left(f"{path} is not complete")
        raise


@contextmanager
def _growing_file(path: str) -> Iterator[Disk]:
    from pydiskimg.disks.file import GrowingDisk
    from pydiskimg.disks.new_file import new_file

    with new_file(path) as (fd, name):
        yield GrowingDisk(fd, name)


def refuse_own_file(source: Source, destination: str, *, named: Sequence[str]) -> None:
    """Raise InUseError if the destination is one of the files that source, of the images named, is read from."""
    status = _destination_status(destination)
    if status is None:
        return
    for name in source.files():
        try:
            own = os.stat(name)
        except OSError:
            continue
        role = "" if name in named else f"the destination, and a backing or data file of {source.name}"
        _refuse_overlap(own, status, destination, role)


def refuse_own_pipe(fd: int, destination: str) -> None:
    """Raise InUseError if the destination is the file of the descriptor that is read from."""
    status = _destination_status(destination)
    if status is not None:
        _refuse_overlap(os.fstat(fd), status, destination)


def _refuse_overlap(own: os.stat_result, status: os.stat_result, destination: str, role: str = "") -> None:
    from pydiskimg.host.same_bytes import overlap

    if overlap(own, status):
        role = role or "both source and destination"
        raise InUseError(f"{destination}: is {role}; nothing was written", errno=None, filename=destination)


def _destination_status(destination: str) -> os.stat_result | None:
    try:
        return os.stat(1 if destination == "-" else destination)
    except (OSError, ValueError):
        return None
