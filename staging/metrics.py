"""The Prometheus text format (version 0.0.4), written out: a handful of samples needs no registry."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"


@dataclass(frozen=True, slots=True)
class Sample:
    """One unlabelled metric with its meaning."""

    name: str
    kind: Literal["gauge", "counter"]
    help: str
    value: float


def render(samples: list[Sample]) -> str:
    """The exposition of `samples`, in the order given."""
    lines: list[str] = []
    for sample in samples:
        text = sample.help.replace("\\", "\\\\").replace("\n", "\\n")
        value = f"{sample.value:.6f}".rstrip("0").rstrip(".")
        lines += [f"# HELP {sample.name} {text}", f"# TYPE {sample.name} {sample.kind}", f"{sample.name} {value}"]
    return "\n".join(lines) + "\n"
