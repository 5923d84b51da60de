# SPDX-License-Identifier: MIT
"""The drawing of a disk as SVG: a row of partitions, a strip of stored bytes, a strip of used bytes, and a legend."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import groupby
from xml.sax.saxutils import escape

from pydiskimg.text import columns_of, printable
from pydiskimg.volumes.picture import DiskPicture

_WIDTH, _MARGIN, _LEFT = 900, 12, 84
_ROW, _STRIP, _LINE = 34, 18, 20  # heights
_MOST_TEXT = 110  # columns of text that fit the width
_FILLS = ("#4e79a7", "#59a14f", "#f28e2b", "#b07aa1", "#76b7b2", "#edc948")
_STORED, _USED, _EMPTY = "#4e79a7", "#59a14f", "#e8e8e8"


def svg(picture: DiskPicture, title: str, legend: Sequence[Sequence[str]]) -> str:
    """Return the drawing; legend has the fields of a line for each volume of the picture."""
    height = _MARGIN * 2 + _LINE + _ROW + 2 * (_STRIP + 8) + 16 + _LINE * len(legend)
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{_WIDTH}" height="{height}" font-family="sans-serif" '
        'font-size="13" shape-rendering="crispEdges">',  # or the boxes of a strip have seams
        f'<rect width="{_WIDTH}" height="{height}" fill="white"/>',
        _label(_MARGIN, _MARGIN + 12, _shortened(title), weight="bold"),
    ]
    top = _MARGIN + _LINE + 4
    lines += [_label(_MARGIN, top + 21, "partitions"), *_boxes(picture, top)]
    for name, shares, colour in (("stored", picture.stored, _STORED), ("in use", picture.used, _USED)):
        top += (_ROW if name == "stored" else _STRIP) + 8
        lines += [_label(_MARGIN, top + 13, name), *_strip(shares, top, colour)]
    top += _STRIP + 24
    for index, fields in enumerate(legend):
        fill = _FILLS[index % len(_FILLS)]
        y = top + index * _LINE
        lines.append(f'<rect x="{_LEFT}" y="{y - 11}" width="12" height="12" fill="{fill}"/>')
        lines.append(_label(_LEFT + 20, y, _shortened(f"{fields[0]}: {', '.join(filter(None, fields[1:]))}")))
    return "\n".join([*lines, "</svg>", ""])


def _boxes(picture: DiskPicture, top: int) -> Iterator[str]:
    yield _box(_LEFT, top, _length(1.0), _ROW, _EMPTY)
    for index, one in enumerate(picture.volumes):
        part, size = one.volume.partition, max(1, picture.size)
        x, width = _LEFT + _length(part.start / size), max(1.0, _length(part.length / size) - 1)
        yield _box(x, top, width, _ROW, _FILLS[index % len(_FILLS)])
        if width > 14:  # room for a number
            yield _label(x + 4, top + 21, str(part.number or "disk"), fill="white")


def _strip(shares: Sequence[float], top: int, colour: str) -> Iterator[str]:
    yield _box(_LEFT, top, _length(1.0), _STRIP, _EMPTY)
    width, first = _length(1.0) / len(shares), 0
    for share, equal in groupby(shares):
        count = len(list(equal))
        if share:
            height = max(1.0, share * _STRIP)
            yield _box(_LEFT + first * width, top + _STRIP - height, count * width, height, colour)
        first += count


def _shortened(text: str) -> str:
    """Return what of a text fits the drawing: a path is known by its end."""
    if columns_of(text) <= _MOST_TEXT:
        return text
    kept = text[3 - _MOST_TEXT :]
    while columns_of(kept) > _MOST_TEXT - 3:
        kept = kept[1:]
    return f"...{kept}"


def _length(share: float) -> float:
    return share * (_WIDTH - _LEFT - _MARGIN)


def _box(x: float, y: float, width: float, height: float, fill: str) -> str:
    return f'<rect x="{x:.1f}" y="{y:.1f}" width="{width:.2f}" height="{height:.1f}" fill="{fill}"/>'


def _label(x: float, y: float, text: str, *, fill: str = "#222", weight: str = "normal") -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" fill="{fill}" font-weight="{weight}">{escape(printable(text))}</text>'
