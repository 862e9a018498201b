"""What the chart shows, as numbers: the curve, its lines, the bands of fault and alert, the milestones, the workers."""

from __future__ import annotations

import re

from harness.core.clock import Bounds
from harness.core.event import AlertingRead, AlertTransition, InjectDone, PodsSeen, Record, UndoDone
from harness.core.experiment import GOALS, AnyExperiment, Condition, curve_signal
from harness.core.history import History
from harness.core.milestone import Milestone
from harness.core.samples import Sampled, samples
from harness.report.values import Band, Chart, Line, Marker

CURVE = "curve"
_MARKED = (
    "injected", "firing", "acknowledged", "assessed", "root_cause.declared", "fix.applied", "client.notified",
    "mitigated", "recovered", "resolved", "all_clear",
)  # fmt: skip
_ABOVE = re.compile(r"^(?P<left>.+?)\s*>=?\s*(?P<bound>\d+(?:\.\d+)?(?:e[+-]?\d+)?)$", re.DOTALL)


def alert_bound(experiment: AnyExperiment, query: str) -> float | None:
    """The value above which the alert is active, where its expression is the drawn signal compared with a number."""
    match = _ABOVE.match(query.strip())
    same = match is not None and _squeezed(match["left"]) == _squeezed(experiment.signal.query)
    return float(match["bound"]) if match is not None and same else None


def symptom(experiment: AnyExperiment, history: History, query: str, injected: Milestone | None) -> Bounds | None:
    """When the drawn signal first rose above the alert's bound after the injection, to within one sample's age."""
    bound = alert_bound(experiment, query)
    if bound is None or injected is None:
        return None
    before = injected.at.earliest
    for sample in samples(history, CURVE):
        if sample.at < injected.at.earliest:
            continue
        if sample.value is not None and sample.value > bound:
            earliest = max(injected.at.earliest, before - sample.resolution)
            return Bounds(earliest=min(earliest, sample.at), latest=sample.at)
        before = sample.at
    return None


def incident_charts(experiment: AnyExperiment, history: History, found: dict[str, Milestone]) -> tuple[Chart, ...]:
    """One chart of each alert's own signal that was seen."""
    drawn = [
        chart(
            experiment.model_copy(update={"signal": alert.signal} | _own_goals(experiment, alert.name)),
            history, found, curve_signal(alert.name),
        )
        for alert in experiment.alerts[1:]
        if alert.signal is not None
    ]  # fmt: skip
    return tuple(one for one in drawn if one is not None)


def _own_goals(experiment: AnyExperiment, alert: str) -> dict[str, Condition]:
    goals = {goal: experiment.goal(alert, goal) for goal in GOALS}
    return {goal: condition for goal, condition in goals.items() if condition is not None}


def chart(
    experiment: AnyExperiment, history: History, found: dict[str, Milestone], signal: str = CURVE
) -> Chart | None:
    """The chart of one signal, or None where neither it nor the pods were ever seen."""
    read = list(samples(history, signal))
    pods = history.records(PodsSeen)
    if not read and not pods:
        return None
    injected = found.get("injected")
    zero_name = next((name for name in ("firing", "injected") if name in found), "start of the run")
    zero = found[zero_name].at.middle if zero_name in found else history.started_at
    seen = [sample.at for sample in read] + [record.at for record, _ in pods]
    # The clean check may come long after everybody has left: what is drawn ends with what was watched.
    end = max(seen + [found[name].at.middle for name in _MARKED if name in found])
    first = min(seen)
    if injected is not None:
        lead = max(10.0, 0.15 * (end - injected.at.earliest))
        first = min(max(first, injected.at.earliest - lead), injected.at.earliest)
    return Chart(
        title=experiment.signal.title,
        unit=experiment.signal.unit,
        zero=zero_name,
        start=first - zero,
        end=max(end, first + 1.0) - zero,
        points=tuple((at - zero, value) for at, value in _with_gaps(read) if at >= first),
        lines=_lines(experiment, history),
        bands=tuple(_bands(experiment, history, found, zero, end)),
        markers=tuple(_markers(experiment, found, zero)),
        ready=tuple(_ready(pods, zero, first)),
        wanted=len(pods[0][1].pods) if pods else 0,
        evidence=tuple(sorted({sample.seq for sample in (*read[:1], *read[-1:])})),
    )


def _with_gaps(read: list[Sampled]) -> list[tuple[float, float | None]]:
    """The samples, with a None wherever some are missing in between."""
    points: list[tuple[float, float | None]] = []
    for before, sample in zip([None, *read], read, strict=False):
        if sample.hole and before is not None:
            points.append(((before.at + sample.at) / 2, None))
        points.append((sample.at, sample.value))
    return points


def _lines(experiment: AnyExperiment, history: History) -> tuple[Line, ...]:
    lines: list[Line] = []
    recovered = experiment.recovered
    bound = recovered.below if recovered.below is not None else recovered.above
    if bound is not None and _squeezed(recovered.query) == _squeezed(experiment.signal.query):
        side = "below" if recovered.below is not None else "above"
        lines.append(Line(bound, f"recovered {side} {bound:g}", "recovered"))
    expected = [alert.name for alert in experiment.alerts]
    for read in history.all(AlertingRead):
        above = alert_bound(experiment, read.query)
        line = Line(above, f"alert above {above:g}", "alert") if above is not None else None
        if line is not None and read.alert in expected and line not in lines:
            lines.append(line)
    return tuple(lines)


def _bands(
    experiment: AnyExperiment, history: History, found: dict[str, Milestone], zero: float, end: float
) -> list[Band]:
    bands: list[Band] = []
    for done in history.all(InjectDone):
        if done.outcome == "failed":
            continue
        undo = next((u for u in history.all(UndoDone) if u.fault == done.fault and u.outcome != "refused"), None)
        stop, label = end, f"{done.fault} in force"
        fix = _fix_of(done.fault, experiment, found)
        if undo is not None and undo.outcome == "already" and fix is not None:
            stop, label = fix.at.middle, f"{done.fault} in force until the responder's fix"
        elif undo is not None and undo.outcome == "already":
            stop, label = undo.at.middle, f"{done.fault} in force, at the latest until it was found restored"
        elif undo is not None:
            stop = undo.at.middle
        start = done.at.middle
        bands.append(Band("fault", label, "fault", start - zero, max(start, min(stop, end)) - zero))
    for alert in experiment.alerts:
        bands += _alert_bands(alert.name, history, zero, end)
    return bands


def _fix_of(fault: str, experiment: AnyExperiment, found: dict[str, Milestone]) -> Milestone | None:
    """The responder's fix for what a fault raised: that of the alert which is counted from it, or else the first."""
    own = [alert.name for alert in experiment.alerts if alert.of.partition(".")[0] == fault]
    return next((found[name] for name in (f"{alert}.fix.applied" for alert in own) if name in found),
                None if own else found.get("fix.applied"))  # fmt: skip


def _alert_bands(alert: str, history: History, zero: float, end: float) -> list[Band]:
    bands: list[Band] = []
    moves = [m for m in history.all(AlertTransition) if m.alert == alert]
    for index, move in enumerate(moves):
        after = moves[index + 1] if index + 1 < len(moves) else None
        if move.to == "resolved":
            continue
        stop = end if after is None else min(after.at.middle, end)
        kind = move.to
        start = move.at.middle
        bands.append(Band(alert, f"{alert} {kind}", kind, start - zero, max(start, stop) - zero))
    return bands


def _markers(experiment: AnyExperiment, found: dict[str, Milestone], zero: float) -> list[Marker]:
    names = [*_MARKED]
    names += [f"{alert.name}.{what}" for alert in experiment.alerts[1:] for what in _MARKED if what != "injected"]
    names += [f"{fault.id}.effective" for fault in experiment.faults]
    names += [f"{role}.{what}" for role in experiment.roles for what in ("paged", "joined")]
    markers: list[Marker] = []
    for name in names:
        milestone = found.get(name)
        if milestone is None:
            continue
        who = milestone.actor_kind
        markers.append(
            Marker(
                milestone.at.middle - zero, name,
                "automation" if who == "automation" else "human" if who else "machine",
            )
        )  # fmt: skip
    return sorted(markers, key=lambda marker: (marker.at, marker.label))


def _ready(pods: list[tuple[Record, PodsSeen]], zero: float, first: float) -> list[tuple[float, int, int]]:
    """Ready pods of the first fault's target at each change; the state at the chart's left edge is carried in."""
    steps: list[tuple[float, int, int]] = []
    for record, event in pods:
        if event.fault != pods[0][1].fault:
            continue
        counts = (sum(pod.ready for pod in event.pods), len(event.pods))
        at = max(record.at, first) - zero
        if steps and steps[-1][0] == at:
            steps.pop()
        if not steps or steps[-1][1:] != counts:
            steps.append((at, *counts))
    return steps


def _squeezed(query: str) -> str:
    return re.sub(r"\s+", "", query)
