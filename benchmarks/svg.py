# SPDX-License-Identifier: MIT
"""Plots as plain SVG with logarithmic axes, to be read on a light and on a dark page."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from html import escape

_STYLE = """
  text { font: 11px system-ui, sans-serif; fill: #1f2328; }
  .title { font-size: 13px; font-weight: 600; }
  .dim { fill: #59636e; }
  .grid { stroke: #d1d9e0; stroke-width: 1; }
  .one { stroke: #59636e; stroke-width: 1.5; }
  .spread { stroke: #818b98; stroke-width: 2; }
  .wanted { stroke: #1f2328; stroke-width: 2; }
  .linear { stroke: #818b98; stroke-width: 1; stroke-dasharray: 4 4; fill: none; }
  .curve { stroke-width: 2; fill: none; }
  .reached, .c0 { fill: #0969da; stroke: #0969da; }
  .missed, .c1 { fill: #bc4c00; stroke: #bc4c00; }
  .c2 { fill: #1a7f37; stroke: #1a7f37; }
  .c3 { fill: #8250df; stroke: #8250df; }
  .other { fill: none; }
  text.c0, text.c1, text.c2, text.c3 { stroke: none; }
  @media (prefers-color-scheme: dark) {
    text { fill: #f0f6fc; } .dim { fill: #9198a1; } .grid { stroke: #3d444d; } .one { stroke: #9198a1; }
    .wanted { stroke: #f0f6fc; } .spread, .linear { stroke: #656c76; }
    .reached, .c0 { fill: #4493f8; stroke: #4493f8; } .missed, .c1 { fill: #f0883e; stroke: #f0883e; }
    .c2 { fill: #3fb950; stroke: #3fb950; } .c3 { fill: #ab7df8; stroke: #ab7df8; }
    .other { fill: none; }
  }
"""


def _document(width: int, height: int, body: Iterator[str]) -> str:
    head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}">'
    return "\n".join((head, f"<style>{_STYLE}</style>", *body, "</svg>", ""))


def _text(x: float, y: float, text: str, style: str = "", anchor: str = "start") -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" class="{style}" text-anchor="{anchor}">{escape(text)}</text>'


def _line(x: float, y: float, to_x: float, to_y: float, style: str) -> str:
    return f'<line x1="{x:.1f}" y1="{y:.1f}" x2="{to_x:.1f}" y2="{to_y:.1f}" class="{style}"/>'


def _dot(x: float, y: float, style: str, title: str, radius: float = 4) -> str:
    return f'<circle cx="{x:.1f}" cy="{y:.1f}" r="{radius}" class="{style}"><title>{escape(title)}</title></circle>'


@dataclass(frozen=True, slots=True)
class Axis:
    """A logarithmic axis: values from low to high lie between the pixels start and end."""

    low: float
    high: float
    start: float
    end: float

    def at(self, value: float) -> float:
        share = math.log(value / self.low) / math.log(self.high / self.low)
        return self.start + share * (self.end - self.start)

    def steps(self, factor: float) -> Iterator[float]:
        """Yield the powers of factor on the axis."""
        number = math.ceil(round(math.log(self.low, factor), 9))
        while (value := factor**number) <= self.high * 1.0001:
            yield value
            number += 1


@dataclass(frozen=True, slots=True)
class Mark:
    """A ratio beside one peer, with the least and most of its rounds, and the wanted one."""

    name: str
    ratio: float
    least: float
    most: float
    wanted: float | None

    @property
    def reached(self) -> bool:
        return self.wanted is None or self.ratio >= self.wanted


_LABELS, _WIDTH, _STEP, _TOP = 180, 900, 17, 62


def ratios(title: str, marks: Mapping[str, Sequence[Mark]]) -> str:
    """Draw a line of marks for each name: full for the fastest peer, empty for the others."""
    every = [mark for some in marks.values() for mark in some]
    low = min([0.5, *(mark.ratio for mark in every)]) / 1.1
    high = max([2.0, *(mark.ratio for mark in every)]) * 1.1
    axis = Axis(low, high, _LABELS, _WIDTH - 160)
    bottom = _TOP + _STEP * len(marks)
    return _document(_WIDTH, bottom + 12, _ratio_lines(title, marks, axis, bottom))


def _ratio_lines(title: str, marks: Mapping[str, Sequence[Mark]], axis: Axis, bottom: int) -> Iterator[str]:
    yield _text(8, 18, title, "title")
    yield _text(8, 35, "dot: the fastest peer, ring: others; line: all rounds; bar: wanted", "dim")
    for value in axis.steps(2):
        yield _line(axis.at(value), _TOP - 8, axis.at(value), bottom, "one" if value == 1 else "grid")
        label = f"{value:g}" if value >= 1 else f"1/{1 / value:g}"
        yield _text(axis.at(value), _TOP - 12, label, "dim", "middle")
    for number, (name, some) in enumerate(marks.items()):
        y = _TOP + _STEP * number + 8
        yield _text(_LABELS - 10, y + 4, name, "", "end")
        for place, mark in enumerate(sorted(some, key=lambda one: -one.ratio)):
            yield from _mark(mark, axis, y, first=place == len(some) - 1)


def _mark(mark: Mark, axis: Axis, y: float, *, first: bool) -> Iterator[str]:
    """Draw a mark; first: it is the fastest peer's, whose spread and name are shown."""
    told = f"{mark.name}: {mark.ratio:.2f} times, rounds {mark.least:.2f} to {mark.most:.2f}"
    style = "reached" if mark.reached else "missed"
    if mark.wanted and axis.low <= mark.wanted <= axis.high:
        yield _line(axis.at(mark.wanted), y - 6, axis.at(mark.wanted), y + 6, "wanted")
    if not first:
        yield _dot(axis.at(mark.ratio), y, f"{style} other", told, 3.5)
        return
    yield _line(axis.at(max(mark.least, axis.low)), y, axis.at(min(mark.most, axis.high)), y, "spread")
    yield _dot(axis.at(mark.ratio), y, style, told)
    yield _text(axis.end + 12, y + 4, mark.name, "dim")


@dataclass(frozen=True, slots=True)
class Point:
    """The measurements of one size."""

    size: float
    seconds: float
    memory: float


_PANEL, _HEIGHT = 330, 250


def growth(
    title: str, unit: str, curves: Mapping[str, Sequence[Point]], shown: Callable[[float], str], time: str
) -> str:
    """Draw time (the title of its axis) and memory of each curve against its sizes; dashed lines are linear."""
    return _document(2 * _PANEL + 150, _HEIGHT + 110, _growth(title, unit, curves, shown, time))


def _growth(
    title: str, unit: str, curves: Mapping[str, Sequence[Point]], shown: Callable[[float], str], time: str
) -> Iterator[str]:
    yield _text(8, 18, title, "title")
    panels: tuple[tuple[str, Callable[[Point], float]], ...] = (
        (f"seconds of {time}", lambda point: point.seconds),
        ("peak memory, MiB", lambda point: point.memory / (1 << 20)),
    )
    for number, (name, value) in enumerate(panels):
        left = 60 + number * (_PANEL + 60)
        yield from _panel(left, f"{name} against {unit}", curves, value, shown)
    for number, name in enumerate(curves):
        yield _text(60 + number * 180, _HEIGHT + 98, f"● {name}", f"c{number}")


def _panel(
    left: float,
    title: str,
    curves: Mapping[str, Sequence[Point]],
    value: Callable[[Point], float],
    shown: Callable[[float], str],
) -> Iterator[str]:
    points = [point for some in curves.values() for point in some]
    sizes, values = [point.size for point in points], [value(point) for point in points]
    across = Axis(min(sizes), max(sizes), left, left + _PANEL)
    up = Axis(min(values) / 2, max(values) * 2, _HEIGHT + 50, 60)
    yield _text(left, 46, title, "dim")
    for size in sorted(set(sizes)):
        yield _line(across.at(size), up.start, across.at(size), up.end, "grid")
        yield _text(across.at(size), up.start + 16, shown(size), "dim", "middle")
    for step in up.steps(10 if up.high / up.low > 50 else 2):
        yield _line(across.start, up.at(step), across.end, up.at(step), "grid")
        yield _text(left - 6, up.at(step) + 4, f"{step:g}", "dim", "end")
    for number, some in enumerate(curves.values()):
        yield from _curve([(across.at(point.size), up.at(value(point))) for point in some], f"c{number}")
        yield from _linear(some, value, across, up)


def _curve(path: Sequence[tuple[float, float]], style: str) -> Iterator[str]:
    words = " ".join(f"{x:.1f},{y:.1f}" for x, y in path)
    yield f'<polyline points="{words}" class="curve {style}" style="fill:none"/>'
    for x, y in path:
        yield f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3" class="{style}"/>'


def _linear(some: Sequence[Point], value: Callable[[Point], float], across: Axis, up: Axis) -> Iterator[str]:
    """Draw the linear curve that meets this one at its end, as far as it is in the panel."""
    last = some[-1]
    least = max(some[0].size, last.size * up.low / value(last))
    begin = value(last) * least / last.size
    yield _line(across.at(least), up.at(begin), across.at(last.size), up.at(value(last)), "linear")
