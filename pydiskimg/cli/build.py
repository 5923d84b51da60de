# SPDX-License-Identifier: MIT
"""pydiskimg build: make a bootable disk from a tarball or a directory, as an ordinary user."""

from __future__ import annotations

import argparse
import os
from contextlib import ExitStack, contextmanager

from pydiskimg.cli.arguments import require_name, size_argument, uuid_argument
from pydiskimg.cli.convert_target import told_when_incomplete
from pydiskimg.cli.options import add_output_option, add_progress_option
from pydiskimg.cli.output import show, tell
from pydiskimg.cli.pipes import is_source_pipe, source_pipe
from pydiskimg.cli.progress import progress
from pydiskimg.errors import ArchiveError, BootLoaderError, MountPointError
from pydiskimg.fs.probe.kind import EXT_TYPES
from pydiskimg.images import FORMATS
from pydiskimg.linux.blockdev import is_block_device
from pydiskimg.startup import TYPE_CHECKING
from pydiskimg.text import printable
from pydiskimg.units import format_size

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from contextlib import AbstractContextManager
    from typing import Any

    from pydiskimg.files.entry import Entry
    from pydiskimg.files.writer import Wording
    from pydiskimg.protocols import Disk
    from pydiskimg.system.build import BuiltSystem, SystemOptions

_LONGEST = 1024  # characters of arguments; the kernel accepts 2047 in all
_SECTOR = 512
_NOW = "SOURCE_DATE_EPOCH"
_DESCRIPTION = """\
Make the system in SOURCE, a tarball (compressed or not) or a directory, a bootable disk: a partition table, a root file
system with all of the files, their owners, times, links, devices and attributes, an fstab that names it by UUID, and
GRUB for a BIOS where the system has a kernel and GRUB's files (Debian's grub-pc-bin). Neither root nor a mount is
needed. A new file DISK appears under its name when it is complete; a block device is overwritten.
"""
_EPILOG = """\
The same SOURCE, --uuid and SOURCE_DATE_EPOCH give the same bytes.
"""
_EXAMPLES = """\
pydiskimg build debian.tar.gz web1.qcow2 -O qcow2 --size 4G --swap 512M
pydiskimg build tree/ web2.raw --table gpt --size 2G --hostname web2.example.org
"""


def add_parser(subparsers: Any) -> None:
    """Declare the subcommand."""
    parser = subparsers.add_parser("build", description=_DESCRIPTION, epilog=_EPILOG, examples=_EXAMPLES)
    parser.add_argument("source", metavar="SOURCE", help="tarball, - for standard input, or directory")
    parser.add_argument("disk", metavar="DISK", help="new file, or block device")
    parser.add_argument("-O", dest="format", choices=FORMATS, default="raw", help="format of DISK (default: raw)")
    parser.add_argument(
        "--size", type=size_argument, metavar="SIZE", help="size of the disk, such as 4G; a block device has its own"
    )
    parser.add_argument(
        "--boot", type=size_argument, metavar="SIZE", help="make a partition of /boot, such as 500M (default: none)"
    )
    parser.add_argument("--swap", type=size_argument, metavar="SIZE", help="make a partition of swap (default: none)")
    parser.add_argument("--table", choices=("mbr", "gpt"), help="partition table (default: mbr, gpt from 2 TiB on)")
    parser.add_argument("-t", dest="kind", choices=EXT_TYPES, default="ext4", help="file system (default: ext4)")
    parser.add_argument(
        "--bootloader",
        choices=("auto", "none"),
        default="auto",
        help="auto (default): GRUB, if the system has its files",
    )
    parser.add_argument(
        "--hostname", type=_host_name, metavar="NAME", help="host name of the system, also in /etc/hosts"
    )
    parser.add_argument(
        "--kernel-args", type=_kernel_arguments, default="", metavar="ARGS", help="additional kernel arguments"
    )
    parser.add_argument(
        "--serial-console", action="store_true", help="put GRUB, the kernel's messages and a login on ttyS0, too"
    )
    parser.add_argument(
        "-U", "--uuid", type=uuid_argument, help="UUID of the root file system, from which others are derived"
    )
    add_progress_option(parser, " on standard error")
    add_output_option(parser)
    parser.set_defaults(run=run, usage_error=parser.error)


def run(arguments: argparse.Namespace) -> None:
    """Make the disk that the arguments describe."""
    from pydiskimg.system.build import build_system  # imported here: it would slow --help down

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
    from pydiskimg.system.build import SystemOptions

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
    import logging

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
    from pydiskimg.files.directory import DirectoryReader  # imported here: it would slow --help down
    from pydiskimg.files.tar import open_tar
    from pydiskimg.files.writer import Wording

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
    from pydiskimg.images.create import new_image
    from pydiskimg.images.open_disk import open_disk

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


def _host_name(text: str) -> str:
    from pydiskimg.system.hostname import check_host_name

    try:
        check_host_name(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None
    return text


def _kernel_arguments(text: str) -> str:
    if not text.isprintable() or len(text) > _LONGEST:
        raise argparse.ArgumentTypeError(f"expected one printable line of at most {_LONGEST} characters")
    return text
