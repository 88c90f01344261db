"""A plot of named points with their intervals, as SVG that takes the page's colours."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

_WIDTH, _HEIGHT = 900.0, 400.0
_LEFT, _RIGHT, _TOP, _BOTTOM = 70.0, 210.0, 16.0, 46.0  # margins; names stand to the right of their points
_LINE = 15.0  # height of a name
_CHARACTER = 7.0  # width of one of its letters, about
_TICKS = 6
_LOG_FROM = 8.0  # largest over smallest, above which an axis of times is logarithmic
POINT_STYLE = """
.lb-scroll { overflow-x: auto; }
.lb-plot { width: 100%; min-width: 620px; height: auto; font-size: 12px; color: var(--body-text-color); }
.lb-plot .grid { stroke: var(--lb-line); } .lb-plot .muted { fill: var(--lb-muted); }
.lb-plot .leader { stroke: var(--lb-muted); stroke-width: 0.7; }
.lb-plot text { fill: currentColor; } .lb-plot .bar { stroke: currentColor; opacity: 0.45; }
.lb-plot circle { fill: var(--color-accent); } .lb-plot .reference circle { fill: none; stroke: var(--lb-muted);
  stroke-width: 2; } .lb-plot .reference text { fill: var(--lb-muted); }
"""


@dataclass(frozen=True)
class Point:
    """One row: `about` is told where the pointer rests; `spread` is the interval of `y`."""

    name: str
    x: float
    y: float
    about: str = ""
    spread: tuple[float, float] | None = None
    reference: bool = False


class _Axis:
    """Values to pixels, linear or logarithmic, with round ticks."""

    def __init__(self, values: Sequence[float], start: float, end: float, may_be_log: bool = False) -> None:
        low, high = min(values), max(values)
        self.log = may_be_log and low > 0 and high / low > _LOG_FROM
        a, b = (math.log10(low), math.log10(high)) if self.log else (low, high)
        room = 0.06 * (b - a) or 0.5 * abs(a) or 1.0
        self.low, self.high, self.start, self.end = a - room, b + room, start, end

    def __call__(self, value: float) -> float:
        inner = math.log10(value) if self.log else value
        return self.start + (inner - self.low) / (self.high - self.low) * (self.end - self.start)

    def ticks(self) -> list[float]:
        if self.log:
            decades = range(math.floor(self.low), math.ceil(self.high) + 1)
            values = [step * 10.0**decade for decade in decades for step in (1, 2, 5)]
            return [value for value in values if self.low <= math.log10(value) <= self.high]
        rough = (self.high - self.low) / _TICKS
        power = 10.0 ** math.floor(math.log10(rough))
        step = next(step * power for step in (1, 2, 5, 10) if step * power >= rough)
        first = math.ceil(self.low / step)
        return [number * step for number in range(first, math.floor(self.high / step) + 1)]


def scatter(points: Sequence[Point], x_title: str, y_title: str, x_is_time: bool = False) -> str:
    """The plot; every point has its name beside it. `points` must not be empty."""
    x = _Axis([point.x for point in points], _LEFT, _WIDTH - _RIGHT, x_is_time)
    reach = [end for point in points for end in (point.y, *(point.spread or ()))]
    y = _Axis(reach, _HEIGHT - _BOTTOM, _TOP)
    parts = [_frame(x, y, x_title, y_title)]
    for point, row in zip(points, _rows_of_names(points, x, y), strict=True):
        parts.append(_point(point, x(point.x), y(point.y), row, y))
    label = escape(f"{y_title} against {x_title}")
    body = "".join(parts)
    picture = f"<svg class='lb-plot' viewBox='0 0 {_WIDTH:g} {_HEIGHT:g}' role='img' aria-label='{label}'>{body}</svg>"
    return f"<div class='lb-scroll'>{picture}</div>"


def _rows_of_names(points: Sequence[Point], x: _Axis, y: _Axis) -> list[float]:
    """The height of every name: at its point, or as far below it as names that are in the way need."""
    taken: list[tuple[float, float, float]] = []
    rows = {}
    for point in sorted(points, key=lambda point: y(point.y)):
        left, row = x(point.x), y(point.y)
        right = left + _CHARACTER * len(point.name) + 12
        while clash := [at for a, b, at in taken if a < right and left < b and abs(at - row) < _LINE]:
            row = max(clash) + _LINE
        taken.append((left, right, row))
        rows[id(point)] = row
    return [rows[id(point)] for point in points]


def _point(point: Point, x: float, y: float, row: float, axis: _Axis) -> str:
    low, high = point.spread or (point.y, point.y)
    bar = f"<line class='bar' x1='{x:.1f}' x2='{x:.1f}' y1='{axis(low):.1f}' y2='{axis(high):.1f}'/>"
    leader = f"<line class='leader' x1='{x:.1f}' y1='{y:.1f}' x2='{x + 9:.1f}' y2='{row:.1f}'/>" if row > y + 1 else ""
    kind = "reference" if point.reference else "contestant"
    name = f"<text x='{x + 11:.1f}' y='{row + 4:.1f}'>{escape(point.name)}</text>"
    told = f"<title>{escape(point.about or point.name)}</title>"
    return f"<g class='{kind}'>{told}{bar}{leader}<circle cx='{x:.1f}' cy='{y:.1f}' r='5'/>{name}</g>"


def _frame(x: _Axis, y: _Axis, x_title: str, y_title: str) -> str:
    bottom, right = _HEIGHT - _BOTTOM, _WIDTH - _RIGHT
    parts = []
    for value in x.ticks():
        at = x(value)
        parts.append(f"<line class='grid' x1='{at:.1f}' x2='{at:.1f}' y1='{_TOP:g}' y2='{bottom:g}'/>")
        parts.append(f"<text class='muted' x='{at:.1f}' y='{bottom + 16:g}' text-anchor='middle'>{value:g}</text>")
    for value in y.ticks():
        at = y(value)
        parts.append(f"<line class='grid' x1='{_LEFT:g}' x2='{right:g}' y1='{at:.1f}' y2='{at:.1f}'/>")
        parts.append(f"<text class='muted' x='{_LEFT - 6:g}' y='{at + 4:.1f}' text-anchor='end'>{value:.4g}</text>")
    middle = (_LEFT + right) / 2
    parts.append(f"<text x='{middle:g}' y='{_HEIGHT - 10:g}' text-anchor='middle'>{escape(x_title)}</text>")
    turn = f"translate(16 {(bottom + _TOP) / 2:g}) rotate(-90)"
    parts.append(f"<text transform='{turn}' text-anchor='middle'>{escape(y_title)}</text>")
    return "".join(parts)
