"""The Prometheus text format (version 0.0.4), written out: a handful of samples needs no registry."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"


@dataclass(frozen=True, slots=True)
class Sample:
    """One unlabelled metric with its meaning."""

    name: str
    kind: Literal["gauge", "counter"]
    help: str
    value: float


@dataclass(frozen=True, slots=True)
class Point:
    """One series of a family. `suffix` is `_bucket`, `_sum` or `_count` in a histogram."""

    value: float
    labels: Mapping[str, str] = field(default_factory=dict)
    suffix: str = ""


@dataclass(frozen=True, slots=True)
class Family:
    """One metric of several series, with its meaning."""

    name: str
    kind: Literal["gauge", "counter", "histogram"]
    help: str
    points: Sequence[Point]


def render(samples: Sequence[Sample | Family]) -> str:
    """The exposition of `samples`, in the order given."""
    lines: list[str] = []
    for sample in samples:
        text = sample.help.replace("\\", "\\\\").replace("\n", "\\n")
        lines += [f"# HELP {sample.name} {text}", f"# TYPE {sample.name} {sample.kind}"]
        points = [Point(sample.value)] if isinstance(sample, Sample) else sample.points
        lines += [f"{sample.name}{point.suffix}{_labels(point.labels)} {_number(point.value)}" for point in points]
    return "\n".join(lines) + "\n"


def _number(value: float) -> str:
    return f"{value:.6f}".rstrip("0").rstrip(".")


def _labels(labels: Mapping[str, str]) -> str:
    pairs = [f'{name}="{_escaped(value)}"' for name, value in labels.items()]
    return "{" + ",".join(pairs) + "}" if pairs else ""


def _escaped(value: str) -> str:
    return value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")


def buckets(counts: Sequence[int], bounds: Sequence[float], *, suffix: str = "") -> list[Point]:
    """Cumulative buckets. `counts` has one entry for each bound and one more for all above the last."""
    points: list[Point] = []
    total = 0
    for bound, count in zip([*map(_number, bounds), "+Inf"], counts, strict=True):
        total += count
        points.append(Point(total, {"le": bound}, suffix))
    return points
