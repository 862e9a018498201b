"""Verdicts from milestones: what was promised, what the evidence says, and how sure that is.

MET         the latest possible duration is within the bound
MISSED      the earliest possible duration is beyond it
UNDECIDED   the bounds straddle the target, or the data to decide is not there; never a pass for lack of data
NOT REACHED the end never came while the run watched; the duration is known only to exceed what was watched

A run's verdict is the worst of its required SLAs, its expected alerts and its guards (`must_hold`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from harness.core.clock import STEPPED, Bounds
from harness.core.errors import ExitCode
from harness.core.event import (
    AlertTransition,
    ChannelChanged,
    ClockCompared,
    EffectProved,
    InjectDone,
    InjectStarted,
    NotifierSeen,
    PageReceived,
    Record,
    ResponderActed,
    RunEnded,
    SignalRead,
    SourceRestarted,
)
from harness.core.evidence import unprovable
from harness.core.experiment import AnyExperiment, NamedCondition, Sla, signal_of
from harness.core.held import may_have_held
from harness.core.history import History
from harness.core.milestone import (
    AMBIGUOUS,
    FROM_PROMETHEUS,
    MITIGATED,
    NO_DATA,
    RECOVERED,
    Milestone,
    milestones,
    operand_signal,
    restarts,
    zero_of,
)
from harness.core.quantity import format_duration
from harness.core.restart import doubt
from harness.core.samples import Sampled, described, samples, silence, trailing, watched_until


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
    slas = tuple(judge_sla(sla, found, history, experiment) for sla in experiment.slas)
    alerts = tuple(_judge_alert(a.name, Sla.model_validate(
        {"name": f"{a.name} fires", "from": a.of, "to": f"{a.name}.firing", "within": a.within, "required": True}
    ), found, history, experiment) for a in experiment.alerts)  # fmt: skip
    guards = tuple(_judge_guard(condition, history) for condition in experiment.must_hold)
    verdict, reason = _worst(slas, alerts, guards, experiment, history)
    return Judgement(found, slas, alerts, guards, verdict, reason, _exit_code(verdict, history))


def judge_sla(
    sla: Sla, found: dict[str, Milestone], history: History, experiment: AnyExperiment | None = None
) -> SlaResult:
    """One SLA against the milestones. See the module's head for the words. Only with the experiment is it known what
    a milestone that is not there would have been seen by."""
    start, end = found.get(sla.from_), found.get(sla.to)
    if start is None:
        unseen = _unseen(sla.from_, None, history, experiment, found) if len(history) else ""
        if unseen:
            return SlaResult(sla, Verdict.UNDECIDED, None, f"{sla.from_} could not be seen: {unseen}", end=end)
        return SlaResult(
            sla, Verdict.NOT_REACHED, None, f"{sla.from_} never happened, so the clock never started", end=end
        )
    if end is None:
        return _not_reached(sla, start, history, experiment, found)
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


def _not_reached(
    sla: Sla, start: Milestone, history: History, experiment: AnyExperiment | None, found: dict[str, Milestone]
) -> SlaResult:
    watched = max(0.0, history.last_at - start.at.latest)
    unseen = _unseen(sla.to, start, history, experiment, found, sla.within)
    if unseen:
        return SlaResult(sla, Verdict.UNDECIDED, None, f"could not be seen: {unseen}", start)
    ended = history.ended
    if ended is not None and ended.reason == "recovered":
        reason = "nobody watched after the run died, so it is not known whether it came"
        return SlaResult(sla, Verdict.UNDECIDED, None, reason, start)
    why = "the run has not ended" if ended is None else f"the run ended: {ended.detail}"
    duration = Bounds(earliest=watched, latest=float("inf"))
    reason = f"not reached in the {watched:.1f} s that were watched ({why})" + _fell(sla.to, history, experiment, found)
    return SlaResult(sla, Verdict.NOT_REACHED, duration, reason, start)


def _fell(name: str, history: History, experiment: AnyExperiment | None, found: dict[str, Milestone]) -> str:
    """What looked like a recovery and did not outlast a restart, as a clause to append."""
    alert, _, what = name.rpartition(".")
    if experiment is None or what != RECOVERED:
        return ""
    alert = alert or next((one.name for one in experiment.alerts), "")
    outcome = restarts(experiment, history, found).get(alert)
    last = None if outcome is None else next((one for one in reversed(outcome.all) if one.fell), None)
    return (
        "" if last is None else f"; what looked like it did not outlast a restart of {last.plan.workload}: {last.fell}"
    )


def _unseen(
    name: str,
    start: Milestone | None,
    history: History,
    experiment: AnyExperiment | None,
    found: dict[str, Milestone],
    within: float = 0.0,
) -> str:
    """Why a milestone that is not there may have come all the same; "" where it would have been seen."""
    since = history.started_at if start is None else start.at.earliest
    lost = _lost_channels(history, since)
    what = name.rpartition(".")[2]
    if lost:
        return lost
    if what not in FROM_PROMETHEUS:
        return next((step.words for step in _clock_steps(history) if step.peer != PROMETHEUS), "")
    doubts = [_restarted(event) for event in history.all(SourceRestarted) if event.source == PROMETHEUS]
    doubts += [step.words for step in _clock_steps(history) if step.peer == PROMETHEUS]
    if doubts or experiment is None:
        return next(iter(doubts), "")
    if what in (MITIGATED, RECOVERED):
        alert = name.rpartition(".")[0] or next((alert.name for alert in experiment.alerts), "")
        firing, condition = found.get(f"{alert}.firing"), experiment.goal(alert, what)
        if firing is None or condition is None:
            return ""
        signal = signal_of(experiment, alert, what)
        outcome = restarts(experiment, history, found).get(alert) if what == RECOVERED else None
        if outcome is not None:
            return doubt(history, outcome, signal, condition)
        return may_have_held(history, signal, condition, not_before=firing.at.earliest)
    return _nothing_to_evaluate(name, history, experiment, within, found)


def _nothing_to_evaluate(
    name: str, history: History, experiment: AnyExperiment, within: float, found: dict[str, Milestone]
) -> str:
    """Whether the rule of the alert that a milestone is of lacked data, unless it had some for the whole bound without
    a break: then that it did not fire is its own answer."""
    alert = name.rpartition(".")[0] or next((alert.name for alert in experiment.alerts), "")
    zero = next((found.get(zero_of(experiment, one)) for one in experiment.alerts if one.name == alert), None)
    injected = (
        next((event.at.earliest for event in history.all(InjectDone)), None) if zero is None else zero.at.earliest
    )
    bound = within or next((one.within for one in experiment.alerts if one.name == alert), 0.0)
    missing: Sampled | None = None
    begun: float | None = None
    for sample in samples(history, operand_signal(alert)):
        if injected is None or sample.at < injected:
            continue
        if sample.value is None or sample.hole:
            missing, begun = missing or sample, None
        if sample.value is not None:
            begun = sample.at if begun is None else begun
            if sample.at - begun >= bound:
                return ""
    return "" if missing is None else f"the rule of {alert} had nothing to look at ({described(missing)})"


def _doubt(start: Milestone, end: Milestone, history: History) -> str:
    """Why the two milestones are not to be trusted although they were told."""
    for event in history.all(SourceRestarted):
        if any(event.source in milestone.source for milestone in (start, end)):
            return _restarted(event)
    for step in _clock_steps(history):
        for milestone in (start, end):
            told_before = step.peer == PROMETHEUS and max(milestone.evidence, default=0) < step.seq
            if step.peer == _stamped_by(milestone, history) and not told_before:
                return f"{milestone.name}: {step.words}"
    for milestone in (start, end):
        stalled = _stalled(milestone, start.at.earliest, end.at.latest, history)
        if stalled:
            return f"{milestone.name}: {stalled}"
        if "differs" in milestone.note or milestone.note.startswith((NO_DATA, AMBIGUOUS)):
            return f"{milestone.name}: {milestone.note}"
    return ""


PROMETHEUS = "Prometheus"


def _stalled(milestone: Milestone, since: float, until: float, history: History) -> str:
    """Why an alert's milestone is not to be trusted: its rule was not evaluated at some time between the two."""
    told = [history[seq].event for seq in milestone.evidence]
    channels = {rule_channel(event.alert) for event in told if isinstance(event, AlertTransition)}
    down = ""
    for record, event in history.records(ChannelChanged) if channels else ():
        if event.channel not in channels or record.at > until:
            continue
        if event.up and record.at < since:
            down = ""
        elif not event.up:
            down = down or f"its rule was {event.detail}"
    return down


def rule_channel(alert: str) -> str:
    """The channel under which it is journalled that an alert's rule is not evaluated."""
    return f"rule of {alert}"


def _restarted(event: SourceRestarted) -> str:
    return f"{event.source} restarted during the run: {event.detail}"


@dataclass(frozen=True, slots=True)
class _Step:
    """A clock that was set during the run, found with event `seq`. Prometheus' is compared behind every round, so what
    was told before is right; the others' now and then, so nothing that they stamped is to be trusted."""

    peer: str
    seq: int
    words: str


def _clock_steps(history: History) -> list[_Step]:
    """Where two comparisons of the same clocks contradict each other by more than drift."""

    def look(seen: tuple[dict[str, Bounds], list[_Step]], record: Record) -> None:
        known, steps = seen
        event = record.event
        if not isinstance(event, ClockCompared):
            return
        before = known.get(event.peer)
        if before is not None and before.gap(event.offset) > STEPPED:
            by = event.offset.middle - before.middle
            words = f"the clock of {event.peer} was set {'forward' if by > 0 else 'back'} by {abs(by):.3g} s meanwhile"
            steps.append(_Step(event.peer, record.seq, words))
        known[event.peer] = event.offset

    return history.folded("clock steps", history.told(ClockCompared), lambda: ({}, []), look)[1]


def _stamped_by(milestone: Milestone, history: History) -> str:
    """Whose clock a milestone was told by, as comparisons name it; "" where it was ours, or a node's."""
    for seq in milestone.evidence:
        match history[seq].event:
            case AlertTransition() | SignalRead():
                return PROMETHEUS
            case NotifierSeen():
                return "Alertmanager"
            case PageReceived():
                return "pager"
            case ResponderActed(source=source):
                return "Alertmanager" if source.startswith("Alertmanager") else "API server"
            case _:
                pass
    return ""


def _lost_channels(history: History, since: float) -> str:
    """Channels that were down at some time after `since`, with their reason; "" where none was. Prometheus is also
    lost where its samples end too long before the watch does: a question that hangs is told only when it is given
    up."""
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
    quiet = silence(history)
    ended = history.ended
    if quiet and not (ended is not None and ended.reason == "recovered"):
        lost.setdefault(PROMETHEUS, f"its samples end {quiet:.1f} s before the watch did")
    return "; ".join(f"{channel} was lost ({detail})" for channel, detail in sorted(lost.items()))


def _judge_alert(
    name: str, sla: Sla, found: dict[str, Milestone], history: History, experiment: AnyExperiment
) -> SlaResult:
    result = judge_sla(sla, found, history, experiment)
    if result.verdict is Verdict.NOT_REACHED and result.start is not None and result.duration is not None:
        late = result.duration.earliest > sla.within
        verdict = Verdict.MISSED if late else Verdict.NOT_REACHED
        return SlaResult(sla, verdict, result.duration, f"{name} never fired: {result.reason}", result.start)
    return result


@dataclass(slots=True)
class _Guarded:
    """What the samples of a guard have shown so far."""

    seen: int = 0
    blind: str = ""
    breach: str = ""


def _judge_guard(condition: NamedCondition, history: History) -> GuardResult:
    def look(so_far: _Guarded, sample: Sampled) -> None:
        if sample.value is None or sample.hole:
            so_far.blind = so_far.blind or f"no data at event {sample.seq} ({described(sample)})"
        if sample.value is None:
            return
        so_far.seen += 1
        if not condition.holds(sample.value):  # one breach is enough, whatever else could not be seen
            so_far.breach = so_far.breach or f"was {sample.value:g} at event {sample.seq}"

    told = samples(history, guard_signal(condition))
    so_far = history.folded(("guarded", condition), told, _Guarded, look)
    if so_far.breach:
        return GuardResult(condition, Verdict.MISSED, so_far.breach)
    blind = so_far.blind or ("" if told else "it was never sampled") or _unguarded(told, history)
    if blind:
        return GuardResult(condition, Verdict.UNDECIDED, blind)
    return GuardResult(condition, Verdict.MET, f"held in {so_far.seen} samples")


def _unguarded(told: Sequence[Sampled], history: History) -> str:
    """Why samples without a hole do not show the whole time from the injection to the end of the watch; "" where they
    do. That samples begin late or end early is no hole between two of them."""
    lost = _lost_channels(history, history.started_at)
    if PROMETHEUS in lost:
        return lost
    for step in _clock_steps(history):
        if step.peer == PROMETHEUS:
            return step.words
    injected = next((event.at.latest for event in history.all(InjectDone)), None)
    if injected is not None and told[0].at - injected > trailing(history):
        return f"its samples begin {format_duration(told[0].at - injected)} after the injection"
    late = watched_until(history) - told[-1].at
    return f"its samples end {format_duration(late)} before the watch did" if late > trailing(history) else ""


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
    begun = {event.fault for event in history.all(InjectStarted)}
    graded += [
        (
            Verdict.UNDECIDED,
            f"fault {fault.id}: its effect was never proved" + _because(unprovable(fault, history))
            if fault.id in begun
            else f"fault {fault.id} was never injected",
        )
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


def _because(why: str) -> str:
    return f" ({why})" if why else ""


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
