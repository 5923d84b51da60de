# SPDX-License-Identifier: MIT
"""pydiskimg build: make a bootable disk from a tarball or a directory, as an ordinary user."""

from __future__ import annotations

import argparse

from pydiskimg.cli.arguments import size_argument, uuid_argument
from pydiskimg.cli.options import add_output_option, add_progress_option
from pydiskimg.fs.probe.kind import EXT_TYPES
from pydiskimg.images import FORMATS
from pydiskimg.startup import TYPE_CHECKING

if TYPE_CHECKING:
    from typing import Any

_LONGEST = 1024  # characters of arguments; the kernel accepts 2047 in all
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
    from pydiskimg.cli.build_disk import build_disk  # imported here: it would slow --help down

    build_disk(arguments)


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
