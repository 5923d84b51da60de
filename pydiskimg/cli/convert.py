# SPDX-License-Identifier: MIT
"""pydiskimg convert: copy an image to another one: raw or qcow2, in a file, on a block device or through a pipe."""

from __future__ import annotations

from pydiskimg.cli.image_options import add_image_options
from pydiskimg.cli.options import CACHE_MODES, add_progress_option, add_quiet_option
from pydiskimg.cli.references import add_references_option
from pydiskimg.images import FORMATS, PROTOCOLS
from pydiskimg.startup import TYPE_CHECKING

if TYPE_CHECKING:
    from typing import Any

    from pydiskimg.cli import Parser


_IGNORED = "accepted as by qemu-img, without effect: "
_NAMES = (*FORMATS, *PROTOCOLS)
_WORKERS = tuple(str(number) for number in range(1, 17))
_DESCRIPTION = """\
Copy the image SRC to DST, sparsely and durably; several images become one, in the order given. A new file appears under
its name when it is complete; a block device, and with -n an existing image, is written in place and keeps its size. "-"
is standard input or output. Pipes are written and read from front to back: a qcow2 image from a pipe needs -f qcow2,
and its tables must come first, as in those that this command writes to a pipe.
"""
_EXAMPLES = """\
pydiskimg convert -p disk.qcow2 copy.raw
pydiskimg convert --verify -n disk.qcow2 /dev/vg/disk
pydiskimg convert -c --used -O qcow2 /dev/vg/disk small.qcow2
pydiskimg convert -c -O qcow2 disk.raw - | cat > backup.qcow2
cat backup.qcow2 | pydiskimg convert -f qcow2 - restored.raw
"""


def add_parser(subparsers: Any) -> None:
    """Declare the subcommand."""
    from pydiskimg.cli.convert_options import add_uncommon_options

    parser = subparsers.add_parser("convert", description=_DESCRIPTION, examples=_EXAMPLES)
    declare_common(parser)
    add_image_options(parser)
    add_uncommon_options(parser)
    parser.add_argument(
        "-l",
        dest="snapshot",
        metavar="SNAPSHOT",
        help="copy this internal snapshot: its id or name, or snapshot.id=ID, snapshot.name=NAME or both with a comma",
    )
    parser.add_argument(
        "--used",
        action="store_true",
        help="leave out the free blocks of the ext2, ext3 and ext4 file systems of SRC and the contents of swap areas: "
        "DST reads as zero there; a volume that is damaged or has unknown contents is copied whole, and a message "
        "says so; not from pipes",
    )
    parser.add_argument(
        "--verify",
        action="store_true",
        help="read everything back and compare, except for holes in the map of DST itself; with --used, what was left "
        "out must read as zero; not for pipes",
    )
    add_references_option(parser)
    parser.set_defaults(run=run)


def declare_common(parser: Parser) -> None:
    """Declare the options of the common form."""
    parser.add_argument(
        "-f", dest="format", choices=_NAMES, help="format of SRC (default: by its contents; of a pipe: raw)"
    )
    parser.add_argument("-O", dest="output_format", choices=_NAMES, default="raw", help="format of DST (default: raw)")
    parser.add_argument("-c", dest="compress", action="store_true", help="compress the clusters of a qcow2 DST")
    parser.add_argument("-n", dest="in_place", action="store_true", help="write into the existing DST")
    parser.add_argument(
        "-m",
        dest="workers",
        type=_workers,
        metavar="N",
        help="number of workers, from 1 to 16, of which 8 at most are used (default: by the CPUs)",
    )
    add_progress_option(parser)
    add_quiet_option(parser, "show no progress, even with -p")
    for options, text in (
        (("-U", "--force-share"), "SRC is read without a lock"),
        (("-W",), "the order of writing is free anyway"),
    ):
        parser.add_argument(*options, dest="ignored", action="store_true", help=_IGNORED + text)
    for option, whose in (("-t", "DST"), ("-T", "SRC")):
        text = f"{_IGNORED}how {whose} is cached ({', '.join(CACHE_MODES)})"
        parser.add_argument(option, dest="ignored", choices=CACHE_MODES, metavar="CACHE", help=text)
    parser.add_argument("source", metavar="SRC", help="image file, block device, http:// or https:// address, or -")
    parser.add_argument(
        "destination", metavar="[SRC2 ...] DST", help="more images, and the target: a file, block device, or -"
    )
    parser.set_defaults(usage_error=parser.error, more_operands="more", more=())


def run(arguments: Any) -> None:
    """Convert as the arguments request."""
    from pydiskimg.cli.convert_image import convert_image  # imported here: it would slow --help down

    convert_image(arguments)


def _workers(text: str) -> int:
    if text not in _WORKERS:
        import argparse

        raise argparse.ArgumentTypeError(f"{text[:20]!r} is not a number from 1 to 16")
    return int(text)
