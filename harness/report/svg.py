"""The chart as an inline SVG, made by hand: scales, ticks, step lines, lanes, markers whose labels never collide.

Colours come from the page's classes, so that one drawing serves light, dark and paper. The drawing is laid out for a
given width: text keeps its size, and a phone gets its own drawing instead of a shrunken one.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from xml.sax.saxutils import escape

from harness.report.values import Chart, Marker

CHARACTER = 6.1
"""Upper estimate of a character's width at the label's font size, in pixels."""
ROW = 16.0
_LEFT, _RIGHT, _CURVE, _READY, _LANE, _GAP = 44.0, 14.0, 210.0, 56.0, 18.0, 14.0
_MOST_MARGIN = 0.5
_NICE = (1.0, 2.0, 2.5, 5.0, 10.0)
_NICE_TIMES = (1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 14400, 43200, 86400)


@dataclass(frozen=True, slots=True)
class Scale:
    """A linear map from a domain onto pixels."""

    low: float
    high: float
    start: float
    end: float

    def __call__(self, value: float) -> float:
        share = 0.0 if self.high == self.low else (value - self.low) / (self.high - self.low)
        return self.start + share * (self.end - self.start)


@dataclass(frozen=True, slots=True)
class Label:
    """A placed marker label: its text begins at `x` and stands on `row`, counted upwards from the plot."""

    marker: Marker
    text: str
    x: float
    row: int
    width: float


def ticks(low: float, high: float, wanted: int) -> list[float]:
    """Round values that cover [low, high]; about `wanted` of them."""
    raw = max(high - low, 1e-9) / max(wanted, 1)
    power = 10 ** math.floor(math.log10(raw))
    step = next(n for n in (factor * power for factor in _NICE) if n >= raw * 0.999)
    return [n * step for n in range(math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9) + 1)]


def time_ticks(start: float, end: float, wanted: int) -> list[float]:
    """Round seconds inside [start, end]; zero is among them where it is inside."""
    raw = (end - start) / max(wanted, 1)
    step = next((float(n) for n in _NICE_TIMES if n >= raw), math.ceil(raw / 86400) * 86400.0)
    return [n * step for n in range(math.ceil(start / step), math.floor(end / step) + 1)]


def time_label(seconds: float) -> str:
    """ "0", "30 s", "-1 m", "2:30"; minutes and seconds with a colon."""
    sign, total = ("\u2212" if seconds < 0 else ""), round(abs(seconds))
    if total < 60:
        return f"{sign}{total} s" if total else "0"
    minutes, rest = divmod(total, 60)
    hours, minutes_left = divmod(minutes, 60)
    if hours:
        return f"{sign}{hours}:{minutes_left:02d} h"
    return f"{sign}{minutes}:{rest:02d} min" if rest else f"{sign}{minutes} min"


def label_text(marker: Marker, most: int) -> str:
    """A milestone's name in at most `most` characters; that it was automation is never what gets cut."""
    suffix = " (automation)" if marker.who == "automation" else ""
    room = max(most - len(suffix), 6)
    return (marker.label if len(marker.label) <= room else f"{marker.label[: room - 1]}…") + suffix


def place(markers: Sequence[Marker], x: Scale, most: int = 80) -> list[Label]:
    """A row for each label so that no two overlap and no marker's line crosses a label.

    A label reaches to the right of its line. A line that rises inside that reach must end below it, so a label's row
    is one above the highest row among the markers that it reaches over: from right to left, each is settled once.
    """
    placed: list[Label] = []
    for marker in sorted(markers, key=lambda m: m.at, reverse=True):
        text = label_text(marker, most)
        at, width = x(marker.at), len(text) * CHARACTER + 12
        below = [label.row for label in placed if label.x < at + width]
        placed.append(Label(marker, text, at, max(below, default=-1) + 1, width))
    return placed[::-1]


def draw(chart: Chart, width: int) -> str:
    """The chart as one <svg> element, `width` pixels wide."""
    right = _right_margin(chart, width)
    x = Scale(chart.start, chart.end, _LEFT, width - right)
    labels = place(chart.markers, x, _longest(width))
    top = (max((label.row for label in labels), default=-1) + 1) * ROW + 10
    bottom = top + _CURVE
    lanes = list(dict.fromkeys(band.lane for band in chart.bands))
    lanes_top = bottom + 28
    ready_top = lanes_top + len(lanes) * _LANE + (_GAP + 16 if chart.ready else 0)
    height = ready_top + (_READY + 12 if chart.ready else 6)
    parts = [
        *_curve(chart, x, top, bottom),
        *_time_axis(chart, x, bottom, width),
        *_lanes(chart, x, lanes, lanes_top),
        *(_ready(chart, x, ready_top) if chart.ready else ()),
        *_markers(labels, top, bottom),
    ]
    title = escape(f"{chart.title}{f' ({chart.unit})' if chart.unit else ''} over time, with the drill's milestones")
    described = escape(
        "; ".join(f"{label_text(m, 80)} at {time_label(m.at)}" for m in chart.markers) or "no milestones"
    )
    return (
        f'<svg class="chart" viewBox="0 0 {width} {_n(height)}" width="{width}" height="{_n(height)}" role="img" '
        f'xmlns="http://www.w3.org/2000/svg"><title>{title}</title><desc>{described}</desc>{"".join(parts)}</svg>'
    )


def _right_margin(chart: Chart, width: int) -> float:
    """Room at the right for the labels of late markers, found by a few rounds of trying."""
    right = _RIGHT
    for _ in range(4):
        x = Scale(chart.start, chart.end, _LEFT, width - right)
        reach = max(
            (x(m.at) + len(label_text(m, _longest(width))) * CHARACTER + 12 for m in chart.markers), default=0.0
        )
        if reach <= width:
            return right
        right = min(right + reach - width, width * _MOST_MARGIN)
    return right


def _longest(width: int) -> int:
    return int((width * _MOST_MARGIN - 12) / CHARACTER)


def _n(value: float) -> str:
    return f"{value:.1f}".rstrip("0").rstrip(".")


def _line(x1: float, y1: float, x2: float, y2: float, kind: str) -> str:
    return f'<line class="{kind}" x1="{_n(x1)}" y1="{_n(y1)}" x2="{_n(x2)}" y2="{_n(y2)}"/>'


def _text(x: float, y: float, text: str, kind: str, anchor: str = "start") -> str:
    return f'<text class="{kind}" x="{_n(x)}" y="{_n(y)}" text-anchor="{anchor}">{escape(text)}</text>'


def _rect(x1: float, y: float, x2: float, height: float, kind: str, title: str) -> str:
    return (
        f'<rect class="{kind}" x="{_n(x1)}" y="{_n(y)}" width="{_n(max(x2 - x1, 1.5))}" height="{_n(height)}" rx="3">'
        f"<title>{escape(title)}</title></rect>"
    )


def _segments(points: Iterable[tuple[float, float | None]]) -> list[list[tuple[float, float]]]:
    """The points between the gaps."""
    found: list[list[tuple[float, float]]] = [[]]
    for at, value in points:
        if value is None or not math.isfinite(value):
            found.append([])
        else:
            found[-1].append((at, value))
    return [segment for segment in found if segment]


def _curve(chart: Chart, x: Scale, top: float, bottom: float) -> list[str]:
    segments = _segments(chart.points)
    values = [value for segment in segments for _, value in segment] + [line.value for line in chart.lines]
    low, high = min([0.0, *values]), max([*values, 0.0])
    marks = ticks(low, high if high > low else low + 1, 4)
    y = Scale(marks[0], marks[-1], bottom, top + 6)
    parts = []
    for mark in marks:
        parts += [
            _line(x.start, y(mark), x.end, y(mark), "grid"),
            _text(x.start - 7, y(mark) + 4, f"{mark:g}", "tick", "end"),
        ]
    for band in chart.bands:
        if band.kind == "fault":
            x1, x2 = max(x(band.start), x.start), x(band.end)
            box = f'x="{_n(x1)}" y="{_n(top)}" width="{_n(max(x2 - x1, 0))}" height="{_n(bottom - top)}"'
            parts.append(f'<rect class="shade" {box}/>')
    for line in chart.lines:
        parts += [_line(x.start, y(line.value), x.end, y(line.value), f"bound {line.kind}")]
    if not segments:
        parts.append(_text((x.start + x.end) / 2, (top + bottom) / 2, "no samples were recorded", "empty", "middle"))
    for segment in segments:
        path = " ".join(f"{'L' if i else 'M'}{_n(x(at))} {_n(y(value))}" for i, (at, value) in enumerate(segment))
        if len(segment) == 1:
            path += "h.1"
        base = y(max(marks[0], 0.0))
        area = f"{path} L{_n(x(segment[-1][0]))} {_n(base)} L{_n(x(segment[0][0]))} {_n(base)} Z"
        parts += [f'<path class="area" d="{area}"/>', f'<path class="curve" d="{path}"/>']
    return parts


def _time_axis(chart: Chart, x: Scale, y: float, width: int) -> list[str]:
    parts = [_line(x.start, y, x.end, y, "axis")]
    for mark in time_ticks(chart.start, chart.end, max(3, width // 110)):
        parts += [_line(x(mark), y, x(mark), y + 4, "axis"), _text(x(mark), y + 17, time_label(mark), "tick", "middle")]
    return parts


def _lanes(chart: Chart, x: Scale, lanes: list[str], top: float) -> list[str]:
    parts = []
    for band in chart.bands:
        y = top + lanes.index(band.lane) * _LANE
        start, end = max(x(band.start), x.start), x(band.end)
        parts.append(_rect(start, y, end, _LANE - 5, f"band {band.kind}", band.label))
        shown = next((t for t in (band.label, band.kind) if len(t) * CHARACTER + 10 < end - start), "")
        if shown:
            parts.append(_text(start + 6, y + 10, shown, "inside"))
    return parts


def _ready(chart: Chart, x: Scale, top: float) -> list[str]:
    # Pods that a rollout adds for a while are not wanted ones: the axis names the count that all is measured by.
    most = max(1, chart.wanted, *(ready for _, ready, _ in chart.ready))
    y = Scale(0, most, top + _READY, top)
    parts = [_text(x.start, top - 7, f"ready pods, {chart.wanted} wanted", "caption")]
    for mark in sorted({0, chart.wanted}):
        parts += [
            _line(x.start, y(mark), x.end, y(mark), "grid"),
            _text(x.start - 7, y(mark) + 4, str(mark), "tick", "end"),
        ]
    path = ""
    for index, (at, ready, _) in enumerate(chart.ready):
        path += f"M{_n(x(at))} {_n(y(ready))}" if index == 0 else f"H{_n(x(at))}V{_n(y(ready))}"
    parts.append(f'<path class="ready" d="{path}H{_n(x(chart.end))}"/>')
    return parts


def _markers(labels: Sequence[Label], top: float, bottom: float) -> list[str]:
    parts = []
    for label in labels:
        kind = label.marker.who or "machine"
        y = top - 10 - label.row * ROW
        parts += [
            _line(label.x, y - 8, label.x, bottom, f"mark {kind}"),
            _text(label.x + 4, y, label.text, f"label {kind}"),
        ]
    return parts
