# SPDX-License-Identifier: MIT
"""pydiskimg convert: an image becomes another one: raw or qcow2, in a file, on a block device or through a pipe."""

from __future__ import annotations

import os
from contextlib import ExitStack, contextmanager

from pydiskimg.cli.arguments import require_name
from pydiskimg.cli.image_options import ImageOptions, add_image_options, image_options
from pydiskimg.cli.pipes import destination_pipe, is_destination_pipe, is_source_pipe, source_pipe
from pydiskimg.cli.progress import progress
from pydiskimg.cli.references import add_references_option, references
from pydiskimg.errors import DiskImageError, InUseError, UnsupportedImageError
from pydiskimg.images import FORMATS
from pydiskimg.images.open import open_image
from pydiskimg.linux.blockdev import is_block_device
from pydiskimg.startup import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from contextlib import AbstractContextManager
    from typing import Any

    from pydiskimg.cli import Arguments, Parser
    from pydiskimg.protocols import Disk, ImageSource, Source
    from pydiskimg.transfer.receive import Stream


_IGNORED = "accepted as by qemu-img, without effect: "
_CACHE_MODES = ("none", "writeback", "writethrough", "directsync", "unsafe")
_WORKERS = tuple(str(number) for number in range(1, 17))
_DESCRIPTION = """\
Copy the image SRC to DST, sparsely and durably. A new file appears under its name when it is complete; a block
device, and with -n an existing image, is written in place and keeps its size. "-" is standard input or output, a
pipe is written and read from front to back: the format of SRC must be named by -f when it is a qcow2 that comes
through a pipe, and must have its tables first, as it has when this command has written it to a pipe.
"""


def add_parser(subparsers: Any) -> None:
    """Declare the subcommand."""
    from pydiskimg.cli.convert_options import add_refused_options, sparse_unit

    parser = subparsers.add_parser("convert", description=_DESCRIPTION)
    declare_common(parser)
    parser.add_argument("-C", dest="ignored", action="store_true", help=f"{_IGNORED}the kernel copies where it can")
    add_image_options(parser)
    parser.add_argument(
        "--target-is-zero", dest="is_zero", action="store_true", help="with -n: DST reads as zero, zero nothing in it"
    )
    parser.add_argument(
        "-S",
        dest="sparse_unit",
        type=sparse_unit,
        metavar="SIZE",
        help="look for zeros to be left out in pieces of SIZE, or of the power of two below it (default: 4k; 64k onto "
        "what may hold old data; a qcow2 has always whole clusters)",
    )
    add_refused_options(parser)
    parser.add_argument("--bitmaps", action="store_true", help="copy the dirty bitmaps of SRC; both are qcow2")
    parser.add_argument(
        "--skip-broken-bitmaps", action="store_true", help="with --bitmaps: leave out those that are in use, and tell"
    )
    parser.add_argument(
        "-l",
        dest="snapshot",
        metavar="SNAPSHOT",
        help="copy this internal snapshot: its id or name, or snapshot.id=ID, snapshot.name=NAME or both with a comma",
    )
    parser.add_argument(
        "--used",
        action="store_true",
        help="leave out what the ext2, ext3 and ext4 file systems of SRC have as free, and the contents of swap: DST "
        "reads as zero there; a volume that is damaged, or of which the contents are not known, is copied whole, as a "
        "message says; not from pipes",
    )
    parser.add_argument(
        "--verify",
        action="store_true",
        help="read everything back and compare, but for holes that DST has by its own map; with --used what was left "
        "out has to read as zero; not for pipes",
    )
    add_references_option(parser)
    parser.set_defaults(run=run)


def declare_common(parser: Parser) -> None:
    """Declare the options of the common form."""
    parser.add_argument(
        "-f", dest="format", choices=FORMATS, help="format of SRC (default: by its contents; of a pipe: raw)"
    )
    parser.add_argument("-O", dest="output_format", choices=FORMATS, default="raw", help="format of DST (default: raw)")
    parser.add_argument("-c", dest="compress", action="store_true", help="compress the clusters of a qcow2")
    parser.add_argument("-n", dest="in_place", action="store_true", help="DST exists: write into it")
    parser.add_argument(
        "-m",
        dest="workers",
        type=_workers,
        metavar="N",
        help="number of workers, from 1 to 16, of which 8 at most are used (default: by the CPUs)",
    )
    parser.add_argument("-p", dest="progress", action="store_true", help="show progress")
    parser.add_argument("-q", dest="quiet", action="store_true", help="show no progress, even with -p")
    for option, text in (("-U", "SRC is read without a lock"), ("-W", "the order of writing is free anyway")):
        parser.add_argument(option, dest="ignored", action="store_true", help=_IGNORED + text)
    for option, whose in (("-t", "DST"), ("-T", "SRC")):
        text = f"{_IGNORED}how {whose} is cached ({', '.join(_CACHE_MODES)})"
        parser.add_argument(option, dest="ignored", choices=_CACHE_MODES, metavar="CACHE", help=text)
    parser.add_argument("source", metavar="SRC")
    parser.add_argument("destination", metavar="DST")
    parser.set_defaults(usage_error=parser.error, bitmaps=False, skip_broken_bitmaps=False)


def run(arguments: Arguments) -> None:
    """Convert as the arguments say."""
    require_name(arguments.source)
    require_name(arguments.destination, "destination")
    options = image_options(arguments)
    from_pipe, to_pipe = is_source_pipe(arguments.source), is_destination_pipe(arguments.destination)
    _check_usage(arguments, options, from_pipe=from_pipe, to_pipe=to_pipe)
    shown = arguments.progress and not arguments.quiet
    with progress(_label(arguments.source), shown=shown, as_qemu_img=not (from_pipe or to_pipe)) as callback:
        if from_pipe:
            _from_pipe(arguments, options, callback, to_pipe=to_pipe)
            return
        try:
            with references(arguments) as policy:
                source = open_image(
                    arguments.source, format=arguments.format, references=policy, snapshot=_snapshot(arguments)
                )
        except DiskImageError as error:
            if "://" not in arguments.source:
                raise
            from pydiskimg.cli.convert_from_address import stream_instead

            with stream_instead(arguments, error) as stream:
                _from_stream(stream, arguments, options, callback, to_pipe=to_pipe)
            return
        with source:
            _refuse_own_file(source, arguments.destination)
            if options.data_file:
                _refuse_own_file(source, options.data_file)
            wanted = _used(source) if arguments.used else source
            if to_pipe:
                _to_pipe(wanted, arguments, options, callback)
            else:
                _to_disk(wanted, arguments, options, callback)


def _label(path: str) -> str:
    """Return what the progress of reading path is called."""
    if "://" in path:
        from pydiskimg.text import shown_name

        path = shown_name(path)
    return os.path.basename(path)


def _check_usage(arguments: Arguments, options: ImageOptions, *, from_pipe: bool, to_pipe: bool) -> None:
    """End with a usage error where options do not go together."""
    error: Callable[[str], None] = arguments.usage_error
    if not FORMATS[arguments.output_format].has_options and (arguments.compress or options.given):
        error("-c and -o are for a qcow2 image: add -O qcow2")
    if arguments.in_place and options.given:
        error("-o is for a new image, and with -n there is one already")
    if arguments.in_place and to_pipe:
        error(
            "-n writes all over a file, and a descriptor is written from front to back: name the file by its path"
            if os.path.isfile(arguments.destination)
            else "-n is for a DST that exists, and a pipe holds nothing"
        )
    if arguments.is_zero and not arguments.in_place:
        error("--target-is-zero is for a DST that exists: add -n")
    if arguments.verify and (from_pipe or to_pipe):
        error("--verify reads everything again, which a pipe cannot do")
    if arguments.used and from_pipe:
        error("--used reads what is free before anything else, which a pipe cannot do: convert it to a file first")
    if arguments.skip_broken_bitmaps and not arguments.bitmaps:
        error("--skip-broken-bitmaps is for --bitmaps")
    if arguments.bitmaps and (from_pipe or to_pipe):
        error("--bitmaps is for images in files: bitmaps do not go through a pipe")
    if arguments.snapshot is not None and from_pipe:
        error("-l is for an image in a file: a snapshot cannot be read from a pipe")


def _snapshot(arguments: Arguments) -> str | None:
    if arguments.snapshot is None:
        return None
    from pydiskimg.cli.snapshot_choice import chosen_snapshot

    return chosen_snapshot(arguments.source, arguments.format, arguments.snapshot)


def _used(source: Source) -> Source:
    """Return what of source is in use, and tell what was left out and what was not believed."""
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
        _refuse_own_pipe(fd, arguments.destination)
        stream = stack.enter_context(read_stream(fd, format=arguments.format, name=name))
        _from_stream(stream, arguments, options, callback, to_pipe=to_pipe)


def _from_stream(stream: Stream, arguments: Arguments, options: ImageOptions, callback: Any, *, to_pipe: bool) -> None:
    report = _of_unknown_size(callback) if stream.size is None else callback
    if to_pipe:
        if arguments.output_format != "raw":
            raise UnsupportedImageError(
                f"{stream.name}: cannot become a qcow2 in a pipe: its tables come first, which needs a source that can "
                "be read twice; convert it to a file, and that to the pipe"
            )
        with destination_pipe(arguments.destination) as (out, out_name):
            done = stream.write_to(out, name=out_name, workers=arguments.workers, progress=report)
    else:
        with _writing(arguments, options, stream.size) as disk:
            done = stream.copy_to(
                disk,
                grow=not arguments.in_place,
                unit=disk.unit or arguments.sparse_unit,
                workers=arguments.workers,
                progress=report,
            )
    if callback is not None and stream.size is None:
        callback(done, done)


def _to_pipe(source: Source, arguments: Arguments, options: ImageOptions, callback: Any) -> None:
    from pydiskimg.transfer.send import write_stream

    if options.extended_l2 or options.data_file:
        raise UnsupportedImageError(
            f"{source.name}: a qcow2 in a pipe has no extended L2 entries and no data file; leave extended_l2 and "
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

    with _writing(arguments, options, source.size) as disk, _copied_bitmaps(arguments, disk):
        copy(
            source,
            disk,
            unit=disk.unit or arguments.sparse_unit,
            workers=arguments.workers,
            progress=callback,
            verify=arguments.verify,
        )


def _copied_bitmaps(arguments: Arguments, disk: Disk) -> AbstractContextManager[None]:
    from contextlib import nullcontext

    if not arguments.bitmaps:
        return nullcontext()
    from pydiskimg.cli.convert_bitmaps import copied_bitmaps

    return copied_bitmaps(arguments, disk)


@contextmanager
def _writing(arguments: Arguments, options: ImageOptions, size: int | None) -> Iterator[Disk]:
    """Give the Disk to write to; the sentence of an error says so when it leaves a device or an image incomplete."""
    begun = False
    in_place = arguments.in_place or is_block_device(arguments.destination)
    try:
        with _target(arguments, options, size) as disk:
            begun = in_place
            yield disk
    except DiskImageError as error:
        if begun:
            error.add_what_is_left(f"{arguments.destination} is not complete")
        raise


def _target(arguments: Arguments, options: ImageOptions, size: int | None) -> AbstractContextManager[Disk]:
    """The Disk to write to; size None is that of a raw stream, not known yet."""
    path, is_raw = arguments.destination, arguments.output_format == "raw"
    if arguments.in_place or (is_raw and is_block_device(path)):
        return _existing_image(arguments)
    if is_raw and size is None:
        return _growing_file(path)
    if is_raw:
        from pydiskimg.disks.new_file import new_disk_file

        return new_disk_file(path, size or 0)
    from pydiskimg.images.create import new_image

    return new_image(
        path,
        size or 0,
        format=arguments.output_format,
        **options.of_qcow2(),
        preallocation=options.preallocation,
        compress=arguments.compress,
    )


@contextmanager
def _existing_image(arguments: Arguments) -> Iterator[Disk]:
    from pydiskimg.images.open_disk import open_disk

    with references(arguments) as policy:
        opened = open_disk(
            arguments.destination,
            writable=True,
            is_zero=arguments.is_zero,
            format=arguments.output_format,
            references=policy,
            compress=arguments.compress,
        )
    with opened as disk:
        yield disk


@contextmanager
def _growing_file(path: str) -> Iterator[Disk]:
    from pydiskimg.disks.file import GrowingDisk
    from pydiskimg.disks.new_file import new_file

    with new_file(path) as (fd, name):
        yield GrowingDisk(fd, name)


def _refuse_own_file(source: ImageSource, destination: str) -> None:
    """Raise InUseError when the destination is one of the files that source is read from."""
    status = _destination_status(destination)
    if status is None:
        return
    for name in source.files():
        try:
            own = os.stat(name)
        except OSError:
            continue
        role = "" if name == source.name else f"the destination, and {source.name} stands on it"
        _refuse_overlap(own, status, destination, role)


def _refuse_own_pipe(fd: int, destination: str) -> None:
    """Raise InUseError when the destination is the file of the descriptor that is read from."""
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


def _of_unknown_size(callback: Any) -> Any:
    """A callback that never shows the end: how much more there is, is not known."""
    return None if callback is None else lambda done, _: callback(done, done + 1)


def _workers(text: str) -> int:
    if text not in _WORKERS:
        import argparse

        raise argparse.ArgumentTypeError(f"{text[:20]!r} is not a number from 1 to 16")
    return int(text)
