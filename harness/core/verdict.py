"""Verdicts from milestones: what was promised, what the evidence says, and how sure that is.

MET         the latest possible duration is within the bound
MISSED      the earliest possible duration is beyond it
UNDECIDED   the bounds straddle the target, or the data to decide is not there; never a pass for lack of data
NOT REACHED the end never came while the run watched; the duration is known only to exceed what was watched

A run's verdict is the worst of its required SLAs, its expected alerts and its guards (`must_hold`).
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from harness.core.clock import Bounds
from harness.core.errors import ExitCode
from harness.core.event import ChannelChanged, EffectProved, RunEnded, SourceRestarted
from harness.core.experiment import AnyExperiment, NamedCondition, Sla
from harness.core.history import History
from harness.core.milestone import Milestone, milestones
from harness.core.samples import samples


class Verdict(StrEnum):
    """The four words."""

    MET = "MET"
    MISSED = "MISSED"
    UNDECIDED = "UNDECIDED"
    NOT_REACHED = "NOT REACHED"


_WORSE = {Verdict.MET: 0, Verdict.UNDECIDED: 1, Verdict.NOT_REACHED: 2, Verdict.MISSED: 3}


@dataclass(frozen=True, slots=True)
class SlaResult:
    """One judged SLA. `duration` is in seconds; for NOT REACHED its `earliest` is a lower bound and latest is inf."""

    sla: Sla
    verdict: Verdict
    duration: Bounds | None
    reason: str
    start: Milestone | None = None
    end: Milestone | None = None


@dataclass(frozen=True, slots=True)
class GuardResult:
    """One `must_hold` condition over the whole run."""

    condition: NamedCondition
    verdict: Verdict
    reason: str


@dataclass(frozen=True, slots=True)
class Judgement:
    """Everything that a report says of a run, computed from its journal."""

    milestones: dict[str, Milestone]
    slas: tuple[SlaResult, ...]
    alerts: tuple[SlaResult, ...]
    guards: tuple[GuardResult, ...]
    verdict: Verdict
    reason: str
    exit_code: ExitCode


def judge(experiment: AnyExperiment, history: History) -> Judgement:
    """The judgement of a run. `experiment` must be tuned to the run's profile."""
    found = milestones(experiment, history)
    slas = tuple(judge_sla(sla, found, history) for sla in experiment.slas)
    alerts = tuple(_judge_alert(a.name, Sla.model_validate(
        {"name": f"{a.name} fires", "from": a.of, "to": f"{a.name}.firing", "within": a.within, "required": True}
    ), found, history) for a in experiment.alerts)  # fmt: skip
    guards = tuple(_judge_guard(condition, history) for condition in experiment.must_hold)
    verdict, reason = _worst(slas, alerts, guards, experiment, history)
    return Judgement(found, slas, alerts, guards, verdict, reason, _exit_code(verdict, history))


def judge_sla(sla: Sla, found: dict[str, Milestone], history: History) -> SlaResult:
    """One SLA against the milestones. See the module's head for the words."""
    start, end = found.get(sla.from_), found.get(sla.to)
    if start is None:
        lost = _lost_channels(history, history.started_at) if len(history) else ""
        if lost:
            return SlaResult(sla, Verdict.UNDECIDED, None, f"{sla.from_} could not be seen: {lost}", end=end)
        return SlaResult(
            sla, Verdict.NOT_REACHED, None, f"{sla.from_} never happened, so the clock never started", end=end
        )
    if end is None:
        return _not_reached(sla, start, history)
    duration = start.at.until(end.at)
    if duration.latest < 0:
        reason = f"{sla.to} came before {sla.from_}"
        return SlaResult(sla, Verdict.UNDECIDED, duration, reason, start, end)
    duration = duration.clipped(not_before=0.0)
    doubt = _doubt(start, end, history)
    if doubt:
        return SlaResult(sla, Verdict.UNDECIDED, duration, doubt, start, end)
    if duration.latest <= sla.within:
        return SlaResult(sla, Verdict.MET, duration, "", start, end)
    if duration.earliest > sla.within:
        return SlaResult(sla, Verdict.MISSED, duration, "", start, end)
    reason = f"the bound of {sla.within:g} s lies inside what is known"
    return SlaResult(sla, Verdict.UNDECIDED, duration, reason, start, end)


def _not_reached(sla: Sla, start: Milestone, history: History) -> SlaResult:
    watched = max(0.0, history.last_at - start.at.latest)
    lost = _lost_channels(history, start.at.earliest)
    if lost:
        return SlaResult(sla, Verdict.UNDECIDED, None, f"could not be seen: {lost}", start)
    ended = history.ended
    if ended is not None and ended.reason == "recovered":
        reason = "nobody watched after the run died, so it is not known whether it came"
        return SlaResult(sla, Verdict.UNDECIDED, None, reason, start)
    why = "the run has not ended" if ended is None else f"the run ended: {ended.detail}"
    duration = Bounds(earliest=watched, latest=float("inf"))
    reason = f"not reached in the {watched:.1f} s that were watched ({why})"
    return SlaResult(sla, Verdict.NOT_REACHED, duration, reason, start)


def _doubt(start: Milestone, end: Milestone, history: History) -> str:
    for record, event in history.records(SourceRestarted):
        if start.at.earliest <= record.at and ("Prometheus" in start.source or "Prometheus" in end.source):
            return f"{event.source} restarted during the run: {event.detail}"
    for milestone in (start, end):
        if "differs" in milestone.note:
            return f"{milestone.name}: {milestone.note}"
    return ""


def _lost_channels(history: History, since: float) -> str:
    """Channels that were down at some time after `since`, with their reason; "" where none was."""
    down: dict[str, tuple[float, str]] = {}
    lost: dict[str, str] = {}
    for record, event in history.records(ChannelChanged):
        if event.up:
            began = down.pop(event.channel, None)
            if began is not None and record.at > since:
                lost[event.channel] = began[1]
        else:
            down[event.channel] = (record.at, event.detail)
    lost.update({channel: detail for channel, (_, detail) in down.items()})
    return "; ".join(f"{channel} was lost ({detail})" for channel, detail in sorted(lost.items()))


def _judge_alert(name: str, sla: Sla, found: dict[str, Milestone], history: History) -> SlaResult:
    result = judge_sla(sla, found, history)
    if result.verdict is Verdict.NOT_REACHED and result.start is not None and result.duration is not None:
        late = result.duration.earliest > sla.within
        verdict = Verdict.MISSED if late else Verdict.NOT_REACHED
        return SlaResult(sla, verdict, result.duration, f"{name} never fired: {result.reason}", result.start)
    return result


def _judge_guard(condition: NamedCondition, history: History) -> GuardResult:
    seen, blind = 0, ""
    for sample in samples(history, guard_signal(condition)):
        if sample.value is None or sample.hole:
            blind = blind or f"no data at event {sample.seq}"
        if sample.value is None:
            continue
        seen += 1
        if not condition.holds(sample.value):  # one breach is enough, whatever else could not be seen
            return GuardResult(condition, Verdict.MISSED, f"was {sample.value:g} at event {sample.seq}")
    if blind:
        return GuardResult(condition, Verdict.UNDECIDED, blind)
    if seen == 0:
        return GuardResult(condition, Verdict.UNDECIDED, "it was never sampled")
    lost = _lost_channels(history, history.started_at)
    if "Prometheus" in lost:  # its samples simply end, or begin late: that is no hole between two of them
        return GuardResult(condition, Verdict.UNDECIDED, lost)
    return GuardResult(condition, Verdict.MET, f"held in {seen} samples")


def guard_signal(condition: NamedCondition) -> str:
    """The signal name under which a guard's samples are journalled."""
    return f"guard: {condition.name}"


def _worst(
    slas: tuple[SlaResult, ...],
    alerts: tuple[SlaResult, ...],
    guards: tuple[GuardResult, ...],
    experiment: AnyExperiment,
    history: History,
) -> tuple[Verdict, str]:
    # Of equally bad reasons the first is told: what kept the whole run from being judged comes before its parts.
    graded: list[tuple[Verdict, str]] = []
    ended = history.last(RunEnded)
    cut_short = ended is None or ended.reason not in {"complete", "timeout"}
    if ended is None:
        graded.append((Verdict.UNDECIDED, "the run never ended"))
    elif cut_short:
        graded.append((Verdict.UNDECIDED, f"the run was cut short: {ended.detail}"))
    proved = {event.fault for event in history.all(EffectProved)}
    graded += [
        (Verdict.UNDECIDED, f"fault {fault.id}: its effect was never proved")
        for fault in experiment.faults
        if fault.id not in proved
    ]
    unproved = any(fault.id not in proved for fault in experiment.faults)
    for result in (*slas, *alerts):
        if result.sla.required:
            # What was not reached in a run that was cut short, or whose fault was never proved, says nothing of people.
            excused = (cut_short or unproved) and result.verdict is Verdict.NOT_REACHED
            verdict = Verdict.UNDECIDED if excused else result.verdict
            why = f" ({result.reason})" if result.reason else ""
            graded.append((verdict, f"{result.sla.title}: {result.verdict}{why}"))
    graded += [(g.verdict, f"must hold: {g.condition.name}: {g.verdict} ({g.reason})") for g in guards]
    if not graded:
        return Verdict.UNDECIDED, "nothing was required"
    verdict, reason = max(graded, key=lambda item: _WORSE[item[0]])
    return (verdict, "") if verdict is Verdict.MET else (verdict, reason)


def _exit_code(verdict: Verdict, history: History) -> ExitCode:
    ended = history.last(RunEnded)
    if history.is_clean is False or history.open_faults():
        return ExitCode.ROLLBACK_INCOMPLETE
    if ended is not None and ended.reason == "refused":
        return ExitCode.REFUSED
    return {
        Verdict.MET: ExitCode.MET,
        Verdict.MISSED: ExitCode.MISSED,
        Verdict.NOT_REACHED: ExitCode.MISSED,
        Verdict.UNDECIDED: ExitCode.UNDECIDED,
    }[verdict]
