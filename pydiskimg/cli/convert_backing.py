# SPDX-License-Identifier: MIT
"""convert -B: the copy gets a backing file and stores only the differences from it."""

from __future__ import annotations

import os
from contextlib import ExitStack

from pydiskimg.cli.convert_target import bitmaps_of_source, paced, refuse_own_file, writing
from pydiskimg.cli.references import references
from pydiskimg.disks.fits import check_fits
from pydiskimg.errors import UnsupportedImageError
from pydiskimg.images.create import Backing
from pydiskimg.images.open import open_image
from pydiskimg.startup import TYPE_CHECKING
from pydiskimg.transfer.differences import write_differences
from pydiskimg.transfer.meter import Meter
from pydiskimg.transfer.verify import read_back, to_read_back
from pydiskimg.transfer.workers import worker_count

if TYPE_CHECKING:
    from typing import Any

    from pydiskimg.cli import Arguments
    from pydiskimg.cli.image_options import ImageOptions
    from pydiskimg.protocols import Source


def write_over_backing(source: Source, arguments: Arguments, options: ImageOptions, callback: Any) -> None:
    """Write the image that the arguments describe; with -n it already has its backing file."""
    if options.preallocation != "off":
        arguments.usage_error(f"-B and preallocation={options.preallocation}: all of DST would be stored")
    with ExitStack() as stack:
        backing = None if arguments.in_place else _opened_backing(stack, arguments)
        disk = stack.enter_context(writing(arguments, options, source.size, backing=backing))
        stack.enter_context(bitmaps_of_source(arguments, disk))
        check_fits(source, disk)
        unit = disk.unit or 1
        meter = Meter(callback, later=to_read_back(source, disk, unit) if arguments.verify else ())
        write_differences(
            source,
            disk if backing is None else backing.source,
            paced(disk, arguments.rate),
            unit=unit,
            sparse=arguments.sparse_unit != 0,
            workers=arguments.workers,
            progress=meter,
        )
        disk.flush()
        if arguments.verify:
            disk.drop_cache()
            workers = worker_count(arguments.workers)
            read_back(source, disk, unit=unit, workers=workers, meter=meter)


def _opened_backing(stack: ExitStack, arguments: Arguments) -> Backing:
    """The user names this file; files that it names must be allowed."""
    name = arguments.backing
    if ":" in name.partition("/")[0]:
        raise UnsupportedImageError(f"{name}: is the name of a protocol to QEMU, and only files are opened")
    path = os.path.join(os.path.dirname(arguments.destination), name)
    with references(arguments) as policy:
        found = stack.enter_context(open_image(path, format=arguments.backing_format, references=policy))
    refuse_own_file(found, arguments.destination, named=[found.name])
    return Backing(found, name=os.fsencode(name), format=os.fsencode(arguments.backing_format))
