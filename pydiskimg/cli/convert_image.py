# SPDX-License-Identifier: MIT
"""What convert does: images and pipes copied to an image or a pipe."""

from __future__ import annotations

import os
from contextlib import ExitStack

from pydiskimg.cli.arguments import open_source, require_name
from pydiskimg.cli.convert_target import bitmaps_of_source, paced, refuse_own_file, refuse_own_pipe, writing
from pydiskimg.cli.image_options import image_options
from pydiskimg.cli.pipes import destination_pipe, is_destination_pipe, is_source_pipe, source_pipe
from pydiskimg.cli.progress import progress
from pydiskimg.cli.references import references
from pydiskimg.errors import DiskImageError, UnsupportedImageError
from pydiskimg.images import FORMATS, PROTOCOLS
from pydiskimg.linux.blockdev import is_block_device
from pydiskimg.startup import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Any

    from pydiskimg.cli import Arguments
    from pydiskimg.cli.image_options import ImageOptions
    from pydiskimg.images.references import AllowedDirectory
    from pydiskimg.protocols import ImageSource, Source
    from pydiskimg.transfer.receive import Stream


def convert_image(arguments: Any) -> None:
    """Convert as the arguments request."""
    more: Sequence[str] = arguments.more or ()
    *sources, arguments.destination = [arguments.source, arguments.destination, *more]
    for name in sources:
        require_name(name)
    require_name(arguments.destination, "destination")
    options = image_options(arguments)
    _read_protocols(arguments, sources)
    from_pipe, to_pipe = any(map(is_source_pipe, sources)), is_destination_pipe(arguments.destination)
    _check_usage(arguments, options, from_pipe=from_pipe, to_pipe=to_pipe)
    if arguments.offload is not None:  # the common form has none of these options
        from pydiskimg.cli.convert_options import check_uncommon_options

        check_uncommon_options(arguments, options, from_pipe=from_pipe, to_pipe=to_pipe)
    shown = arguments.progress and not arguments.quiet
    with progress(_label(arguments.source), shown=shown, as_qemu_img=not (from_pipe or to_pipe)) as callback:
        if from_pipe:
            _from_pipe(arguments, options, callback, to_pipe=to_pipe)
            return
        try:
            with references(arguments) as policy:
                source = _open(arguments, sources, policy)
        except DiskImageError as error:
            if "://" not in arguments.source:
                raise
            from pydiskimg.cli.convert_from_address import stream_instead

            with stream_instead(arguments, error) as stream:
                _from_stream(stream, arguments, options, callback, to_pipe=to_pipe)
            return
        with source:
            refuse_own_file(source, arguments.destination, named=sources)
            if options.data_file:
                refuse_own_file(source, options.data_file, named=sources)
            wanted = _used(source) if arguments.used else source
            if to_pipe:
                _to_pipe(wanted, arguments, options, callback)
            else:
                _to_disk(wanted, arguments, options, callback)


def _label(path: str) -> str:
    """Return the title of the progress for reading path."""
    if "://" in path:
        from pydiskimg.text import shown_name

        path = shown_name(path)
    return os.path.basename(path)


def _open(arguments: Arguments, sources: list[str], policy: AllowedDirectory | None) -> ImageSource:
    if len(sources) == 1 and arguments.snapshot is None and not arguments.salvage:
        return open_source(sources[0], format=arguments.format, references=policy)
    from pydiskimg.cli.convert_source import open_sources

    return open_sources(arguments, sources, policy)


def _read_protocols(arguments: Arguments, sources: list[str]) -> None:
    """Make file and host_device mean raw, after checking that host_device names a device."""
    for attribute, names in (("format", sources), ("output_format", [arguments.destination])):
        form = getattr(arguments, attribute)
        if form not in PROTOCOLS:
            continue
        for name in names if form == "host_device" else ():
            if not is_block_device(name):
                raise UnsupportedImageError(f"{name}: is not a block device, which host_device requires")
        setattr(arguments, attribute, "raw")


def _check_usage(arguments: Arguments, options: ImageOptions, *, from_pipe: bool, to_pipe: bool) -> None:
    """End with a usage error for options that cannot be combined."""
    error: Callable[[str], None] = arguments.usage_error
    if not FORMATS[arguments.output_format].has_options and (arguments.compress or options.given):
        error("-c and -o are for a qcow2 image: add -O qcow2")
    if arguments.compress and options.preallocation != "off":
        error(f"-c and preallocation={options.preallocation} cannot be combined: leave one of them out")
    if arguments.in_place and arguments.image_options:
        error("-o is for a new image, but with -n DST already exists")
    if arguments.in_place and to_pipe:
        error(
            "-n needs random access, and a descriptor is written in order: name the file by its path"
            if os.path.isfile(arguments.destination)
            else "-n is for an existing DST, not for a pipe"
        )
    if arguments.is_zero and not arguments.in_place:
        error("--target-is-zero is for an existing DST: add -n")
    if arguments.verify and (from_pipe or to_pipe):
        error("--verify reads everything again, which is not possible with a pipe")
    if arguments.used and from_pipe:
        error("--used needs random access, which a pipe does not have: convert it to a file first")
    if arguments.snapshot is not None and from_pipe:
        error("-l is for an image in a file: a snapshot cannot be read from a pipe")


def _used(source: Source) -> Source:
    """Return a source of the used space, and print what was left out and what was not believed."""
    from pydiskimg.cli.output import tell
    from pydiskimg.volumes.used import used_source

    used = used_source(source)
    for note in used.notes:
        tell(f"{source.name}: {note}")
    return used


def _from_pipe(arguments: Arguments, options: ImageOptions, callback: Any, *, to_pipe: bool) -> None:
    from pydiskimg.transfer.receive import read_stream

    with ExitStack() as stack:
        fd, name = stack.enter_context(source_pipe(arguments.source))
        refuse_own_pipe(fd, arguments.destination)
        stream = stack.enter_context(read_stream(fd, format=arguments.format, name=name))
        _from_stream(stream, arguments, options, callback, to_pipe=to_pipe)


def _from_stream(stream: Stream, arguments: Arguments, options: ImageOptions, callback: Any, *, to_pipe: bool) -> None:
    if to_pipe:
        if arguments.output_format != "raw":
            raise UnsupportedImageError(
                f"{stream.name}: cannot become a qcow2 in a pipe: its tables come first, which needs a source that can "
                "be read twice; convert it to a file, and that to the pipe"
            )
        with destination_pipe(arguments.destination) as (out, out_name):
            stream.write_to(out, name=out_name, workers=arguments.workers, progress=callback)
    else:
        with writing(arguments, options, stream.size) as disk:
            stream.copy_to(
                disk,
                grow=not arguments.in_place,
                unit=disk.unit or arguments.sparse_unit,
                workers=arguments.workers,
                progress=callback,
            )


def _to_pipe(source: Source, arguments: Arguments, options: ImageOptions, callback: Any) -> None:
    from pydiskimg.transfer.send import write_stream

    if options.extended_l2 or options.data_file:
        raise UnsupportedImageError(
            f"{source.name}: a qcow2 in a pipe cannot have extended L2 entries or a data file; leave extended_l2 and "
            "data_file out, or convert to a file"
        )
    with destination_pipe(arguments.destination) as (fd, name):
        write_stream(
            source,
            fd,
            format=arguments.output_format,
            version=options.version,
            cluster_size=options.cluster_size,
            compression_type=options.compression_type if arguments.compress else None,
            workers=arguments.workers,
            progress=callback,
            name=name,
        )


def _to_disk(source: Source, arguments: Arguments, options: ImageOptions, callback: Any) -> None:
    from pydiskimg.transfer.copy import copy

    if arguments.backing is not None:
        from pydiskimg.cli.convert_backing import write_over_backing

        write_over_backing(source, arguments, options, callback)
        return
    with writing(arguments, options, source.size) as disk, bitmaps_of_source(arguments, disk):
        copy(
            source,
            paced(disk, arguments.rate),
            unit=disk.unit or arguments.sparse_unit or None,
            workers=arguments.workers,
            progress=callback,
            verify=arguments.verify,
            sparse=arguments.sparse_unit != 0,
            share=bool(arguments.offload),
        )
