"""Several runs as one table: how long until a fault took effect, until its alert fired, until all was well again."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from harness.core.clock import Bounds
from harness.core.decide import lost_source
from harness.core.experiment import AnyExperiment
from harness.core.history import History
from harness.core.verdict import Judgement
from harness.report.markdown import code, escape
from harness.report.wording import span

_COLUMNS = 80
_WIDTHS = (24, 13, 13, 13, 12)
_HEADS = ("experiment", "effective", "firing", "recovered", "verdict", "clean")
ENVIRONMENT = "ENVIRONMENT"
"""The verdict's place where the environment did not hold out: neither met nor missed."""
NOT_RUN = "not run"
_EXACT = 0.1
"""Seconds: what is known better than that is shown as one number."""


@dataclass(frozen=True, slots=True)
class Incident:
    """One alert and the fault that it is counted from; a fault without an alert, or nothing at all. Seconds: from the
    injection to the effect, from the effect to the firing, from the firing to the recovery."""

    name: str
    effective: Bounds | None = None
    firing: Bounds | None = None
    recovered: Bounds | None = None


@dataclass(frozen=True, slots=True)
class Outcome:
    """One experiment's run. `verdict` is one of the four words, or how there was no run to judge, with its `why`:
    ENVIRONMENT where that is the cluster's doing. `clean` is None where nothing was compared."""

    experiment: str
    verdict: str
    clean: bool | None = None
    run_id: str = ""
    ended: str = ""
    """Why the run ended, in the words of `run.ended`."""
    incidents: tuple[Incident, ...] = ()
    why: str = ""


def outcome(experiment: AnyExperiment, history: History, judgement: Judgement) -> Outcome:
    """The row of a run that was judged, or that could not be because its environment was lost."""
    found = judgement.milestones

    def between(start: str, end: str) -> Bounds | None:
        ends = found.get(start), found.get(end)
        if ends[0] is None or ends[1] is None:
            return None
        return ends[0].at.until(ends[1].at).clipped(not_before=0.0)

    faults = {fault.id for fault in experiment.faults}
    incidents: list[Incident] = []
    for alert in experiment.alerts:
        fault = alert.of.partition(".")[0]
        proved = f"{fault}.effective" if fault in faults else alert.of
        incidents.append(
            Incident(
                alert.name,
                between(f"{fault}.injected", proved) if fault in faults else None,
                between(proved, f"{alert.name}.firing"),
                between(f"{alert.name}.firing", f"{alert.name}.recovered"),
            )
        )
    told = {alert.of.partition(".")[0] for alert in experiment.alerts}
    incidents += [
        Incident(fault.id, between(f"{fault.id}.injected", f"{fault.id}.effective"))
        for fault in experiment.faults
        if fault.id not in told
    ]
    clean = history.is_clean if experiment.faults else True
    ended = history.ended.reason if history.ended is not None else ""
    lost = lost_source(history)
    verdict = ENVIRONMENT if lost else str(judgement.verdict)
    return Outcome(experiment.name, verdict, clean, history.start.run_id, ended, tuple(incidents), lost)


def table(outcomes: Sequence[Outcome], first: str = _HEADS[0]) -> str:
    """The table for a terminal, 80 columns at most where names allow it. `first` heads the names."""
    lines = [_line((first, *_HEADS[1:]))]
    for one in outcomes:
        shown, *more = one.incidents or (Incident(""),)
        lines += _row(one.experiment, shown, one.verdict, _word(clean=one.clean))
        for incident in more:
            lines += _row(f"  {incident.name}", incident, "", "")
        lines += textwrap.wrap(one.why, _COLUMNS, initial_indent="  ", subsequent_indent="  ")
    return "\n".join(lines)


def markdown(outcomes: Sequence[Outcome]) -> str:
    """The table as Markdown."""
    lines = ["| " + " | ".join(_HEADS) + " |", "|" + " --- |" * len(_HEADS)]
    for one in outcomes:
        for index, incident in enumerate(one.incidents or (Incident(""),)):
            name = code(one.experiment) if index == 0 else f"… {escape(incident.name)}"
            verdict = escape(f"{one.verdict}: {one.why}" if one.why else one.verdict)
            ends = (verdict, _word(clean=one.clean)) if index == 0 else ("", "")
            lines.append("| " + " | ".join((name, *_times(incident), *ends)) + " |")
    return "\n".join(lines)


def as_data(outcomes: Sequence[Outcome]) -> list[dict[str, Any]]:
    """The rows as JSON-able data; what has bounds is {"earliest", "latest"} in seconds."""

    def plain(value: Any) -> Any:
        return value.model_dump() if isinstance(value, Bounds) else value

    return [
        {**asdict(one), "incidents": [{k: plain(getattr(i, k)) for k in i.__slots__} for i in one.incidents]}
        for one in outcomes
    ]


def _row(name: str, incident: Incident, verdict: str, clean: str) -> list[str]:
    cells = (*_times(incident), verdict, clean)
    if len(name) < _WIDTHS[0]:
        return [_line((name, *cells))]
    return [name, _line(("", *cells))]


def _line(cells: Sequence[str]) -> str:
    padded = [f"{cell:<{width}}" for cell, width in zip(cells, (*_WIDTHS, 0), strict=True)]
    return "".join(padded).rstrip()


def _times(incident: Incident) -> tuple[str, str, str]:
    first, second, third = (_shown(one) for one in (incident.effective, incident.firing, incident.recovered))
    return first, second, third


def _shown(bounds: Bounds | None) -> str:
    if bounds is None:
        return "-"
    return span(bounds.middle) + (f" ±{bounds.width / 2:.1f}" if bounds.width > _EXACT else "")


def _word(*, clean: bool | None) -> str:
    return {True: "yes", False: "NO", None: "-"}[clean]
