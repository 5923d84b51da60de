# SPDX-License-Identifier: MIT
"""What pydiskimg show does: draw a disk to scale, with its partitions, stored bytes and used bytes."""

from __future__ import annotations

import argparse
import os
import shutil
import sys
from collections.abc import Iterator, Sequence

from pydiskimg.cli.arguments import open_source, require_file_name, require_name
from pydiskimg.cli.columns import aligned
from pydiskimg.cli.convert_target import refuse_own_file
from pydiskimg.cli.drawing import svg
from pydiskimg.cli.output import can_print, show, tell
from pydiskimg.cli.pipes import write_text
from pydiskimg.cli.references import references
from pydiskimg.partitions.types import name_of
from pydiskimg.text import printable
from pydiskimg.units import format_size
from pydiskimg.volumes.picture import DiskPicture, PicturedVolume, disk_picture

_TITLES = ("partitions", "stored", "in use")
_LEFT = max(map(len, _TITLES)) + 2
_LEAST, _MOST = 20, 400  # columns of the strip
_SVG_COLUMNS = 400
_SHADES, _PLAIN_SHADES = "·░▒▓█", ".-+=#"
_BLUE, _GREEN = 34, 32  # ECMA-48


def show_disk(arguments: argparse.Namespace) -> None:
    """Draw the disk in the arguments."""
    require_file_name(arguments.disk)
    if arguments.svg is not None:
        require_name(arguments.svg, "drawing")
    width = min(_MOST, max(_LEAST, shutil.get_terminal_size().columns - _LEFT))
    with (
        references(arguments) as policy,
        open_source(arguments.disk, format=arguments.format, references=policy) as source,
    ):
        if arguments.svg is not None:
            refuse_own_file(source, arguments.svg, named=[arguments.disk])
        picture = disk_picture(source, width if arguments.svg is None else _SVG_COLUMNS)
        title = f"{arguments.disk}: {source.format}, {format_size(picture.size)}"
    for note in picture.notes:
        tell(note)
    if arguments.svg is not None:
        write_text(arguments.svg, svg(picture, title, [_text(one) for one in picture.volumes]))
        return
    if arguments.output == "json":
        show(_facts(arguments.disk, picture), (), "json")
        return
    for line in _lines(picture, title):
        print(line)


def _lines(picture: DiskPicture, title: str) -> Iterator[str]:
    yield f"{printable(title)}, {format_size(picture.stored_bytes)} of it stored"
    yield ""
    shades = _SHADES if can_print(_SHADES, sys.stdout) else _PLAIN_SHADES
    yield _TITLES[0].ljust(_LEFT) + _boxes(picture)
    yield _TITLES[1].ljust(_LEFT) + _painted(_strip(picture.stored, shades), _BLUE)
    yield _TITLES[2].ljust(_LEFT) + _painted(_strip(picture.used, shades), _GREEN)
    yield ""
    yield from aligned([_text(one) for one in picture.volumes])


def _painted(text: str, colour: int) -> str:
    has_colours = sys.stdout.isatty() and not os.environ.get("NO_COLOR")
    return f"\x1b[{colour}m{text}\x1b[0m" if has_colours else text


def _boxes(picture: DiskPicture) -> str:
    """Return a line with a box for each partition, at least a column wide: [2       ]."""
    width = len(picture.stored)
    cells = [" "] * width
    for one in picture.volumes:
        part = one.volume.partition
        first = min(width - 1, part.start * width // max(1, picture.size))
        end = max(first + 1, (part.start + part.length) * width // max(1, picture.size))
        box = f"[{part.number or 'disk'}".ljust(end - first - 1) + "]" if end - first > 1 else "|"
        cells[first : first + len(box[: end - first])] = box[: end - first]
    return "".join(cells[:width]).rstrip()


def _strip(shares: Sequence[float], shades: str) -> str:
    """Return a character for each column: the darker, the larger the share."""
    last = len(shades) - 1
    return "".join(shades[0 if not share else min(last, 1 + int(share * (last - 1) + 0.5))] for share in shares)


def _text(one: PicturedVolume) -> list[str]:
    """Return the fields of a line on a volume: number, type, size, content, and how full it is."""
    part, content = one.volume.partition, one.volume.content
    label = f" '{content.label}'" if content and content.label else ""
    fill = ""
    if one.space is not None:
        percent = f" ({100 * one.space.used // one.space.size} %)" if one.space.size else ""
        fill = f"{format_size(one.space.used)} in use{percent}"
    number = str(part.number) if part.number else "disk"
    kind = (name_of(part.type) or part.type) if part.number else ""
    return [number, kind, format_size(part.length), f"{content.type}{label}" if content else "nothing known", fill]


def _facts(path: str, picture: DiskPicture) -> dict[str, object]:
    return {
        "filename": path,
        "size": picture.size,
        "stored": picture.stored_bytes,
        "volumes": [
            {
                "partition": one.volume.partition.number,
                "start": one.volume.partition.start,
                "length": one.volume.partition.length,
                "type": one.volume.content.type if one.volume.content else None,
                "label": one.volume.content.label if one.volume.content else None,
                "used": one.space.used if one.space else None,
                "available": one.space.available if one.space else None,
            }
            for one in picture.volumes
        ],
        "stored-percent": [round(100 * share) for share in picture.stored],
        "used-percent": [round(100 * share) for share in picture.used],
    }
