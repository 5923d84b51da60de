# SPDX-License-Identifier: MIT
"""What build does: the disk that its arguments describe, made and reported."""

from __future__ import annotations

import logging
import os
from contextlib import ExitStack, contextmanager

from pydiskimg.cli.arguments import require_name
from pydiskimg.cli.convert_target import told_when_incomplete
from pydiskimg.cli.output import show, tell
from pydiskimg.cli.pipes import is_source_pipe, source_pipe
from pydiskimg.cli.progress import progress
from pydiskimg.errors import ArchiveError, BootLoaderError, MountPointError
from pydiskimg.files.directory import DirectoryReader
from pydiskimg.files.tar import open_tar
from pydiskimg.files.writer import Wording
from pydiskimg.images.create import new_image
from pydiskimg.images.open_disk import open_disk
from pydiskimg.linux.blockdev import is_block_device
from pydiskimg.startup import TYPE_CHECKING
from pydiskimg.system.build import SystemOptions, build_system
from pydiskimg.text import printable
from pydiskimg.units import format_size

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable, Iterator
    from contextlib import AbstractContextManager

    from pydiskimg.files.entry import Entry
    from pydiskimg.protocols import Disk
    from pydiskimg.system.build import BuiltSystem

_SECTOR = 512
_NOW = "SOURCE_DATE_EPOCH"


def build_disk(arguments: argparse.Namespace) -> None:
    """Make the disk that the arguments describe."""
    require_name(arguments.source, "tarball or directory")
    require_name(arguments.disk, "disk")
    is_device = is_block_device(arguments.disk)
    _check_usage(arguments, is_device=is_device)
    options = _options(arguments)
    with ExitStack() as stack:
        stack.enter_context(_warnings_told())
        callback = stack.enter_context(progress(os.path.basename(arguments.source), shown=arguments.progress))
        entries, wording = stack.enter_context(_entries(arguments.source, callback))
        disk = stack.enter_context(_target(arguments, is_device=is_device))
        try:
            built = build_system(disk, entries, options, wording=wording)
        except BootLoaderError as error:
            raise BootLoaderError(f"{error}; --bootloader none makes the disk without it") from error
        except MountPointError as error:
            raise ArchiveError(f"{error}; leave out --boot", entry=error.entry) from error
        size = disk.size
    _report(arguments, built, size, wording.source)


def _check_usage(arguments: argparse.Namespace, *, is_device: bool) -> None:
    if arguments.disk == "-":
        arguments.usage_error("a disk is written at any offset, which a pipe cannot take: name a file")
    if arguments.size is None and not (is_device and arguments.format == "raw"):
        arguments.usage_error("--size is missing: a new disk has the size that it is given, such as --size 4G")
    if arguments.size is not None and is_device and arguments.format == "raw":
        arguments.usage_error(f"{arguments.disk} is a block device, which has a size of its own: leave --size out")
    if arguments.bootloader == "none" and (arguments.kernel_args or arguments.serial_console):
        arguments.usage_error("--kernel-args and --serial-console are for the boot loader: leave out --bootloader none")


def _options(arguments: argparse.Namespace) -> SystemOptions:
    return SystemOptions(
        kind=arguments.kind,
        boot_size=arguments.boot,
        swap_size=arguments.swap,
        table=arguments.table,
        boot_loader=arguments.bootloader == "auto",
        host_name=arguments.hostname or "",
        kernel_args=arguments.kernel_args,
        serial_console=arguments.serial_console,
        uuid=arguments.uuid,
        now=_source_date(arguments),
    )


def _source_date(arguments: argparse.Namespace) -> int | None:
    text = os.environ.get(_NOW)
    if text is not None and not (text.isascii() and text.isdecimal() and len(text) < 12):
        arguments.usage_error(f"{_NOW} is {text[:20]!r}; expected seconds since 1970")
    return None if text is None else int(text)


@contextmanager
def _warnings_told() -> Iterator[None]:
    """Print warnings of the library, such as of a replaced grub.cfg, like all other messages."""

    class Teller(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            tell(record.getMessage())

    logger, handler = logging.getLogger("pydiskimg"), Teller(logging.WARNING)
    logger.addHandler(handler)
    try:
        yield
    finally:
        logger.removeHandler(handler)


@contextmanager
def _entries(source: str, callback: Callable[[int, int], None] | None) -> Iterator[tuple[Iterator[Entry], Wording]]:
    """Give the files of a directory, or of a tarball in a file or pipe, and the texts of messages about them."""
    if os.path.isdir(source):
        yield DirectoryReader(os.fsencode(source), callback).entries(), Wording(source, "copy", "copied")
    elif is_source_pipe(source):
        with source_pipe(source) as (fd, name), open_tar(name, fd=fd) as entries:
            yield entries, Wording(name)
    else:
        with open_tar(source, progress=callback) as entries:
            yield entries, Wording(source)


@contextmanager
def _target(arguments: argparse.Namespace, *, is_device: bool) -> Iterator[Disk]:
    """Give the Disk to write to; an error's text says so if it leaves a device incomplete."""
    path = arguments.disk
    target: AbstractContextManager[Disk]
    if is_device and arguments.format == "raw":
        target = open_disk(path, writable=True)
    else:
        size = -(-(arguments.size or 0) // _SECTOR) * _SECTOR
        target = new_image(path, size, format=arguments.format)
    with told_when_incomplete(path, target, at_all=is_device) as disk:
        yield disk


def _report(arguments: argparse.Namespace, built: BuiltSystem, size: int, source: str) -> None:
    """Print a description of the disk, and on standard error what keeps it from booting and what was left out."""
    left_out = built.populated.left_out
    if left_out:
        tell(f"{source}: {left_out}")
    if built.not_bootable:
        tell(f"{arguments.disk}: no boot loader is written, and the disk cannot boot by itself: {built.not_bootable}")
    root, label = built.uuids.root, {"dos": "mbr"}.get(built.layout.table.label, "gpt")
    is_bootable = bool(built.layout.table.boot_code)
    facts = {
        "filename": arguments.disk,
        "format": arguments.format,
        "size": size,
        "table": label,
        "type": arguments.kind,
        "uuid": str(root),
        "boot-uuid": None if built.uuids.boot is None else str(built.uuids.boot),
        "swap-uuid": None if built.uuids.swap is None else str(built.uuids.swap),
        "entries": built.populated.entries,
        "bytes": built.populated.bytes,
        "boot-loader": "grub" if is_bootable else None,
    }
    line = (
        f"{printable(arguments.disk)}: {arguments.format}, {format_size(size)}, {label.upper()}; {arguments.kind} with "
        f"{built.populated.entries} entries, {format_size(built.populated.bytes)}, UUID {root}; "
        f"{'GRUB for a BIOS' if is_bootable else 'no boot loader'}"
    )
    show(facts, [line], arguments.output)
