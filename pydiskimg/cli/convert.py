# SPDX-License-Identifier: MIT
"""pydiskimg convert: an image becomes a raw file or the contents of a block device."""

from __future__ import annotations

import argparse
import os
import stat
from typing import Any

from pydiskimg.cli.progress import progress
from pydiskimg.disk import open_disk
from pydiskimg.errors import InUseError
from pydiskimg.holders import is_same_file
from pydiskimg.image import open_image
from pydiskimg.new_file import new_disk_file
from pydiskimg.protocols import Disk, Source
from pydiskimg.transfer import copy


def add_parser(subparsers: Any) -> None:
    """Declare the subcommand."""
    parser = subparsers.add_parser(
        "convert",
        help="copy an image to a file or block device",
        description="Copy the image SRC to DST, sparsely and durably. A new file appears under its name when it is "
        "complete; a block device, and with -n an existing file, is written in place and keeps its size.",
    )
    parser.add_argument("-f", dest="format", choices=("raw", "qcow2"), help="format of SRC (default: by its contents)")
    parser.add_argument("-O", dest="output_format", choices=("raw",), default="raw", help="format of DST")
    parser.add_argument("-n", dest="in_place", action="store_true", help="DST exists: write into it")
    parser.add_argument(
        "-m",
        dest="workers",
        type=_workers,
        metavar="N",
        help="number of workers (default: by the CPUs; 8 at most are used)",
    )
    parser.add_argument("-p", dest="progress", action="store_true", help="show progress")
    parser.add_argument("--verify", action="store_true", help="read everything back and compare")
    parser.add_argument("source", metavar="SRC")
    parser.add_argument("destination", metavar="DST")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> None:
    """Convert as the arguments say."""
    with open_image(arguments.source, format=arguments.format) as source:
        if arguments.in_place or _is_block_device(arguments.destination):
            with open_disk(arguments.destination, writable=True) as disk:
                if is_same_file(arguments.source, disk.fd):
                    raise InUseError(
                        f"{disk.name}: is both source and destination; nothing was written",
                        errno=None,
                        filename=disk.name,
                    )
                _copy(source, disk, arguments)
        else:
            with new_disk_file(arguments.destination, source.size) as disk:
                _copy(source, disk, arguments)


def _copy(source: Source, disk: Disk, arguments: argparse.Namespace) -> None:
    with progress(os.path.basename(arguments.source), shown=arguments.progress) as callback:
        copy(source, disk, workers=arguments.workers, progress=callback, verify=arguments.verify)


def _is_block_device(path: str) -> bool:
    try:
        return stat.S_ISBLK(os.stat(path).st_mode)
    except (OSError, ValueError):
        return False


def _workers(text: str) -> int:
    if not text.isdecimal() or not 1 <= int(text) <= 16:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number from 1 to 16")
    return int(text)
