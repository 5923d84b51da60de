# SPDX-License-Identifier: MIT
"""pydiskimg snapshot: list, take, apply and delete the internal snapshots of a qcow2 image."""

from __future__ import annotations

import time

from pydiskimg.cli.options import add_force_share_option, add_format_option, add_output_option, add_quiet_option
from pydiskimg.images import FORMATS, detect_image
from pydiskimg.startup import TYPE_CHECKING
from pydiskimg.units import qemu_size

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from typing import Any

    from pydiskimg.cli import Arguments, Parser

_COLUMNS = "{} {} {:>8}{:>20}{:>13}{:>11}"
_EXAMPLES = """\
pydiskimg snapshot -c before-upgrade disk.qcow2
pydiskimg snapshot -l disk.qcow2
pydiskimg snapshot -a before-upgrade disk.qcow2
pydiskimg snapshot -d before-upgrade disk.qcow2
"""


def add_parser(subparsers: Any) -> None:
    """Declare the subcommand."""
    parser = subparsers.add_parser(
        "snapshot",
        description="List the internal snapshots of a qcow2 image, take one, apply one to the disk, or delete one. "
        "SNAPSHOT is an id or a name; -d takes names only. Each change is one write of the header: an interruption "
        "leaves the image as it was. The state of a virtual machine in a snapshot is kept but cannot be resumed here. "
        "To copy a snapshot, use pydiskimg convert -l.",
        examples=_EXAMPLES,
    )
    _declare(parser, parser.add_mutually_exclusive_group())
    parser.set_defaults(run=run)


def declare_common(parser: Parser) -> None:
    """Declare the options of the common form."""
    _declare(parser, parser)


def _declare(parser: Parser, actions: Parser) -> None:
    actions.add_argument("-l", dest="list", action="store_true", help="list the snapshots (default)")
    actions.add_argument("-c", dest="take", metavar="NAME", help="take a snapshot")
    actions.add_argument(
        "-a", dest="apply", metavar="SNAPSHOT", help="apply a snapshot: what was written after it is lost"
    )
    actions.add_argument("-d", dest="delete", metavar="NAME", help="delete the first snapshot of this name")
    add_format_option(parser)
    add_quiet_option(parser, "accepted as by qemu-img: only -l prints anything")
    add_force_share_option(parser, "accepted with -l, which takes no lock")
    add_output_option(parser)
    parser.add_argument("file", metavar="FILE", help="image file or block device")
    parser.set_defaults(usage_error=parser.error, reads_parts=True, opens_described_data_file=True)


def run(arguments: Arguments) -> None:
    """List or change the snapshots of the image in the arguments; a raw image has none."""
    from pydiskimg.cli.arguments import require_file_name, require_whole

    options = {"-c": arguments.take, "-a": arguments.apply, "-d": arguments.delete}
    changes = [option for option, name in options.items() if name is not None]
    if len(changes) + arguments.list > 1:
        arguments.usage_error("-l, -c, -a and -d cannot be combined")
    require_file_name(arguments.file)
    if not changes:
        _list(arguments)
        return
    require_whole(arguments.file, changes[0])
    if arguments.force_share:
        arguments.usage_error("-U is only for -l: an image that others use cannot be changed")
    from pydiskimg.images.open_store import open_qcow2_store
    from pydiskimg.images.qcow2.switch.snapshots import apply_snapshot, delete_snapshot, take_snapshot

    with open_qcow2_store(arguments.file, format=arguments.format) as store:
        if arguments.take is not None:
            take_snapshot(store, arguments.take, now_ns=time.time_ns())
        elif arguments.apply is not None:
            apply_snapshot(store, arguments.apply)
        else:
            delete_snapshot(store, arguments.delete)


def _list(arguments: Arguments) -> None:
    from pydiskimg.cli.arguments import open_file
    from pydiskimg.cli.output import in_qemus_order, show
    from pydiskimg.images.qcow2.snapshots import snapshot_facts

    snapshots: Iterator[dict[str, Any]] = iter(())
    lines: Iterator[str] = iter(())
    with open_file(arguments.file) as file:
        if found := FORMATS[arguments.format or detect_image(file)].snapshots(file):
            snapshots = snapshot_facts(found)
            lines = snapshot_lines(snapshots)
    show(in_qemus_order(snapshots), lines, arguments.output)


def snapshot_lines(snapshots: Iterable[dict[str, Any]]) -> Iterator[str]:
    """Yield the lines of `qemu-img snapshot -l`: the date is local time, the clock the guest's running time."""
    yield "Snapshot list:"
    yield _COLUMNS.format(_padded("ID", 9), _padded("TAG", 16), "VM SIZE", "DATE", "VM CLOCK", "ICOUNT")
    for snapshot in snapshots:
        date = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(snapshot["date-sec"]))
        minutes, seconds = divmod(snapshot["vm-clock-sec"], 60)
        clock = f"{minutes // 60:02}:{minutes % 60:02}:{seconds:02}.{snapshot['vm-clock-nsec'] // 1_000_000:03}"
        size = qemu_size(snapshot["vm-state-size"])
        names = _padded(snapshot["id"], 9), _padded(snapshot["name"], 16)
        yield _COLUMNS.format(*names, size, date, clock, str(snapshot.get("icount", "")))


def _padded(text: str, width: int) -> str:
    """Pad text as printf() does, which counts bytes."""
    return text + " " * (width - len(text.encode("utf-8", "surrogateescape")))
