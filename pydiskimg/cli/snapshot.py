# SPDX-License-Identifier: MIT
"""pydiskimg snapshot -l: the internal snapshots of a qcow2 image."""

from __future__ import annotations

import time
from itertools import chain

from pydiskimg.images import FORMATS, detect_image
from pydiskimg.images.raw import open_raw
from pydiskimg.startup import TYPE_CHECKING
from pydiskimg.units import format_size

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterable, Iterator
    from typing import Any

_COLUMNS = "{:<9} {:<16} {:>8} {:>20} {:>13} {:>11}"


def add_parser(subparsers: Any) -> None:
    """Declare the subcommand."""
    from pydiskimg.cli.output import add_output_option

    parser = subparsers.add_parser(
        "snapshot",
        help="list the internal snapshots of an image",
        description="List the internal snapshots of an image. They are made, applied and deleted with qemu-img "
        "snapshot; one of them is read with convert -l.",
    )
    parser.add_argument("-l", dest="list", action="store_true", help="list the snapshots; must be given")
    parser.add_argument("-f", dest="format", choices=FORMATS, help="format (default: by the contents)")
    parser.add_argument("-U", "--force-share", action="store_true", help="accepted as by qemu-img: nothing is locked")
    add_output_option(parser)
    parser.add_argument("file", metavar="FILE")
    parser.set_defaults(run=run, usage_error=parser.error)


def run(arguments: argparse.Namespace) -> None:
    """List the snapshots of the image that the arguments name; a raw image has none."""
    from pydiskimg.cli.arguments import require_file_name
    from pydiskimg.cli.output import show
    from pydiskimg.images.qcow2.snapshots import snapshot_facts

    if not arguments.list:
        arguments.usage_error("-l is missing: snapshots are listed only; qemu-img snapshot makes and deletes them")
    require_file_name(arguments.file)
    snapshots: Iterator[dict[str, Any]] = iter(())
    lines: Iterator[str] = iter(())
    with open_raw(arguments.file) as file:
        if found := FORMATS[arguments.format or detect_image(file)].snapshots(file):
            snapshots = snapshot_facts(found)
            lines = chain(["Snapshot list:"], snapshot_lines(snapshots))
    show(snapshots, lines, arguments.output)


def snapshot_lines(snapshots: Iterable[dict[str, Any]]) -> Iterator[str]:
    """Yield a table of the snapshots: the date is local time, the clock is the guest's running time."""
    yield _COLUMNS.format("ID", "TAG", "VM SIZE", "DATE", "VM CLOCK", "ICOUNT")
    for snapshot in snapshots:
        date = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(snapshot["date-sec"]))
        minutes, seconds = divmod(snapshot["vm-clock-sec"], 60)
        clock = f"{minutes // 60:02}:{minutes % 60:02}:{seconds:02}.{snapshot['vm-clock-nsec'] // 1_000_000:03}"
        size = format_size(snapshot["vm-state-size"])
        yield _COLUMNS.format(snapshot["id"], snapshot["name"], size, date, clock, str(snapshot.get("icount", "")))
